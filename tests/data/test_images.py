"""Decoding untrusted images: every format, every trap, and Pillow's plain path as the oracle."""

from __future__ import annotations

import io
import os
import random
import struct
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

REAL = Path(__file__).parents[3] / "shared" / "data" / "real_pairs"


def picture(width: int = 96, height: int = 64) -> Image.Image:
    """Smooth, and different in every corner, so that a wrong turn shows."""
    y, x = np.mgrid[0:height, 0:width]
    planes = (255 * x / width, 255 * y / height, 255 * (x + 2 * y) / (width + 2 * height))
    return Image.fromarray(np.stack(planes, -1).astype(np.uint8))


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels_of(loaded: LoadedImage) -> NDArray[np.int64]:
    assert loaded.status == "used", loaded.reason
    assert loaded.pixels is not None
    assert loaded.pixels.dtype == np.uint8
    assert loaded.reason == ""
    return loaded.pixels.astype(np.int64)


def plainly(image: Image.Image, size: int = 224) -> NDArray[np.int64]:
    """What Pillow makes of an RGB image without any short cut."""
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC)).astype(np.int64)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    length, check = struct.pack(">I", len(content)), struct.pack(">I", zlib.crc32(kind + content))
    return length + kind + content + check


def png_claiming(width: int, height: int) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    content = png_chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + header + content + png_chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("PNG", {}, 1),
        ("BMP", {}, 1),
        ("WEBP", {"lossless": True}, 1),
        ("WEBP", {"quality": 95}, 16),
        ("JPEG", {"quality": 98}, 8),
        ("JPEG", {"quality": 98, "progressive": True}, 8),
    ],
)
def test_every_format_looks_like_the_picture(
    kind: str, options: dict[str, Any], tolerance: int
) -> None:
    got = pixels_of(load_image(encode(picture(), kind, **options)))
    assert got.shape == (224, 224, 3)
    assert np.abs(got - plainly(picture())).max() <= tolerance


def test_gif_keeps_its_palette_colours() -> None:
    palette = picture().quantize(64)
    got = pixels_of(load_image(encode(palette, "GIF")))
    assert np.abs(got - plainly(palette.convert("RGB"))).max() <= 1


def test_a_path_a_pil_image_and_bytes_agree(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    picture().save(path)
    expected = pixels_of(load_image(path.read_bytes()))
    assert (pixels_of(load_image(path)) == expected).all()
    given = picture()
    assert (pixels_of(load_image(given)) == expected).all()
    assert (np.asarray(given) == np.asarray(picture())).all()  # the user's image is left alone


def test_size_is_free() -> None:
    assert pixels_of(load_image(picture(), size=32)).shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("kind", "scale"),
    [("JPEG", 1), ("PNG", 1), ("WEBP", 1), ("JPEG", 20)],  # 20: large enough for draft mode
)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind: str, orientation: int, scale: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(picture(96 * scale, 64 * scale), kind, exif=exif, quality=98)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    got = pixels_of(load_image(content))
    assert np.abs(got - plainly(upright)).mean() < 1.0
    if orientation == 1:
        assert np.abs(got - plainly(picture())).mean() < 3.0
    else:
        assert np.abs(got - plainly(picture())).mean() > 20.0


@pytest.mark.parametrize(
    ("orientation", "shape"),
    [(1, (160, 240)), (3, (160, 240)), (6, (240, 160)), (8, (240, 160))],
)
@pytest.mark.parametrize("scale", [8, 20])
def test_a_small_image_keeps_its_proportions_upright(
    orientation: int, shape: tuple[int, int], scale: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(picture(96 * scale, 64 * scale), "JPEG", exif=exif, quality=98)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    small = load_small(content, 240).pixels
    assert small is not None
    assert small.shape == (*shape, 3)
    expected = np.asarray(upright.resize(shape[::-1], Image.Resampling.BICUBIC), dtype=np.int64)
    assert np.abs(small - expected).mean() < 1.0


def test_a_small_image_is_never_enlarged_and_never_empty() -> None:
    for size, shape in [((30, 20), (20, 30, 3)), ((5000, 3), (1, 240, 3))]:
        small = load_small(picture(*size), 240).pixels
        assert small is not None
        assert small.shape == shape
    assert load_small(b"no picture", 240).status == "unreadable"
    assert load_small(None, 240).status == "none"


@pytest.mark.parametrize("size", [(4000, 2998), (1203, 907), (899, 2001), (448, 448)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_the_fast_path_of_large_images_looks_like_the_slow_one(
    size: tuple[int, int], kind: str
) -> None:
    content = encode(picture(*size), kind)
    slow = Image.open(io.BytesIO(content)).convert("RGB")
    assert np.abs(pixels_of(load_image(content)) - plainly(slow)).max() <= 4


def test_alpha_lies_over_white() -> None:
    image = picture().convert("RGBA")
    alpha = np.zeros((64, 96), dtype=np.uint8)
    alpha[:, 32:64], alpha[:, 64:] = 128, 255
    image.putalpha(Image.fromarray(alpha))
    white = Image.new("RGBA", image.size, "white")
    expected = plainly(Image.alpha_composite(white, image).convert("RGB"))
    got = pixels_of(load_image(encode(image, "PNG")))
    # Bicubic overshoot at the two edges is clipped at different moments.
    assert np.abs(got - expected)[:, :60].max() <= 1
    assert np.abs(got - expected).max() <= 16
    assert (got[:, :60] == 255).all()


def test_a_transparent_palette_colour_is_white() -> None:
    palette = Image.new("P", (10, 10), 0)
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.paste(1, (0, 0, 10, 5))
    for kind in ("GIF", "PNG"):
        got = pixels_of(load_image(encode(palette, kind, transparency=0), size=10))
        assert (got[0, 0] == (200, 100, 50)).all()
        assert (got[9, 0] == 255).all()


def test_grey_with_alpha_and_one_bit_images() -> None:
    grey = pixels_of(load_image(encode(Image.new("LA", (8, 8), (100, 0)), "PNG")))
    assert (grey == 255).all()
    assert (pixels_of(load_image(encode(Image.new("1", (8, 8), 1), "PNG"))) == 255).all()
    assert (pixels_of(load_image(encode(Image.new("L", (8, 8), 77), "JPEG"))) == 77).all()


def test_cmyk_jpeg() -> None:
    content = encode(Image.new("CMYK", (32, 32), (0, 255, 255, 0)), "JPEG", quality=100)
    got = pixels_of(load_image(content))  # no cyan, all magenta and yellow: red
    assert (got[..., 0] > 245).all()
    assert (got[..., 1:] < 10).all()


def test_sixteen_bits_of_grey_keep_their_brightness() -> None:
    content = encode(Image.fromarray(np.full((8, 8), 0x4D12, dtype=np.uint16)), "PNG")
    assert (pixels_of(load_image(content)) == 0x4D).all()


def test_sixteen_bits_of_colour() -> None:
    rows = b"".join(b"\0" + struct.pack(">HHH", 0xFF00, 0x8000, 0x0100) * 4 for _ in range(4))
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0))
    content = png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    got = pixels_of(load_image(b"\x89PNG\r\n\x1a\n" + header + content))
    assert (got == (0xFF, 0x80, 0x01)).all()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation(kind: str) -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue", "lime")]
    content = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    got = pixels_of(load_image(content))
    assert (got[..., 0] > 250).all()
    assert (got[..., 1:] < 5).all()


def test_a_stereo_photo_is_its_first_picture() -> None:
    second = Image.new("RGB", (2000, 1500))
    content = encode(picture(2000, 1500), "MPO", save_all=True, append_images=[second], quality=95)
    assert Image.open(io.BytesIO(content)).format == "MPO"
    assert np.abs(pixels_of(load_image(content)) - plainly(picture(2000, 1500))).max() <= 8


def test_no_image() -> None:
    loaded = load_image(None)
    assert (loaded.status, loaded.pixels, loaded.reason) == ("none", None, "")


def refused(loaded: LoadedImage, status: str = "unreadable") -> str:
    assert loaded.status == status
    assert loaded.pixels is None
    assert loaded.reason
    assert loaded.reason == " ".join(loaded.reason.split())
    return loaded.reason


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_truncated(kind: str, part: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (90, 90, 3), dtype=np.uint8)
    content = encode(Image.fromarray(noise), kind)
    refused(load_image(content[: int(part * len(content))]))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        b"not an image",
        b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\nendobj\n",
        b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>',
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
        b"\xff\xd8\xff",
        bytes(range(256)) * 8,
    ],
    ids=["empty", "nul", "text", "pdf", "svg", "eps", "jpeg-start", "bytes"],
)
def test_what_is_no_image(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "renamed.jpg"
    path.write_bytes(content)
    assert refused(load_image(path)) == refused(load_image(content))


def test_a_format_off_the_list_is_refused_though_pillow_reads_it() -> None:
    content = encode(picture(), "TIFF")
    assert Image.open(io.BytesIO(content)).format == "TIFF"
    assert "JPEG" in refused(load_image(content))


@pytest.mark.parametrize("pillows_own_limit", [None, 89_478_485])
@pytest.mark.parametrize("size", [(60_000, 60_000), (8_001, 8_000)])
def test_a_bomb_is_refused_before_it_is_decoded(
    size: tuple[int, int], pillows_own_limit: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(image: Image.Image) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", explode)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillows_own_limit)
    reason = refused(load_image(png_claiming(*size)))
    assert "decoded" not in reason
    assert "pixels" in reason
    # The guard above does fire when decoding starts.
    assert "decoded" in refused(load_image(png_claiming(10, 10)))


def test_a_large_pil_image_is_refused() -> None:
    assert "pixels" in refused(load_image(Image.new("1", (8_001, 8_000))))


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    content = encode(picture(1000, 1000), "JPEG", progressive=True)
    last = content[content.rindex(b"\xff\xda") : -2]
    assert pixels_of(load_image(content[:-2] + last + content[-2:])).shape == (224, 224, 3)
    flat = encode(Image.new("RGB", (2000, 2000)), "JPEG", progressive=True)
    last = flat[flat.rindex(b"\xff\xda") : -2]
    assert "scans" in refused(load_image(flat[:-2] + 1000 * last + flat[-2:]))


def test_too_many_bytes_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "huge.jpg"
    with path.open("wb") as file:
        file.truncate(images.BYTE_LIMIT + 1)  # sparse

    def explode(*_: object) -> None:
        raise AssertionError("opened")

    monkeypatch.setattr(Path, "open", explode)
    assert "bytes" in refused(load_image(path))
    assert "bytes" in refused(load_image(bytes(images.BYTE_LIMIT + 1)))


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    for name in ("gone.jpg", "no/such/folder.jpg", "file/below.jpg", "dangling", "nul\0.jpg"):
        refused(load_image(tmp_path / name), "missing")


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    refused(load_image(tmp_path))
    refused(load_image(tmp_path / "loop"))
    refused(load_image(tmp_path / "pipe"))
    refused(load_image(tmp_path / ("long" * 1000)))
    refused(load_image(Path("/dev/null")))


def test_a_file_one_may_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.jpg"
    picture().save(path)

    def deny(*_: object) -> None:  # the superuser, whom containers run tests as, may read anything
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", deny)
    assert refused(load_image(path)) == "Permission denied"


def test_a_closed_pil_image(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    image = Image.open(tmp_path / "a.png")
    image.close()
    refused(load_image(image))


def test_another_type_is_an_error_of_the_caller() -> None:
    with pytest.raises(InputError, match="a path, bytes, a PIL image or None"):
        load_image("photo.jpg")  # type: ignore[arg-type]


def test_damaged_exif_does_not_cost_the_picture() -> None:
    content = encode(picture(), "JPEG", quality=98, exif=b"Exif\0\0no TIFF at all")
    assert np.abs(pixels_of(load_image(content)) - plainly(picture())).max() <= 8


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow remarks on damaged EXIF blocks
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP"])
def test_mutated_files_never_raise(kind: str) -> None:
    source = random.Random(kind)
    exif = Image.Exif()
    exif[0x0112] = 6
    image = picture() if kind != "GIF" else picture().quantize(16)
    options = {"exif": exif} if kind in ("JPEG", "PNG", "WEBP") else {}
    whole = encode(image, kind, **options)
    statuses = set()
    for _ in range(200):
        mutated = bytearray(whole)
        for _ in range(source.randint(1, 8)):
            # The head, where the structure is, takes half of the hits.
            end = len(mutated) if source.random() < 0.5 else min(300, len(mutated))
            mutated[source.randrange(end)] = source.randrange(256)
        if source.random() < 0.2:
            del mutated[source.randrange(len(mutated)) :]
        loaded = load_image(bytes(mutated), size=32)
        assert (loaded.pixels is not None) == (loaded.status == "used")
        assert loaded.status == "used" or loaded.reason
        statuses.add(loaded.status)
    assert statuses <= {"used", "unreadable"}
    assert "unreadable" in statuses


@pytest.mark.skipif(not REAL.is_dir(), reason="the real posts are not beside this checkout")
def test_real_photos_decode() -> None:
    photos = sorted(REAL.glob("*/images/*.jpg"))
    assert len(photos) == 30
    for photo in photos:
        plain = ImageOps.exif_transpose(Image.open(photo)).convert("RGB")
        assert np.abs(pixels_of(load_image(photo)) - plainly(plain)).mean() < 2.0


def test_normalisation_by_the_formula() -> None:
    values = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    got = normalise_batch([values])[0]
    assert got.shape == (3, 5, 7)
    assert got.dtype == torch.float32
    for channel, (mean, deviation) in enumerate(
        [(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]  # ImageNet
    ):
        expected = (values[:, :, channel].astype(np.float64) / 255 - mean) / deviation
        np.testing.assert_allclose(got[channel].numpy(), expected, atol=1e-5)


def test_a_batch_is_its_images() -> None:
    several = [
        np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8) for seed in range(3)
    ]
    batch = normalise_batch(several)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch, torch.stack([normalise_batch([one])[0] for one in several]))
    assert normalise_batch([], Preprocessing(6)).shape == (0, 3, 6, 6)


def test_fingerprints(tmp_path: Path) -> None:
    path, other = tmp_path / "a.png", tmp_path / "b.png"
    picture().save(path)
    picture().save(other)
    assert fingerprint(None) is None
    assert fingerprint(path) == fingerprint(Path(str(path)))
    assert fingerprint(path) != fingerprint(other)
    assert fingerprint(b"one") == fingerprint(bytes(bytearray(b"one")))
    assert fingerprint(b"one") != fingerprint(b"two")
    one, two = picture(), picture()
    assert fingerprint(one) == fingerprint(one)
    assert fingerprint(one) != fingerprint(two)
    assert fingerprint(tmp_path / "gone") == fingerprint(tmp_path / "gone")
    assert fingerprint(Path("nul\0")) is not None


def test_a_file_replaced_under_its_name_is_another_image(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    picture().save(path)
    before = fingerprint(path)
    picture(50, 50).save(path)
    assert fingerprint(path) != before


def test_a_relative_path_depends_on_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        seen.add(fingerprint(Path("a.png")))
    assert len(seen) == 2
