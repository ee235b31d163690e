"""Decoding untrusted images: every format, every trap, and Pillow's plain path as the oracle."""

from __future__ import annotations

import io
import os
import random
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from rpbert.data import images
from rpbert.data.images import (
    LoadedImage,
    Preprocessing,
    fingerprint,
    load_image,
    load_small,
    normalise_batch,
)
from rpbert.errors import InputError
from tests.hostile import LENGTHS, bombs, encoded, endless_jpeg, mutated, png


def picture(width: int = 96, height: int = 64) -> Image.Image:
    """Smooth, and different in every corner, so that a wrong turn shows."""
    y, x = np.mgrid[0:height, 0:width]
    planes = (255 * x / width, 255 * y / height, 255 * (x + 2 * y) / (width + 2 * height))
    return Image.fromarray(np.stack(planes, -1).astype(np.uint8))


def pixels_of(loaded: LoadedImage) -> NDArray[np.int64]:
    assert loaded.status == "used", loaded.reason
    assert loaded.pixels is not None
    assert loaded.pixels.dtype == np.uint8
    return loaded.pixels.astype(np.int64)


def plainly(image: Image.Image, size: int = 224) -> NDArray[np.int64]:
    """What Pillow makes of an RGB image without any short cut."""
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC)).astype(np.int64)


LARGE = [(4000, 2998), (899, 2001)]
STEREO = {"save_all": True, "append_images": [Image.new("RGB", (2000, 1500))], "quality": 95}


@pytest.mark.parametrize(
    ("image", "kind", "options", "tolerance"),
    [
        (picture(), "BMP", {}, 1),
        (picture().quantize(64), "GIF", {}, 1),
        (picture(), "WEBP", {"quality": 95, "exif": b"Exif\0\0no TIFF at all"}, 16),
        (picture(), "JPEG", {"quality": 98, "progressive": True}, 8),
        (picture(2000, 1500), "MPO", STEREO, 8),  # two pictures
        # Large ones are reduced on the way.
        *((picture(*size), kind, {}, 4) for size in LARGE for kind in ("PNG", "JPEG")),
    ],
)
def test_every_format_and_size_looks_like_the_picture(
    image: Image.Image, kind: str, options: dict[str, Any], tolerance: int
) -> None:
    content = encoded(image, kind, **options)
    with Image.open(io.BytesIO(content)) as whole:
        assert whole.format == kind
        plain = whole.convert("RGB") if image.size in LARGE else image.convert("RGB")
    got = pixels_of(load_image(content))
    assert got.shape == (224, 224, 3)
    assert np.abs(got - plainly(plain)).max() <= tolerance


RED, BLUE = (Image.new("RGB", (20, 20), colour) for colour in ("red", "blue"))


@pytest.mark.parametrize(
    ("content", "colour", "tolerance"),
    [
        (encoded(Image.new("LA", (8, 8), (100, 0)), "PNG"), (255,) * 3, 0),
        (encoded(Image.new("CMYK", (32, 32), (0, 255, 255, 0)), "JPEG"), (255, 0, 0), 9),
        (encoded(Image.fromarray(np.full((8, 8), 0x4D12, np.uint16)), "PNG"), (0x4D,) * 3, 0),
        (encoded(RED, "GIF", save_all=True, append_images=[BLUE]), (255, 0, 0), 4),
    ],
)
def test_every_kind_of_pixel_keeps_its_colour(
    content: bytes, colour: tuple[int, int, int], tolerance: int
) -> None:
    assert np.abs(pixels_of(load_image(content)) - colour).max() <= tolerance


def test_a_path_and_a_pil_image(tmp_path: Path) -> None:
    path, given = tmp_path / "a.png", picture()
    given.save(path)
    for source in (path, given):
        assert np.abs(pixels_of(load_image(source)) - plainly(picture())).max() <= 1
    assert (np.asarray(given) == np.asarray(picture())).all()  # the user's image is left alone


@pytest.mark.parametrize(("kind", "scale"), [("PNG", 1), ("JPEG", 20)])  # 20: read in draft mode
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind: str, orientation: int, scale: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(picture(96 * scale, 64 * scale), kind, exif=exif, quality=98)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    got = pixels_of(load_image(content))
    assert np.abs(got - plainly(upright)).mean() < 1.0
    small = pixels_of(load_small(content, 60))
    shape = (40, 60) if orientation < 5 else (60, 40)
    expected = np.asarray(upright.resize(shape[::-1], Image.Resampling.BICUBIC), dtype=np.int64)
    assert small.shape == (*shape, 3)
    assert np.abs(small - expected).mean() < 1.0


def test_a_small_image_is_never_enlarged_and_never_empty() -> None:
    for size, shape in [((30, 20), (20, 30, 3)), ((5000, 3), (1, 240, 3))]:
        small = load_small(picture(*size), 240).pixels
        assert small is not None
        assert small.shape == shape
    assert load_small(b"no picture", 240).status == "unreadable"
    assert load_small(None, 240).status == "none"


def test_what_is_transparent_lies_over_white() -> None:
    image = picture().convert("RGBA")
    alpha = np.zeros((64, 96), dtype=np.uint8)
    alpha[:, 32:64], alpha[:, 64:] = 128, 255
    image.putalpha(Image.fromarray(alpha))
    white = Image.new("RGBA", image.size, "white")
    expected = plainly(Image.alpha_composite(white, image).convert("RGB"))
    got = pixels_of(load_image(encoded(image, "PNG")))
    # Bicubic overshoot at the two edges is clipped at different moments.
    assert np.abs(got - expected)[:, :60].max() <= 1
    assert np.abs(got - expected).max() <= 16
    assert (got[:, :60] == 255).all()


def refused(loaded: LoadedImage, status: str = "unreadable") -> str:
    assert loaded.status == status
    assert loaded.pixels is None
    assert loaded.reason
    assert loaded.reason == " ".join(loaded.reason.split())
    return loaded.reason


def test_bombs_and_what_is_no_image_or_half_of_one() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (90, 90, 3), dtype=np.uint8)
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP"):
        content = encoded(Image.fromarray(noise), kind)
        refused(load_image(content[: len(content) // 2]))
    for bomb in bombs().values():
        refused(load_image(bomb()))


def test_a_bomb_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(image: Image.Image) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", explode)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # Pillow's own limit, which any may lift
    data = zlib.compress(bytes(1000))
    for image in (png(8_001, 8_000, data), Image.new("1", (8_001, 8_000))):
        assert "pixels" in refused(load_image(image))
    assert "decoded" in refused(load_image(png(10, 10, data)))  # the guard above does fire


def test_what_is_too_large_or_denied_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pixels_of(load_image(endless_jpeg(1))).shape == (224, 224, 3)
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(images.BYTE_LIMIT + 1)  # sparse
    picture().save(tmp_path / "secret.jpg")

    def deny(*_: object) -> None:  # the superuser, whom containers run tests as, may read anything
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", deny)
    assert refused(load_image(tmp_path / "secret.jpg")) == "Permission denied"
    assert "bytes" in refused(load_image(tmp_path / "huge.jpg"))
    assert "bytes" in refused(load_image(bytes(images.BYTE_LIMIT + 1)))


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "file.jpg").write_bytes(b"x")
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    for name in ("gone.jpg", "no/such/folder.jpg", "file.jpg/below.jpg", "dangling", "nul\0.jpg"):
        refused(load_image(tmp_path / name), "missing")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    for name in ("", "loop", "pipe", "long" * 1000, "/dev/null", "file.jpg"):
        refused(load_image(tmp_path / name))
    closed = picture()
    closed.close()
    refused(load_image(closed))
    with pytest.raises(InputError, match="str"):
        load_image("photo.jpg")  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow remarks on damaged EXIF blocks
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP"])
def test_mutated_files_never_raise(kind: str) -> None:
    turned, draw = Image.Exif(), random.Random(0)
    turned[0x0112] = 6
    image = picture().quantize(16) if kind == "GIF" else picture()
    frames: dict[str, Any] = {"save_all": True, "append_images": [picture()]}
    content = encoded(image, kind, exif=turned, **({} if kind == "JPEG" else frames))
    loaded = [load_image(mutated(content, draw, LENGTHS), size=32) for _ in range(250)]
    for one in loaded:
        assert (one.pixels is not None) == (one.status == "used") == (one.reason == "")
    assert {one.status for one in loaded} == {"used", "unreadable"}


def test_normalisation_by_the_formula() -> None:
    values = np.random.default_rng(0).integers(0, 256, (2, 7, 7, 3), dtype=np.uint8)
    got = normalise_batch(list(values))
    assert (got.shape, got.dtype) == ((2, 3, 7, 7), torch.float32)
    assert got.is_contiguous(memory_format=torch.channels_last)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])  # ImageNet
    expected = (values / 255 - mean) / std
    np.testing.assert_allclose(got.permute(0, 2, 3, 1).numpy(), expected, atol=1e-5)
    assert normalise_batch([], Preprocessing(6)).shape == (0, 3, 6, 6)


def test_fingerprints(tmp_path: Path) -> None:
    one, two = picture(), picture()
    pairs: list[tuple[Any, Any]] = [(one, two), (b"one", b"two"), (tmp_path / "a", tmp_path / "b")]
    for same, other in pairs:
        assert fingerprint(same) == fingerprint(same) != fingerprint(other)
    assert fingerprint(None) is None
    assert fingerprint(Path("nul\0")) is not None
    seen = set()  # a file is another one after each change
    for change in (picture(), picture(50, 50), picture(30, 30)):
        change.save(tmp_path / "a.png")
        seen.add(fingerprint(tmp_path / "a.png"))
    assert len(seen) == 3


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0, "quality": 99}])
@pytest.mark.parametrize("size", [(96, 64), (1999, 1501)])
def test_a_jpeg_that_lacks_only_its_end_mark_is_used(
    options: dict[str, Any], size: tuple[int, int]
) -> None:
    whole = encoded(picture(*size), "JPEG", **options)
    expected = pixels_of(load_image(whole))
    for content in (whole[:-2], whole[:-1], whole[:-2] + bytes(10)):
        assert (pixels_of(load_image(content)) == expected).all()
    for missing in (len(whole) // 8, len(whole) // 2):  # a part of the picture itself
        cut = load_image(whole[:-missing])
        assert (cut.status, cut.pixels) == ("unreadable", None)
        assert "OSError" in cut.reason
