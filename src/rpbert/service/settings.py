"""What a service allows: every limit, with its default; the options of `rpbert serve`."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from rpbert.errors import InputError

MEBI = 2**20


def _option(default: float, least: float, help: str) -> Any:
    return field(default=default, metadata={"least": least, "help": help})


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """Limits of a service and how it batches.

    Raises:
        InputError: a value is below the least that makes sense, or two of them cannot both hold.
    """

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
        if self.max_posts > self.queue:
            found = f"{self.max_posts}, more than --queue {self.queue}"
            raise InputError("--max-posts", found, "at most as many posts as may wait")
        if self.max_body > self.max_bodies:
            found = f"{self.max_body:g}, more than --max-bodies {self.max_bodies:g}"
            raise InputError("--max-body", found, "at most what may be held at once")

    @property
    def body_bytes(self) -> int:
        """Bytes of a request's body."""
        return int(self.max_body * MEBI)

    @property
    def all_bodies_bytes(self) -> int:
        """Bytes of all bodies held at once."""
        return int(self.max_bodies * MEBI)

    @property
    def image_bytes(self) -> int:
        """Bytes of an image file."""
        return int(self.max_image * MEBI)

    @property
    def image_pixels(self) -> int:
        """Pixels of an image."""
        return int(self.max_pixels * 1e6)


def option_name(field_name: str) -> str:
    """The option of the command line that sets a field."""
    return "--" + field_name.replace("_", "-")
