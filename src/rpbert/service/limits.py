"""The options of a service: sizes, times and hosts of requests, and the keys that open it."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pydantic import BaseModel, Field, model_validator

from rpbert.errors import InputError, reason_of

MEBI = 2**20
KEYS_VARIABLE = "RPBERT_API_KEYS"


def option_name(field: str) -> str:
    """The option of the command line that sets a field."""
    return "--" + field.replace("_", "-")


class ServiceSettings(
    BaseModel, frozen=True, alias_generator=option_name, populate_by_name=True, allow_inf_nan=False
):
    """Each field is an option of `rpbert serve`."""

    batch_size: int = Field(32, ge=1, description="Most posts that go through the model together.")
    batch_wait: float = Field(2.0, ge=0, description="Milliseconds that a post waits for others.")
    queue: int = Field(
        256, ge=1, description="Posts that may wait for the model; beyond them, 503."
    )
    deadline: float = Field(
        30.0, gt=0, description="Seconds in which a request is answered, or 504."
    )
    slow_client: float = Field(15.0, gt=0, description="Seconds for a request to arrive, or 408.")
    max_body: float = Field(16.0, gt=0, description="MiB of a request's body, or 413.")
    max_bodies: float = Field(128.0, gt=0, description="MiB of all bodies at once; beyond, 503.")
    max_posts: int = Field(64, ge=1, description="Posts in a request.")
    max_text: int = Field(4000, ge=1, description="Characters of a post's text.")
    max_image: float = Field(8.0, gt=0, description="MiB of an image file.")
    max_pixels: float = Field(40.0, gt=0, description="Million pixels of an image.")
    keys: Path | None = Field(
        None, description="API keys, one a line; else RPBERT_API_KEYS or none."
    )
    examples: Path | None = Field(None, description="Posts of the page, .jsonl or .parquet.")
    allow_host: list[str] = Field(
        [], description="A host to answer for, whose pages may ask; *.NAME too."
    )

    @model_validator(mode="after")
    def _one_fits_into_all(self) -> Self:
        for small, large in (("max_posts", "queue"), ("max_body", "max_bodies")):
            value, most = getattr(self, small), getattr(self, large)
            if value > most:
                expected = f"at most {option_name(large)}, {most:g}"
                raise ValueError(f"{option_name(small)} {value:g}", expected)
        return self

    def limits(self) -> dict[str, int]:
        """What a request may hold, in units that clients count."""
        return {
            "posts": self.max_posts,
            "text_characters": self.max_text,
            "body_bytes": int(self.max_body * MEBI),
            "image_bytes": int(self.max_image * MEBI),
            "image_pixels": int(self.max_pixels * 1e6),
        }


def read_keys(file: Path | None, environment: Mapping[str, str] = os.environ) -> frozenset[bytes]:
    """The SHA-256 of each key of a file, one a line, ``#`` comments; or else of those of
    ``RPBERT_API_KEYS``. The time in which a digest is found tells nothing of its key."""
    if file is None:
        keys = environment.get(KEYS_VARIABLE, "").replace(",", " ").split()
    else:
        try:
            lines = [line.strip() for line in file.read_text("utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            found = f"no readable file ({reason_of(error)})"
            raise InputError(file, found, "a key on each line") from None
        keys = [line for line in lines if line and not line.startswith("#")]
        if not keys:  # an empty file must not open the service to all
            raise InputError(file, "no key", "a key on each line")
    for key in keys:
        if not re.fullmatch("[!-~]{16,}", key):
            expected = "16 or more printable ASCII characters without blanks"
            raise InputError(file or KEYS_VARIABLE, f"a key of {len(key)} characters", expected)
    return frozenset(hashlib.sha256(key.encode()).digest() for key in keys)


def opens(keys: frozenset[bytes], headers: Mapping[bytes, bytes]) -> bool:
    """Whether a request may pass: ``Authorization: Bearer KEY`` or ``X-API-Key: KEY``."""
    given = headers.get(b"x-api-key", b"")
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer":
        given = token.strip()
    return not keys or hashlib.sha256(given).digest() in keys
