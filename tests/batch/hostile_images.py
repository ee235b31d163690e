"""Images as an attacker sends them: mutated files of every kind, and bombs."""

from __future__ import annotations

import gzip
import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from PIL import Image

from tests.conftest import picture

KINDS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 70},
    "PNG": {},
    "GIF": {"save_all": True},
    "WEBP": {"quality": 70},
}


def mutated(count: int, seed: int = 0) -> Iterator[bytes]:
    """Files of the kinds in turn, of which some bytes were changed, moved, cut or put in."""
    draw = random.Random(seed)
    wholes = [(kind, whole) for kind in KINDS for whole in _wholes(kind)]
    for number in range(count):
        kind = list(KINDS)[number % len(KINDS)]
        content = bytearray(draw.choice([whole for name, whole in wholes if name == kind]))
        for _ in range(draw.randint(1, 8)):
            # The head, where the structure is, takes half of the hits.
            end = len(content) if draw.random() < 0.5 else min(200, len(content))
            _hit(content, draw.randrange(end), draw)
        yield bytes(content)


def _hit(content: bytearray, place: int, draw: random.Random) -> None:
    match draw.randrange(6):
        case 0 | 1:
            content[place] = draw.randrange(256)
        case 2:
            content[place] ^= 1 << draw.randrange(8)
        case 3:  # a length or a size, most likely
            content[place : place + 4] = draw.choice([b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff"])
        case 4:
            content[place:place] = content[place : place + draw.randrange(1, 64)]
        case 5:
            del content[place : place + draw.randrange(1, 64)]
    if not content:
        content += b"\0"


def _wholes(kind: str) -> list[bytes]:
    """Sound files: colour, grey or palette, transparent, turned, progressive, animated."""
    exif = Image.Exif()
    exif[0x0112] = 6
    images = [picture(1, 64), picture(2, 64).convert("L"), picture(3, 64).quantize(16)]
    options, another = KINDS[kind], picture(5, 64)
    further: list[dict[str, Any]]
    if kind == "JPEG":
        images = [image.convert("RGB") for image in images]
        further = [{"exif": exif}, {"progressive": True}]
    elif kind == "PNG":
        images.append(picture(4, 64).convert("RGBA"))
        further = [{"exif": exif}, {"save_all": True, "append_images": [another]}]
    elif kind == "GIF":
        images = [image.quantize(16) for image in images]
        further = [{"append_images": [another.quantize(16)]}, {"transparency": 3}]
    else:
        images = [image.convert("RGB") for image in images]
        further = [{"exif": exif}, {"save_all": True, "append_images": [another]}]
    return [
        encoded(image, kind, {**options, **extra}) for image in images for extra in ({}, *further)
    ]


def encoded(image: Image.Image, kind: str, options: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def png(
    width: int, height: int, data: bytes, *extra: bytes, depth: int = 8, colour: int = 2
) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = (png_chunk(b"IHDR", head), *extra, png_chunk(b"IDAT", data), png_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def with_size(content: bytes, marker: bytes, offset: int, size: bytes) -> bytes:
    """A file whose header claims another size."""
    place = content.index(marker) + offset
    return content[:place] + size + content[place + len(size) :]


def bombs() -> dict[str, Callable[[], bytes]]:
    """Small files that claim or unpack to far more than they are, and what is no image at all."""
    small = {
        kind: encoded(picture(1).quantize(8).convert("RGB"), kind, {}) for kind in ("JPEG", "WEBP")
    }
    gif = encoded(picture(1).quantize(8), "GIF", {})
    bmp = encoded(picture(1), "BMP", {})
    zeros = zlib.compress(bytes(100_000_000), 9)
    flat = encoded(Image.new("RGB", (2000, 2000)), "JPEG", {"progressive": True})
    scan = flat[flat.rindex(b"\xff\xda") : -2]
    return {
        "PNG of 2^31 by 2^31": lambda: png(2**31 - 1, 2**31 - 1, zeros),
        "PNG of 60,000 by 60,000": lambda: png(60_000, 60_000, zeros),
        "PNG of 60,000 by 60,000 in one bit": lambda: png(60_000, 60_000, zeros, depth=1, colour=0),
        "PNG of one line of 2^31": lambda: png(2**31 - 1, 1, zeros),
        "PNG just above the limit": lambda: png(8_001, 8_000, zeros),
        "PNG with 100 MB of text": lambda: png(9, 9, b"", png_chunk(b"zTXt", b"a\0\0" + zeros)),
        "PNG with 100 MB of colours": lambda: png(9, 9, b"", png_chunk(b"iCCP", b"a\0\0" + zeros)),
        "JPEG of 65,500 by 65,500": lambda: with_size(
            small["JPEG"], b"\xff\xc0", 5, struct.pack(">HH", 65_500, 65_500)
        ),
        "JPEG of 5,000 scans": lambda: flat[:-2] + 5_000 * scan + flat[-2:],
        "GIF of 65,535 by 65,535": lambda: with_size(gif, b"GIF8", 6, b"\xff" * 4),
        "WEBP of 16,384 by 16,384": lambda: with_size(
            small["WEBP"], b"\x9d\x01\x2a", 3, struct.pack("<HH", 16_383, 16_383)
        ),
        "BMP of 30,000 by 30,000": lambda: with_size(
            bmp, b"BM", 18, struct.pack("<ii", 30_000, -30_000)
        ),
        "BMP of 2^31 by 2^31": lambda: with_size(bmp, b"BM", 18, b"\xff\xff\xff\x7f" * 2),
        "PDF": lambda: b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog /OpenAction 2 0 R >>\nendobj\n",
        "SVG": lambda: (
            b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>"
        ),
        "EPS": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) run\n",
        "EPS behind a JPEG's first bytes": lambda: b"\xff\xd8\xff%!PS-Adobe-3.0 EPSF-3.0\n%%EOF\n",
        "TIFF": lambda: encoded(picture(1), "TIFF", {}),
        "ICO of large claims": lambda: b"\0\0\1\0\1\0\0\0\0\0\1\0 \0\xff\xff\xff\x7f\x16\0\0\0",
        "gzip of 100 MB": lambda: gzip.compress(bytes(100_000_000)),
    }
