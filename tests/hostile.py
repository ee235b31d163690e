"""Hostile files: damaged ones, drawn by a seed, and bombs."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image

from tests.conftest import picture

LENGTHS = (b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff")
SYNTAX = (b"{", b'"', b"\xff", b"\n", b"null", b"../")


def mutated(content: bytes, draw: random.Random, pieces: Sequence[bytes], hits: int = 8) -> bytes:
    """The bytes of a file, of which some were changed, repeated, put in, taken out or cut off."""
    found = bytearray(content)
    for _ in range(draw.randint(1, hits)):
        # The head, where the structure is, takes half of the hits.
        place = draw.randrange(len(found) if draw.random() < 0.5 else min(200, len(found)))
        match draw.randrange(8):
            case 0 | 1:
                found[place] = draw.randrange(256)
            case 2:
                found[place] ^= 1 << draw.randrange(8)
            case 3:
                piece = draw.choice(pieces)
                found[place : place + len(piece) * draw.randrange(2)] = piece
            case 4:
                found[place:place] = found[place : place + draw.randrange(1, 64)]
            case 5 | 6:
                del found[place : place + draw.randrange(1, 200)]
            case 7 if draw.random() < 0.3:
                del found[place:]
        found = found or bytearray(1)
    return bytes(found)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int, height: int, data: bytes) -> bytes:
    """A PNG whose header claims this size, with any compressed pixels."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for part in (b"IHDR" + head, b"IDAT" + data, b"IEND"):
        content += struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part))
    return content


def endless_jpeg(scans: int) -> bytes:
    """A small progressive JPEG with its last scan repeated."""
    flat = encoded(Image.new("RGB", (2000, 2000)), "JPEG", progressive=True)
    return flat[:-2] + scans * flat[flat.rindex(b"\xff\xda") : -2] + flat[-2:]


def bombs() -> dict[str, Callable[[], bytes]]:
    """Small files that claim or unpack to far more than they are, and what is no image at all."""
    zeros = zlib.compress(bytes(100_000_000), 9)
    gif = encoded(picture(1).quantize(8), "GIF")
    return {
        "PNG of 2^31 by 2^31": lambda: png(2**31 - 1, 2**31 - 1, zeros),
        "PNG just above the limit": lambda: png(8_001, 8_000, zeros),
        "JPEG of 1,000 scans": lambda: endless_jpeg(1_000),
        "GIF of 65,535 by 65,535": lambda: gif[:6] + b"\xff" * 4 + gif[10:],
        "nothing": lambda: b"",
        "PDF": lambda: b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog /OpenAction 2 0 R >>\nendobj\n",
        "EPS": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) run\n",
        "EPS behind a JPEG's first bytes": lambda: b"\xff\xd8\xff%!PS-Adobe-3.0 EPSF-3.0\n%%EOF\n",
        "TIFF": lambda: encoded(picture(1), "TIFF"),
    }
