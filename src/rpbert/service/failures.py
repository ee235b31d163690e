"""What a client gets in place of an answer: JSON with a reason, never a stack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Failure(Exception):
    """A request, or one post of it, that cannot be answered.

    Args:
        status: of HTTP, where the request fails as a whole.
        code: one word for programs.
        reason: a sentence for people.
        headers: that the answer carries.
    """

    def __init__(
        self, status: int, code: str, reason: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(reason)
        self.status, self.code, self.reason = status, code, reason
        self.headers = dict(headers or {})

    def to_dict(self) -> dict[str, Any]:
        """The failure as JSON types."""
        return {"error": {"code": self.code, "reason": self.reason}}


def invalid(reason: str) -> Failure:
    """What was sent is no post."""
    return Failure(422, "invalid", reason)


def too_large(what: str, found: str, most: str) -> Failure:
    """What was sent is beyond a limit of the service."""
    return Failure(413, "too_large", f"{what}: {found}; at most {most}")


def unauthorised() -> Failure:
    """No key, or none of the service's."""
    reason = "an API key is needed, as 'Authorization: Bearer KEY'"
    return Failure(401, "unauthorised", reason, {"WWW-Authenticate": "Bearer"})


def slow(seconds: float) -> Failure:
    """The request did not arrive in time."""
    return Failure(408, "slow", f"the request did not arrive within {seconds:g} s")


def busy(reason: str, seconds: int) -> Failure:
    """The service holds as much work as it may."""
    return Failure(
        503, "busy", f"{reason}; try again in {seconds} s", {"Retry-After": str(seconds)}
    )


def late(seconds: float) -> Failure:
    """The answer would come after the deadline."""
    return Failure(504, "deadline", f"no answer within {seconds:g} s")


def internal() -> Failure:
    """A fault of the service; its log has the stack."""
    return Failure(500, "internal", "the service failed on this; its log says why")
