"""Safe decoding of untrusted images and stored regions. An image that is absent or cannot be
decoded never stops a run: its status says why, and its post is read as text alone."""

from __future__ import annotations

import hashlib
import io
import re
import stat
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from rpbert.errors import InputError, reason_of
from rpbert.types import ImageStatus, Regions, StoredRegions

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image
    from torch import Tensor

    Source: TypeAlias = Path | bytes | Image | None

# What social posts carry. Pillow reads some forty formats more; each is code to attack, and some
# of them (EPS) run other programs.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP")
_OTHERS = {
    "HEIC": re.compile(rb".{4}ftyp(?:hei|hev|mif1|msf1)", re.DOTALL),
    "AVIF": re.compile(rb".{4}ftypavi", re.DOTALL),
    "TIFF": re.compile(rb"II\*\0|MM\0\*"),
    "PDF": re.compile(rb"%PDF"),
    "HTML or XML": re.compile(rb"\s*<[!?a-zA-Z]"),
}
BYTE_LIMIT = 32 * 2**20
PIXEL_LIMIT = 64_000_000
# Pixels × scans of a JPEG: each scan, however few bytes it takes, costs a pass over all pixels.
SCAN_LIMIT = 4_000_000_000
REDUCING_GAP = 2.0  # shrink cheaply to no less than twice the wanted size, then resample properly

REGIONS = "regions.safetensors"
_AS_STORED = "<id>/features of shape (N, d) and <id>/boxes of shape (N, 4) as safetensors"

Resampling: TypeAlias = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
"""Pillow's filters, by name."""
Channels: TypeAlias = tuple[float, float, float]
Fit: TypeAlias = Callable[[int, int], tuple[int, int]]
"""The size that an image is shrunk to, from its width and height."""

MEAN: Channels = (0.485, 0.456, 0.406)  # of ImageNet, which every published ResNet was trained with
STD: Channels = (0.229, 0.224, 0.225)
# EXIF orientation (tag 0x0112) → the transposition that turns the image upright.
_TURNS = {
    **{2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE"},
    **{6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90"},
}


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a network was trained to see images."""

    size: int = 224  # side of the square in pixels
    mean: Channels = MEAN  # of red, green and blue, each in [0, 1]; it is subtracted
    std: Channels = STD  # what the rest is divided by
    resampling: Resampling = "bicubic"  # the filter that shrinks an image to the square


@dataclass(frozen=True, slots=True, eq=False)
class LoadedImage:
    """An image as far as it could be loaded."""

    status: ImageStatus
    pixels: NDArray[np.uint8] | None = None  # RGB (height, width, 3); None unless "used"
    reason: str = ""  # why the image is missing or unreadable, in one line


def load_image(source: Source, size: int = 224, resampling: Resampling = "bicubic") -> LoadedImage:
    """Decodes an image to RGB of `size` × `size`.
    The whole image is squeezed to the square (the paper: "reshaped"), upright by its EXIF
    orientation, over white where it is transparent; of an animation the first frame. A PIL image
    is trusted in its format and taken at its current frame. Bad image data never raises."""
    return _load(source, lambda width, height: (size, size), resampling)


def load_small(source: Source, side: int) -> LoadedImage:
    """Decodes an image as `load_image` does, but in its own proportions and at most `side` long."""

    def within(width: int, height: int) -> tuple[int, int]:
        scale = min(1.0, side / max(width, height))
        return max(1, round(width * scale)), max(1, round(height * scale))

    return _load(source, within, "bicubic")


def jpeg(source: Source, side: int) -> bytes | None:
    """An image as JPEG, at most `side` long and without what else its file holds; None where it
    cannot be read."""
    from PIL import Image as pil

    pixels, content = load_small(source, side).pixels, io.BytesIO()
    if pixels is None:
        return None
    pil.fromarray(pixels).save(content, "JPEG", quality=90)
    return content.getvalue()


def claim(content: bytes) -> tuple[int, int, int] | None:
    """Width, height and scans (passes over all pixels) by an image's header, None if it is none."""

    try:
        with _opened_image(content) as image:
            return *image.size, _scans(image, content)
    except Exception:  # as in `_load`, which puts it in words
        return None


def normalise_batch(
    pixels: Sequence[NDArray[np.uint8]], preprocessing: Preprocessing = Preprocessing()
) -> Tensor:
    """Images (size, size, 3) as float32, channels last in memory. Shape: (I, 3, size, size)."""
    import torch

    if not pixels:
        return torch.zeros(0, 3, preprocessing.size, preprocessing.size)
    values = torch.from_numpy(np.stack(pixels)).to(torch.float32)  # (I, height, width, 3)
    std = torch.tensor(preprocessing.std)
    values.mul_(1 / (255 * std)).sub_(torch.tensor(preprocessing.mean) / std)
    return values.permute(0, 3, 1, 2)


def fingerprint(source: Source) -> str | None:
    """An identity: path, time and size of a file; that of a PIL image holds only while it lives."""
    if source is None:
        return None
    if isinstance(source, bytes):
        return f"sha256:{hashlib.sha256(source).hexdigest()}"
    if not isinstance(source, Path):
        return f"object:{id(source)}"
    try:
        status = source.stat()
    except (OSError, ValueError):  # `load_image` says why
        return f"path:{source.absolute()}"
    return f"path:{source.absolute()}:{status.st_mtime_ns}:{status.st_size}"


def _load(source: Source, fit: Fit, resampling: Resampling) -> LoadedImage:
    from PIL import Image as pil
    from PIL import UnidentifiedImageError

    if source is None:
        return LoadedImage("none")
    if not isinstance(source, Path | bytes | pil.Image):
        raise InputError("image", type(source).__name__, "a path, bytes, a PIL image or None")
    try:
        content = _read(source) if isinstance(source, Path) else source
        return LoadedImage("used", _decode(content, fit, resampling))
    except (FileNotFoundError, NotADirectoryError):
        return LoadedImage("missing", reason="no such file")
    except UnidentifiedImageError:  # its own text holds a memory address
        head = content if isinstance(content, bytes) else b""
        kind = next((name for name, sign in _OTHERS.items() if sign.match(head)), "")
        reason = f"not an image of {', '.join(FORMATS)}" + (f": {kind}" if kind else "")
        return LoadedImage("unreadable", reason=reason)
    except _Refused as error:
        return LoadedImage("unreadable", reason=str(error))
    except Exception as error:
        if isinstance(source, Path) and "\0" in str(source):
            return LoadedImage("missing", reason="not a file name")
        # Decoders raise anything on damaged bytes: SyntaxError, struct.error, IndexError, …
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        return LoadedImage("unreadable", reason=" ".join(reason.split()))


class _Refused(Exception):
    """Why an image is not decoded."""


def _read(path: Path) -> bytes:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # opening a named pipe would wait for a writer
        raise _Refused("not a regular file")
    _check_bytes(status.st_size)
    with path.open("rb") as file:
        return file.read(BYTE_LIMIT + 1)


def _check_bytes(count: int) -> None:
    if count > BYTE_LIMIT:
        raise _Refused(f"{count} bytes, more than {BYTE_LIMIT}")


def _decode(source: bytes | Image, fit: Fit, resampling: Resampling) -> NDArray[np.uint8]:
    """Pixels of shape (height, width, 3); raises whatever the decoder raises."""

    if not isinstance(source, bytes):
        _check_pixels(source)
        return _shrunk(source, fit(*source.size), None, resampling)
    if not source:
        raise _Refused("empty file")
    _check_bytes(len(source))
    try:
        return _decode_bytes(source, fit, resampling)
    except OSError:
        if not source.startswith(b"\xff\xd8"):
            raise
        # A JPEG that lacks only its end does not depend on what is in the place of it.
        ends = (b"\xff\xd9", b"\x5a" * 64 + b"\xff\xd9")
        whole, other = (
            _decode_bytes(source.rstrip(b"\xff") + end, fit, resampling) for end in ends
        )
        if not np.array_equal(whole, other):
            raise
        return whole


def _decode_bytes(source: bytes, fit: Fit, resampling: Resampling) -> NDArray[np.uint8]:
    with _opened_image(source) as image:
        _check_pixels(image)
        scans = _scans(image, source)
        if scans * image.width * image.height > SCAN_LIMIT:
            raise _Refused(f"{scans} scans of {image.width} × {image.height} pixels")
        # A JPEG can leave out the detail that shrinking would discard, and decodes the faster.
        size = fit(*image.size)
        drafted = image.draft(None, (int(REDUCING_GAP * size[0]), int(REDUCING_GAP * size[1])))
        return _shrunk(image, size, drafted[1] if drafted else None, resampling)


def _opened_image(content: bytes) -> Image:
    from PIL import Image as pil

    # It warns of sizes that `_check_pixels` refuses; threads cannot silence a block alone.
    warnings.filterwarnings("ignore", category=pil.DecompressionBombWarning)
    return pil.open(io.BytesIO(content), formats=FORMATS)


def _check_pixels(image: Image) -> None:
    """Refuses by the size in the header; Pillow's own limit is higher, and others may lift it."""
    width, height = image.size
    if not width or not height:
        raise _Refused(f"{width} × {height} pixels")
    if width * height > PIXEL_LIMIT:
        raise _Refused(f"{width} × {height} pixels, more than {PIXEL_LIMIT}")


def _scans(image: Image, content: bytes) -> int:
    return content.count(b"\xff\xda") if image.format in ("JPEG", "MPO") else 1


def _shrunk(
    image: Image, size: tuple[int, int], box: Any, resampling: Resampling
) -> NDArray[np.uint8]:
    """Shrinks to `size`, which is of the image as it is stored, then turns it upright."""
    from PIL import Image as pil
    from PIL.ExifTags import Base

    try:
        orientation = image.getexif().get(Base.Orientation, 1)
    except SyntaxError:  # Pillow's word for a damaged EXIF block; the picture itself may be sound
        orientation = 1
    if image.mode.startswith("I;16"):  # 16 bits of grey: keep the upper 8, do not clip
        image = pil.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    mode = "RGBA" if image.has_transparency_data else "RGB"
    image = image if image.mode == mode else image.convert(mode)
    chosen = pil.Resampling[resampling.upper()]
    image = image.resize(size, chosen, box=box, reducing_gap=REDUCING_GAP)
    if mode == "RGBA":
        white = pil.new("RGBA", image.size, "white")
        image = pil.alpha_composite(white, image).convert("RGB")
    turn = _TURNS.get(orientation)
    return np.array(image.transpose(pil.Transpose[turn]) if turn else image)


def load_regions(stored: StoredRegions) -> Regions:
    """The regions that are stored for an image."""
    where, file = f"{stored.path}: {stored.id}", _opened(stored.path)
    try:
        features = file.get_tensor(f"{stored.id}/features").astype(np.float32)
        boxes = file.get_tensor(f"{stored.id}/boxes").astype(np.float32)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(where, reason_of(error), _AS_STORED) from error
    if features.ndim != 2 or boxes.shape != (len(features), 4):
        raise InputError(where, f"features {features.shape} and boxes {boxes.shape}", _AS_STORED)
    sound = np.isfinite(features).all() and (boxes >= 0).all() and (boxes <= 1).all()
    if not sound or (boxes[:, :2] > boxes[:, 2:]).any():
        expected = "finite features and boxes x0, y0, x1, y1 within 0 and 1"
        raise InputError(where, "numbers out of range", expected)
    return Regions(features, boxes)


def stored_ids(path: Path) -> frozenset[str]:
    """The ids of the images whose regions a file holds; empty without the file."""
    keys = _opened(path).keys() if path.is_file() else ()
    return frozenset(key.removesuffix("/features") for key in keys if key.endswith("/features"))


def _opened(path: Path) -> Any:
    """The open file of stored regions, once for each version of it."""
    try:
        status = path.stat()
        return _opened_once(path, status.st_mtime_ns, status.st_size)
    except Exception as error:  # safetensors has its own error
        raise InputError(path, reason_of(error), _AS_STORED) from error


@lru_cache(maxsize=8)
def _opened_once(path: Path, modified: int, size: int) -> Any:
    from safetensors import safe_open

    return safe_open(path, framework="numpy")
