"""API keys: from a file or the environment, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from rpbert.errors import InputError, reason_of

VARIABLE = "RPBERT_API_KEYS"
SHORTEST = 16


class Keys:
    """The keys that open a service; without any, it is open to all.

    Raises:
        InputError: a key is so short that it could be guessed, or holds what no header can.
    """

    def __init__(self, keys: Iterable[str], where: object = VARIABLE) -> None:
        self._digests = []
        for key in keys:
            if len(key) < SHORTEST or not key.isascii() or not key.isprintable() or " " in key:
                expected = f"{SHORTEST} or more printable ASCII characters without blanks"
                raise InputError(where, f"a key of {len(key)} characters", expected)
            self._digests.append(hashlib.sha256(key.encode()).digest())

    @classmethod
    def read(cls, file: Path | None, environment: Mapping[str, str] = os.environ) -> Keys:
        """The keys of a file, one a line, or else of the variable ``RPBERT_API_KEYS``.

        Blank lines and lines that begin with # are left out. In the variable, commas or blanks
        part the keys.

        Raises:
            InputError: the file cannot be read or has no key, or a key is unfit.
        """
        if file is None:
            return cls(environment.get(VARIABLE, "").replace(",", " ").split())
        try:
            lines = [line.strip() for line in file.read_text("utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                file, f"no readable file ({reason_of(error)})", "a key on each line"
            ) from None
        keys = [line for line in lines if line and not line.startswith("#")]
        if not keys:  # an empty file must not open the service to all
            raise InputError(file, "no key", "a key on each line")
        return cls(keys, file)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def open(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a request may pass: ``Authorization: Bearer KEY`` or ``X-API-Key: KEY``.

        Digests of one length are compared, and all of them, so that the time tells nothing.
        """
        if not self._digests:
            return True
        given = headers.get(b"x-api-key", b"")
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer":
            given = token.strip()
        digest = hashlib.sha256(given).digest()
        found = False
        for own in self._digests:
            found |= hmac.compare_digest(digest, own)
        return found
