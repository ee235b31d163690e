"""Hostile files of every kind that is read, drawn by a seed: rows, settings, images, archives."""

from __future__ import annotations

import gzip
import io
import json
import random
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image

from tests.conftest import picture

LENGTHS = (b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff")
SYNTAX = (b"{", b'"', b"\xff", b"\n", b"null", b"../")
WORDS, TAGS = ["RT", "Ada", "Lovelace", "in", "Como"], ["O", "B-PER", "I-PER", "O", "B-LOC"]
GOOD: dict[str, Any] = {"text": " ".join(WORDS), "tokens": WORDS, "tags": TAGS, "caption": "a lake"}
ROWS = [{"id": str(i), **GOOD, "relation": i % 2, "image": f"{i}.jpg"} for i in range(12)]
"""Rows that nothing is wrong with."""
STRINGS = dict.fromkeys(("id", "text", "image", "caption"), pa.string())
LISTS = dict.fromkeys(("tokens", "tags"), pa.list_(pa.string()))
SCHEMA = pa.schema({**STRINGS, **LISTS, "relation": pa.float64()})
_OUTSIDE = ("../x", "a/../../x", "/etc/passwd", "..\\x", "C:\\x", "http://t.co/x", "a\0b")
BAD_VALUES: dict[str, list[tuple[Any, str]]] = {
    "id": [(None, "id None"), ("", "id ''"), (1.5, "id 1.5"), (True, "id True"), ([], "")],
    "text": [(5, "text 5"), ("something else", ""), (["RT"], "text ['RT']"), ({}, "text {}")],
    "tokens": [(5, "tokens 5"), ("RT", "'RT'"), (["RT", 1], ""), ([None], ""), ({}, ""),
               (["Como", "RT"], "token 2, 'RT'")],
    "tags": [(5, "tags 5"), (["O"], "1 tags for 5"), (["B-PER"] * 9, "9 tags"), ("O O", "'O O'"),
             (["PER"] * 5, "the tag 'PER'"), (["O", "B-PER", "I-PER", "O", None], "")],
    "relation": [(2, "2"), (-1, "-1"), ("1", "'1'"), (True, "True"), ([0, 2], "2"),
                 (10**400, "1000"), (float("nan"), "nan"), (float("inf"), "inf")],
    "image": [(5, "image 5"), ({}, "image {}"), ({"url": "x.jpg"}, "image {'url'"),
              ({"bytes": None}, "{'bytes'"), ({"bytes": "a", "path": None}, "image bytes 'a'"),
              (["a", 5], "image 5"), (["a", ["b"]], "image ['b']"), (["a"] * 17, "17 images"),
              *((path, "the image") for path in _OUTSIDE)],
    "caption": [(5, "caption 5"), ({}, "caption {}"), (True, "caption True")],
    "entities": [({}, "entities {}"), ([5], "entity 5"), ("PER", "'PER'"), ([{"start": 0}], ""),
                 ([{"start": 0, "end": 99, "label": "PER"}], "0 to 23")],
}  # fmt: skip
"""Values that no row may have, and what is named of them."""


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


@dataclass(frozen=True)
class Broken:
    """A file with one fault."""

    path: Path
    place: re.Pattern[str]  # that messages have to name
    touched: set[str] | None  # the posts of which nothing may be left; None: of the whole file


def conll(folder: Path, draw: random.Random) -> Broken:
    """A text file with one broken line."""
    lines, owner = [], []
    for row in ROWS:
        held = [f"IMGID:{row['id']}", *map("\t".join, zip(WORDS, TAGS, strict=True)), ""]
        lines += [line.encode() for line in held]
        owner += [row["id"]] * len(held)
    at = draw.choice([i for i, line in enumerate(lines) if line])
    line = lines[at]
    word = line.partition(b"\t")[0]
    header = line.startswith(b"IMGID")
    breaks = [
        line[: draw.randrange(1, len(word))] + bytes([draw.randrange(0x80, 0xC0)]) + line,
        bytes([0xFF, 0xFE]) + line,
        b"IMGID:" if header else word + b"\t" + draw.choice([b"", b"0", b"PER", b"b-per", b"B-"]),
        b"IMGID:../" + word if header else word + b"\tB-PER ",
        b"IMGID:a/b" if header else word + b"\tI-",
        word[:3] + b"?" if header else word,
        b"IMGID:\0" if header else word + b"  \tB-\xe2\x80\xa8X",
        b"<<<<<<< HEAD",
    ]
    lines[at] = draw.choice(breaks)
    (folder / "images").mkdir(parents=True)
    (folder / "train.txt").write_bytes(b"\n".join(lines) + b"\n")
    # Of a broken header the first word may be told, which is then outside any post.
    place = re.compile(re.escape(f"{folder / 'train.txt'}:") + f"({at + 1}|{at + 2})")
    return Broken(folder, place, {owner[at]})


def jsonl(folder: Path, draw: random.Random) -> Broken:
    """A file of JSON lines with one broken line."""
    lines = [json.dumps(row).encode() for row in ROWS]
    at = draw.randrange(len(lines))
    line, key = lines[at], draw.choice(sorted(BAD_VALUES))
    bad = {**ROWS[at], key: draw.choice(BAD_VALUES[key])[0]}
    cut = draw.randrange(1, len(line))
    breaks = [
        line[:cut], line[cut:], line[:cut] + b"\xff" + line[cut:], line + line, b"[" + line + b"]",
        draw.choice([b"null", b"{}", b"[" * 50_000]),
        draw.choice([b'"', b"{"]) * draw.randrange(1, 9),
        line.replace(b'"relation": ', b'"relation": 1e999' + b"9" * draw.randrange(3)),
    ]  # fmt: skip
    breaks += [json.dumps(bad).encode()] * len(breaks)
    lines[at] = draw.choice(breaks)
    folder.mkdir(parents=True)
    path = folder / "train.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    return Broken(path, re.compile(re.escape(f"{path}:{at + 1}:")), {str(at)})


def parquet(folder: Path, draw: random.Random) -> Broken:
    """A Parquet file with a bad value in one row, or mutated anywhere."""
    folder.mkdir(parents=True)
    path, at = folder / "train.parquet", draw.randrange(len(ROWS))
    key = draw.choice(["id", "text", "tokens", "tags", "relation", "image"])
    bad = draw.choice([value for value, _ in BAD_VALUES[key] if _fits(key, value)])
    mutate = draw.random() < 0.5
    given = [{**row, key: bad} if row["id"] == str(at) and not mutate else row for row in ROWS]
    pq.write_table(pa.Table.from_pylist(given, schema=SCHEMA), path)
    if not mutate:
        return Broken(path, re.compile(re.escape(f"{path}:{at + 1}:")), {str(at)})
    path.write_bytes(mutated(path.read_bytes(), draw, LENGTHS, 5))
    return Broken(path, re.compile(re.escape(str(path))), None)


def _fits(key: str, value: Any) -> bool:
    """Whether a value can be written to a column; there, a number may stand for true."""
    try:
        return value is not True and bool(pa.array([value], SCHEMA.field(key).type))
    except (pa.ArrowException, TypeError, ValueError):
        return False


SETTINGS = Path(__file__).parents[1] / "configs" / "twitter2017-rpbert-minilm.yaml"
ALIASES = [f"{c}: &{c} [{(f'*{b},') * 9}]" for b, c in zip("xabcdefg", "abcdefgh", strict=True)]


def settings(folder: Path, draw: random.Random) -> Broken:
    """A YAML file with a misspelt key, a value of the wrong kind, or broken signs."""
    lines = yaml.safe_dump(yaml.safe_load(SETTINGS.read_text()), sort_keys=False).splitlines()
    at = draw.randrange(len(lines))
    line = lines[at]
    key, _, value = line.partition(":")
    indent = line[: len(line) - len(line.lstrip())]
    wrong = draw.choice(["[]", "{}", "[1, {}]", "!!int x", "2001-99-99", "!!python/name:os.system"])
    breaks = [
        [key + draw.choice("xyz_") + ":" + value], [key + ": " + wrong], [line, line],
        [line, indent + " - x"], ["\t" + line], [line + draw.choice(["\0", "\x07", "\ufffe"])],
        [key + draw.choice([": &a [*a, *a]", ": *nowhere", ": " + "[" * 5_000])],
        [key + ": " + draw.choice(["[", "{", '"', "'", "}", "@", "`", "%", "a: b: c"])],
        ["x: &x [1,1,1,1,1,1,1,1,1]", *ALIASES], [indent + "- " + line.strip()],
        [line.replace(":", " ")], ["---", line],
    ]  # fmt: skip
    lines[at : at + 1] = draw.choice(breaks)
    content = "\n".join(lines).encode("utf-8", "surrogatepass")
    if draw.random() < 0.05:
        content = content[:40] + b"\xff" + content[40:]
    folder.mkdir(parents=True)
    path = folder / "run.yaml"
    path.write_bytes(content)
    # The line of what cannot be read, or the key of what cannot be meant.
    named = r"(:\d+: |.*(key|[\w.]+ = |[\w.]+ with |no mapping|system|nested|aliases))"
    return Broken(path, re.compile(re.escape(str(path)) + named), None)


def images(count: int, seed: int = 0) -> Iterator[bytes]:
    """Mutated JPEG, PNG, GIF and WEBP files in turn."""
    draw = random.Random(seed)
    whole = [_whole(kind) for kind in ("JPEG", "PNG", "GIF", "WEBP")]
    for number in range(count):
        yield mutated(draw.choice(whole[number % len(whole)]), draw, LENGTHS)


def _whole(kind: str) -> list[bytes]:
    """Sound files: colour, grey or palette, transparent, turned, progressive, animated."""
    exif = Image.Exif()
    exif[0x0112] = 6
    made = [picture(1, 64), picture(2, 64).convert("L"), picture(3, 64).quantize(16)]
    if kind != "PNG":
        made = [i.quantize(16) if kind == "GIF" else i.convert("RGB") for i in made]
    frames = {"save_all": True, "append_images": [made[0].copy()]}
    of_jpeg: list[dict[str, Any]] = [{}, {"exif": exif}, {"progressive": True}]
    of_gif: list[dict[str, Any]] = [{}, frames, {"transparency": 3}]
    extras = {"JPEG": of_jpeg, "GIF": of_gif}.get(kind, [{}, {"exif": exif}, frames])
    return [encoded(image, kind, **extra) for image in made for extra in extras]


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def png(
    width: int, height: int, data: bytes, *extra: bytes, depth: int = 8, kind: int = 2
) -> bytes:
    """A PNG whose header claims this size, with any compressed content."""
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    parts = (head, *extra, png_chunk(b"IDAT", data), png_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _claiming(kind: str, marker: bytes, offset: int, size: bytes) -> bytes:
    """A file whose header claims another size."""
    image = picture(1).quantize(8)
    content = encoded(image if kind == "GIF" else image.convert("RGB"), kind)
    place = content.index(marker) + offset
    return content[:place] + size + content[place + len(size) :]


def endless_jpeg(scans: int) -> bytes:
    """A small progressive JPEG with its last scan repeated."""
    flat = encoded(Image.new("RGB", (2000, 2000)), "JPEG", progressive=True)
    return flat[:-2] + scans * flat[flat.rindex(b"\xff\xda") : -2] + flat[-2:]


@cache
def _zeros() -> bytes:
    return zlib.compress(bytes(100_000_000), 9)


def bombs() -> dict[str, Callable[[], bytes]]:
    """Small files that claim or unpack to far more than they are, and what is no image at all."""
    zeros = _zeros()
    wide = struct.pack("<ii", 30_000, -30_000)
    return {
        "PNG of 2^31 by 2^31": lambda: png(2**31 - 1, 2**31 - 1, zeros),
        "PNG of 60,000 by 60,000": lambda: png(60_000, 60_000, zeros),
        "PNG of 60,000 by 60,000 in one bit": lambda: png(60_000, 60_000, zeros, depth=1, kind=0),
        "PNG of one line of 2^31": lambda: png(2**31 - 1, 1, zeros),
        "PNG just above the limit": lambda: png(8_001, 8_000, zeros),
        "PNG with 100 MB of text": lambda: png(9, 9, b"", png_chunk(b"zTXt", b"a\0\0" + zeros)),
        "PNG with 100 MB of colours": lambda: png(9, 9, b"", png_chunk(b"iCCP", b"a\0\0" + zeros)),
        "JPEG of 65,500 by 65,500": lambda: _claiming("JPEG", b"\xff\xc0", 5, b"\xff\xdc" * 2),
        "JPEG of 5,000 scans": lambda: endless_jpeg(5_000),
        "GIF of 65,535 by 65,535": lambda: _claiming("GIF", b"GIF8", 6, b"\xff" * 4),
        "WEBP of 16,384 by 16,384": lambda: _claiming("WEBP", b"\x9d\x01\x2a", 3, b"\xff\x3f" * 2),
        "BMP of 30,000 by 30,000": lambda: _claiming("BMP", b"BM", 18, wide),
        "BMP of 2^31 by 2^31": lambda: _claiming("BMP", b"BM", 18, b"\xff\xff\xff\x7f" * 2),
        "nothing": lambda: b"",
        "the beginning of a JPEG": lambda: b"\xff\xd8\xff",
        "every byte": lambda: bytes(range(256)) * 8,
        "PDF": lambda: b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog /OpenAction 2 0 R >>\nendobj\n",
        "SVG": lambda: b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///a'/></svg>",
        "EPS": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) run\n",
        "EPS behind a JPEG's first bytes": lambda: b"\xff\xd8\xff%!PS-Adobe-3.0 EPSF-3.0\n%%EOF\n",
        "TIFF": lambda: encoded(picture(1), "TIFF"),
        "ICO of large claims": lambda: b"\0\0\1\0\1\0\0\0\0\0\1\0 \0\xff\xff\xff\x7f\x16\0\0\0",
        "gzip of 100 MB": lambda: gzip.compress(bytes(100_000_000)),
    }
