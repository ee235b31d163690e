"""Safe decoding of untrusted images, and what becomes of a missing one.

An image that is absent or cannot be decoded never stops a run and is never replaced by another
picture: its status says what happened, and its post goes on without any visual token. That is
the neutral input of every system here: the text alone, exactly as for a post without image.
"""

from __future__ import annotations

import hashlib
import io
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np

from rpbert.errors import InputError, reason_of
from rpbert.types import ImageStatus, Regions, StoredRegions

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image, Transpose
    from torch import Tensor

# What social posts carry. Pillow reads some forty formats more; each is code to attack, and some
# of them (EPS) run other programs.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP")
BYTE_LIMIT = 32 * 2**20
PIXEL_LIMIT = 64_000_000
# Pixels × scans of a JPEG. Each scan of a progressive one costs a pass over the whole image,
# however few bytes it takes: ten are usual, and tens of thousands would hold a processor for long.
SCAN_LIMIT = 4_000_000_000

REGIONS = "regions.safetensors"
"""``<id>/features``, shape (N, d_v), and ``<id>/boxes``, shape (N, 4), of each image id."""
_EXPECTED_REGIONS = "<id>/features of shape (N, d) and <id>/boxes of shape (N, 4) as safetensors"

# Shrink cheaply to no less than twice the wanted size, then resample properly.
REDUCING_GAP = 2.0

Resampling: TypeAlias = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
"""Pillow's filters, by name."""
Channels: TypeAlias = tuple[float, float, float]

MEAN: Channels = (0.485, 0.456, 0.406)  # of ImageNet, which every published ResNet was trained with
DEVIATION: Channels = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a network was trained to see images.

    Attributes:
        size: side of the square in pixels.
        mean: of red, green and blue, each in [0, 1]; it is subtracted.
        deviation: what the rest is divided by.
        resampling: the filter that shrinks an image to the square.
    """

    size: int = 224
    mean: Channels = MEAN
    deviation: Channels = DEVIATION
    resampling: Resampling = "bicubic"


class Shrinking(NamedTuple):
    """What an image is shrunk to, from its width and height, and by which filter."""

    fit: Callable[[int, int], tuple[int, int]]
    resampling: Resampling = "bicubic"


@dataclass(frozen=True, slots=True, eq=False)
class LoadedImage:
    """What became of an image.

    Attributes:
        status: "used", "none" (the post has no image), "missing" (no such file) or "unreadable".
        pixels: RGB. Shape: (height, width, 3), uint8. None unless `status` is "used".
        reason: why the image is missing or unreadable, in one line; empty otherwise.
    """

    status: ImageStatus
    pixels: NDArray[np.uint8] | None = None
    reason: str = ""


def load_image(
    source: Path | bytes | Image | None, size: int = 224, resampling: Resampling = "bicubic"
) -> LoadedImage:
    """Decodes an image to RGB of `size` × `size`, whatever it is.

    The whole image is kept and squeezed to the square (the paper: "reshaped"), upright by its
    EXIF orientation, over white where it is transparent; of an animation the first frame. A PIL
    image is trusted in its format and taken at the frame it stands at.

    Raises:
        InputError: `source` is of another type. Bad image data never raises.
    """
    return _load(source, Shrinking(lambda width, height: (size, size), resampling))


def load_small(source: Path | bytes | Image | None, side: int) -> LoadedImage:
    """Decodes an image as `load_image` does, but in its own proportions and at most `side` long.

    Raises:
        InputError: `source` is of another type. Bad image data never raises.
    """

    def within(width: int, height: int) -> tuple[int, int]:
        scale = min(1.0, side / max(width, height))
        return max(1, round(width * scale)), max(1, round(height * scale))

    return _load(source, Shrinking(within))


def _load(source: Path | bytes | Image | None, how: Shrinking) -> LoadedImage:
    from PIL import Image as pil

    if source is None:
        return LoadedImage("none")
    if isinstance(source, Path):
        content = _read(source)
        return content if isinstance(content, LoadedImage) else _load_encoded(content, how)
    if isinstance(source, bytes):
        return _load_encoded(source, how)
    if isinstance(source, pil.Image):
        return _guarded(source, how)
    raise InputError("image", type(source).__name__, "a path, bytes, a PIL image or None")


class Claim(NamedTuple):
    """What an encoded image says of itself before it is decoded.

    Attributes:
        scans: how often all pixels are gone over; 1 but for a JPEG in steps.
    """

    width: int
    height: int
    scans: int


def claim(content: bytes) -> Claim | None:
    """The size of an encoded image by its header, None where it is none that is read."""
    from PIL import Image as pil

    try:
        with pil.open(io.BytesIO(content), formats=FORMATS) as image:
            return Claim(*image.size, _scans(image, content))
    except Exception:  # as in `_guarded`: a fact about the bytes, which `load_image` puts in words
        return None


def normalise(pixels: NDArray[np.uint8]) -> Tensor:
    """One image as a ResNet expects it. Shapes: (height, width, 3) → (3, height, width)."""
    return normalise_batch([pixels])[0]


def normalise_batch(
    pixels: Sequence[NDArray[np.uint8]], preprocessing: Preprocessing = Preprocessing()
) -> Tensor:
    """Images of one size as float32, by default with ImageNet's mean and deviation.

    The result lies in memory as the pixels do, channels last, which is also the order in which
    convolutions are fastest.

    Args:
        pixels: images of shape (size, size, 3); may be empty.
        preprocessing: mean and deviation, and the side of the empty result.

    Shape: (I, 3, size, size).
    """
    import torch

    if not pixels:
        return torch.zeros(0, 3, preprocessing.size, preprocessing.size)
    values = torch.from_numpy(np.stack(pixels)).to(torch.float32)  # (I, height, width, 3)
    deviation = torch.tensor(preprocessing.deviation)
    values.mul_(1 / (255 * deviation)).sub_(torch.tensor(preprocessing.mean) / deviation)
    return values.permute(0, 3, 1, 2)


def fingerprint(source: Path | bytes | Image | None) -> str | None:
    """A cheap identity: images of one fingerprint need to be decoded once.

    A file is known by its path, time and size, so that one replaced under its old name is another
    image, and one under two names counts as two. The fingerprint of a PIL image holds only while
    the image is alive and unchanged.
    """
    if source is None:
        return None
    if isinstance(source, Path):
        try:
            status = source.stat()
        except (OSError, ValueError):  # `load_image` says why
            return f"path:{source.absolute()}"
        return f"path:{source.absolute()}:{status.st_mtime_ns}:{status.st_size}"
    if isinstance(source, bytes):
        return f"sha256:{hashlib.sha256(source).hexdigest()}"
    return f"object:{id(source)}"


def _read(path: Path) -> bytes | LoadedImage:
    """The bytes of a file, or why there are none."""
    try:
        status = path.stat()
        # Opening a named pipe would wait for ever for a writer.
        if not stat.S_ISREG(status.st_mode):
            return LoadedImage("unreadable", reason="not a regular file")
        if status.st_size > BYTE_LIMIT:
            return LoadedImage("unreadable", reason=_too_large(status.st_size))
        with path.open("rb") as file:
            return file.read(BYTE_LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError):
        return LoadedImage("missing", reason="no such file")
    except ValueError:  # a NUL character, which no file name contains
        return LoadedImage("missing", reason="not a file name")
    except OSError as error:
        return LoadedImage("unreadable", reason=error.strerror or type(error).__name__)


def _load_encoded(content: bytes, how: Shrinking) -> LoadedImage:
    if not content:
        return LoadedImage("unreadable", reason="empty file")
    if len(content) > BYTE_LIMIT:
        return LoadedImage("unreadable", reason=_too_large(len(content)))
    return _guarded(content, how)


def _guarded(source: bytes | Image, how: Shrinking) -> LoadedImage:
    from PIL import UnidentifiedImageError

    try:
        pixels = _decode(source, how)
    except UnidentifiedImageError:  # its own text holds a memory address
        return LoadedImage("unreadable", reason=f"not an image of {', '.join(FORMATS)}")
    except Exception as error:
        # Decoders meet bytes that nobody foresaw and raise what they please: SyntaxError,
        # struct.error, IndexError, MemoryError. Whatever it is, it is a fact about this image and
        # not about the program, and it is kept as the reason.
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return LoadedImage("unreadable", reason=reason)
    return LoadedImage("used", pixels)


def _decode(source: bytes | Image, how: Shrinking) -> NDArray[np.uint8]:
    """Pixels of shape (height, width, 3); raises whatever the decoder raises."""
    from PIL import Image as pil

    if not isinstance(source, bytes):
        _check_pixels(source)
        return _shrunk(source, how.fit(*source.size), None, how.resampling)
    with pil.open(io.BytesIO(source), formats=FORMATS) as image:
        _check_pixels(image)
        scans = _scans(image, source)
        if scans * image.width * image.height > SCAN_LIMIT:
            raise ValueError(f"{scans} scans of {image.width} × {image.height} pixels")
        # A JPEG can leave out the detail that shrinking would discard, and decodes the faster.
        size = how.fit(*image.size)
        drafted = image.draft(None, (int(REDUCING_GAP * size[0]), int(REDUCING_GAP * size[1])))
        return _shrunk(image, size, drafted[1] if drafted else None, how.resampling)


def _scans(image: Image, content: bytes) -> int:
    return content.count(b"\xff\xda") if image.format in ("JPEG", "MPO") else 1


def _shrunk(
    image: Image,
    size: tuple[int, int],
    box: tuple[float, float, float, float] | None,
    resampling: Resampling,
) -> NDArray[np.uint8]:
    """Shrinks to `size`, which is of the image as it is stored, then turns it upright."""
    from PIL import Image as pil

    turn = _turn(image)
    image = _in_colour(image)
    chosen = pil.Resampling[resampling.upper()]
    image = image.resize(size, chosen, box=box, reducing_gap=REDUCING_GAP)
    if image.mode == "RGBA":
        white = pil.new("RGBA", image.size, "white")
        image = pil.alpha_composite(white, image).convert("RGB")
    if turn is not None:
        image = image.transpose(turn)
    return np.array(image)


def _in_colour(image: Image) -> Image:
    """The image as RGB, or as RGBA where parts may be transparent."""
    from PIL import Image as pil

    if image.mode.startswith("I;16"):  # 16 bits of grey: keep the upper 8, do not clip
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return pil.fromarray(grey).convert("RGB")
    mode = "RGBA" if image.has_transparency_data else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _turn(image: Image) -> Transpose | None:
    """The transposition that turns the image upright, by EXIF orientation (tag 0x0112)."""
    from PIL.ExifTags import Base
    from PIL.Image import Transpose

    try:
        orientation = image.getexif().get(Base.Orientation, 1)
    except SyntaxError:  # Pillow's word for a damaged EXIF block; the picture itself may be sound
        return None
    return {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }.get(orientation)


def _check_pixels(image: Image) -> None:
    """Refuses by the size in the header, before anything is decoded.

    Pillow has a limit of its own; it lies above this one, and others may have lifted it.
    """
    width, height = image.size
    if width * height > PIXEL_LIMIT:
        raise ValueError(f"{width} × {height} pixels, more than {PIXEL_LIMIT}")


def _too_large(length: int) -> str:
    return f"{length} bytes, more than {BYTE_LIMIT}"


def load_regions(stored: StoredRegions) -> Regions:
    """The regions that are stored for an image.

    Raises:
        InputError: they are not as the file's format has them.
    """
    where = f"{stored.path}: {stored.id}"
    file = _opened(stored.path, _version(stored.path))
    try:
        features = file.get_tensor(f"{stored.id}/features").astype(np.float32)
        boxes = file.get_tensor(f"{stored.id}/boxes").astype(np.float32)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(where, reason_of(error), _EXPECTED_REGIONS) from error
    if features.ndim != 2 or boxes.shape != (len(features), 4):
        found = f"features {features.shape} and boxes {boxes.shape}"
        raise InputError(where, found, _EXPECTED_REGIONS)
    sound = np.isfinite(features).all() and (boxes >= 0).all() and (boxes <= 1).all()
    if not sound or (boxes[:, :2] > boxes[:, 2:]).any():
        expected = "finite features and boxes x0, y0, x1, y1 within 0 and 1"
        raise InputError(where, "numbers out of range", expected)
    return Regions(features, boxes)


def stored_ids(path: Path) -> frozenset[str]:
    """The ids of the images whose regions a file holds; empty without the file.

    Raises:
        InputError: the file is no safetensors file.
    """
    if not path.is_file():
        return frozenset()
    keys = _opened(path, _version(path)).keys()
    return frozenset(key.removesuffix("/features") for key in keys if key.endswith("/features"))


@lru_cache(maxsize=8)
def _opened(path: Path, version: tuple[int, int]) -> Any:
    """The open file; a file that changed since has another version."""
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework="numpy")
    except (SafetensorError, OSError) as error:
        raise InputError(path, reason_of(error), _EXPECTED_REGIONS) from error


def _version(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(path, reason_of(error), _EXPECTED_REGIONS) from error
    return status.st_mtime_ns, status.st_size
