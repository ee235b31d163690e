"""Limits of a service: sizes and times, API keys, and the failures that clients get for JSON."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rpbert.errors import InputError, reason_of

if TYPE_CHECKING:
    from starlette.responses import JSONResponse

MEBI = 2**20
KEYS_VARIABLE = "RPBERT_API_KEYS"
SHORTEST_KEY = 16


def _option(default: float, least: float, help: str) -> Any:
    return field(default=default, metadata={"least": least, "help": help})


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """The options of `rpbert serve`; raises `InputError` where a value cannot be."""

    batch_size: int = _option(32, 1, "Most posts that go through the model together.")
    batch_wait: float = _option(2.0, 0, "Milliseconds that a post waits for others to join it.")
    queue: int = _option(256, 1, "Posts that may wait for the model; beyond them, 503.")
    deadline: float = _option(30.0, 0.001, "Seconds in which a request is answered, or 504.")
    slow_client: float = _option(15.0, 0.001, "Seconds in which a request has arrived, or 408.")
    max_body: float = _option(16.0, 0.001, "MiB of a request's body, or 413.")
    max_bodies: float = _option(128.0, 0.001, "MiB of all bodies held at once; beyond them, 503.")
    max_posts: int = _option(64, 1, "Posts in a request.")
    max_text: int = _option(4000, 1, "Characters of a post's text.")
    max_image: float = _option(8.0, 0.001, "MiB of an image file.")
    max_pixels: float = _option(40.0, 1e-6, "Million pixels of an image.")

    def __post_init__(self) -> None:
        for one in fields(self):
            value, least = getattr(self, one.name), one.metadata["least"]
            if not least <= value < float("inf"):
                raise InputError(option_name(one.name), f"{value:g}", f"{least:g} or more")
        for small, large in (("max_posts", "queue"), ("max_body", "max_bodies")):
            value, most = getattr(self, small), getattr(self, large)
            if value > most:
                expected = f"at most {option_name(large)}, {most:g}"
                raise InputError(option_name(small), f"{value:g}", expected)

    def limits(self) -> dict[str, int]:
        """What a request may hold, in units that clients count."""
        return {
            "posts": self.max_posts,
            "text_characters": self.max_text,
            "body_bytes": int(self.max_body * MEBI),
            "image_bytes": int(self.max_image * MEBI),
            "image_pixels": int(self.max_pixels * 1e6),
        }


def option_name(field_name: str) -> str:
    """The option of the command line that sets a field."""
    return "--" + field_name.replace("_", "-")


class Failure(Exception):
    """A request, or one post of it, that cannot be answered: `code` is for programs."""

    def __init__(
        self, status: int, code: str, reason: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(reason)
        self.status, self.code, self.reason = status, code, reason
        self.headers = dict(headers or {})

    def to_dict(self) -> dict[str, Any]:
        """The failure as JSON types."""
        return {"error": {"code": self.code, "reason": self.reason}}

    def response(self) -> JSONResponse:
        """The failure as an answer."""
        from starlette.responses import JSONResponse

        return JSONResponse(self.to_dict(), self.status, self.headers)


def invalid(reason: str) -> Failure:
    """The request holds no valid post."""
    return Failure(422, "invalid", reason)


def too_large(what: str, found: str, most: object) -> Failure:
    """The request is beyond a limit of the service."""
    return Failure(413, "too_large", f"{what}: {found}; at most {most}")


def busy(reason: str, seconds: int) -> Failure:
    """The service holds as much work as it may."""
    headers = {"Retry-After": str(seconds)}
    return Failure(503, "busy", f"{reason}; try again in {seconds} s", headers)


def internal() -> Failure:
    """A fault of the service; its log has the stack."""
    return Failure(500, "internal", "the service failed on this; its log says why")


class Keys:
    """API keys, kept as digests; without any, the service is open to all."""

    def __init__(self, keys: Iterable[str], where: object = KEYS_VARIABLE) -> None:
        self._digests = set()
        for key in keys:
            if len(key) < SHORTEST_KEY or not key.isascii() or not key.isprintable() or " " in key:
                expected = f"{SHORTEST_KEY} or more printable ASCII characters without blanks"
                raise InputError(where, f"a key of {len(key)} characters", expected)
            self._digests.add(hashlib.sha256(key.encode()).digest())

    @classmethod
    def read(cls, file: Path | None, environment: Mapping[str, str] = os.environ) -> Keys:
        """The keys of a file, one a line, ``#`` comments; or else of ``RPBERT_API_KEYS``."""
        if file is None:
            return cls(environment.get(KEYS_VARIABLE, "").replace(",", " ").split())
        try:
            lines = [line.strip() for line in file.read_text("utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            found = f"no readable file ({reason_of(error)})"
            raise InputError(file, found, "a key on each line") from None
        keys = [line for line in lines if line and not line.startswith("#")]
        if not keys:  # an empty file must not open the service to all
            raise InputError(file, "no key", "a key on each line")
        return cls(keys, file)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def open(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a request may pass: ``Authorization: Bearer KEY`` or ``X-API-Key: KEY``."""
        given = headers.get(b"x-api-key", b"")
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer":
            given = token.strip()
        # The time in which a digest is found tells nothing of the key it was made of.
        return not self._digests or hashlib.sha256(given).digest() in self._digests
