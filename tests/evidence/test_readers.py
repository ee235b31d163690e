"""Evidence as files hold it: regions beside the data, captions, and what is refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from rpbert.data.images import (
    LoadedImage,
    Preprocessing,
    Resampling,
    load_image,
    load_regions,
    normalise_batch,
)
from rpbert.data.readers import open_data
from rpbert.errors import InputError
from rpbert.evidence.base import EvidenceReader, ImageReader
from rpbert.evidence.regions import RegionReader
from rpbert.evidence.texts import CaptionSettings, TextReader
from rpbert.types import Post, StoredRegions
from tests.conftest import made_posts, picture
from tests.data.files import folder_of, jsonl, read

POSTS = "IMGID:a\nAnna\tB-PER\n\nIMGID:b\nRome\tB-LOC\n\nIMGID:a\nAgain\tO\n\n"
FEATURES = np.arange(8, dtype=np.float32).reshape(2, 4)
BOXES = np.array([[0, 0, 1, 1], [0.25, 0.5, 0.5, 0.75]], dtype=np.float32)


def stored(folder: Path, **tensors: np.ndarray) -> Path:
    given = {"a/features": FEATURES, "a/boxes": BOXES}
    save_file({**given, **{k.replace("_", "/"): v for k, v in tensors.items()}},
              folder / "regions.safetensors")  # fmt: skip
    return folder


def test_regions_of_a_data_folder_are_read_when_a_batch_needs_them(tmp_path: Path) -> None:
    posts, _ = read(stored(folder_of(tmp_path, {"train.txt": POSTS})), "train")
    assert [post.images[0].regions is not None for post in posts] == [True, False, True]
    found, status = RegionReader(4).read(pickle.loads(pickle.dumps(posts)))
    assert status == ["used", "none", "used"]
    assert found.of_post.tolist() == [[0], [-1], [0]]
    assert found.boxes is not None
    assert torch.equal(found.values, torch.from_numpy(FEATURES)[None])
    assert torch.equal(found.boxes, torch.from_numpy(BOXES)[None])
    assert found.mask.tolist() == [[True, True]]
    rows = jsonl(tmp_path / "posts.jsonl", [{"id": "a", "text": "x"}])  # beside a file, too
    (post,) = open_data(rows).read("all")
    assert post.images[0].regions == StoredRegions(tmp_path / "regions.safetensors", "a")


def test_a_changed_file_is_read_anew_and_no_region_is_no_evidence(tmp_path: Path) -> None:
    path = stored(tmp_path) / "regions.safetensors"
    assert len(load_regions(StoredRegions(path, "a")).boxes) == 2
    half = FEATURES[:1].astype(np.float16)
    stored(tmp_path, a_features=half, a_boxes=BOXES[:1], b_features=half[:0], b_boxes=BOXES[:0])
    found = load_regions(StoredRegions(path, "a"))
    assert len(found.boxes) == 1
    assert found.features.dtype == np.float32
    post = Post.from_words("b", ("x",), regions=StoredRegions(path, "b"))
    assert RegionReader(4).read([post])[1] == ["none"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"a_boxes": BOXES[:1]}, r"features \(2, 4\) and boxes \(1, 4\)"),
        ({"a_boxes": BOXES[:, ::-1].copy()}, "out of range"),
        ({"a_features": np.full_like(FEATURES, np.nan)}, "out of range"),
    ],
)
def test_malformed_regions_are_named(
    tmp_path: Path, changes: dict[str, np.ndarray], words: str
) -> None:
    stored(tmp_path, **changes)
    with pytest.raises(InputError, match=rf"regions.safetensors: a: found .*{words}"):
        load_regions(StoredRegions(tmp_path / "regions.safetensors", "a"))


def test_a_file_of_something_else_and_another_width_are_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"train.txt": POSTS, "regions.safetensors": b"no tensors"})
    with pytest.raises(InputError, match=r"regions\.safetensors: found"):
        read(folder, "train")
    with pytest.raises(InputError, match=r"^made:0: found regions with 6 features; expected 4"):
        RegionReader(4).read(made_posts(1))


def test_captions_are_read_once_and_nothing_is_no_evidence() -> None:
    asked: list[str] = []

    def encode(caption: str) -> list[int]:
        asked.append(caption)
        return [ord(sign) for sign in caption if sign != "\u200d"]

    captions = ["abc", "", None, "abc", "\u200d", "d", "abcdef"]
    posts = [Post.from_words(str(i), ("x",), caption=c) for i, c in enumerate(captions)]
    reader = EvidenceReader([TextReader(encode, CaptionSettings(max_length=4))])
    (found,), status = reader.read(posts)
    assert asked == ["abc", "\u200d", "d", "abcdef"]
    assert status == ("used", "none", "none", "used", "none", "used", "used")
    assert found.of_post.flatten().tolist() == [0, -1, -1, 0, -1, 1, 2]
    assert found.values.tolist() == [[97, 98, 99, 0], [100, 0, 0, 0], [97, 98, 99, 100]]
    assert found.mask.sum(1).tolist() == [3, 1, 4]
    assert [reader.has(post) for post in posts] == [True, False, False, True, True, True, True]
    blind = EvidenceReader()  # of a text-only system
    assert blind.read(posts[:1]) == ((), ("none",))
    assert (blind.has(posts[0]), blind.split_by_source(posts[0])) == (False, posts[:1])


def test_images_are_decoded_once_and_no_more_are_kept_than_the_budget_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        picture(number).save(tmp_path / f"{number}.png")
    encoded = (tmp_path / "0.png").read_bytes()
    sources: list[Any] = [tmp_path / "1.png", None, encoded, tmp_path / "2.png", encoded, b"no"]
    sources += [tmp_path / "1.png", tmp_path / "gone.png", picture(5)]
    decoded: list[Any] = []

    def counted(source: Any, size: int, resampling: Resampling) -> LoadedImage:
        decoded.append(source)
        return load_image(source, size, resampling)

    monkeypatch.setattr("rpbert.evidence.base.load_image", counted)
    one = 32 * 32 * 3 + 1024
    reader = ImageReader(Preprocessing(32), budget=3 * one)
    posts = [Post.from_words("1", ("x",), image=source) for source in sources]
    for count in (6, 3):  # files are kept; both bytes and the PIL image are decoded anew
        decoded.clear()
        found, status = reader.read(posts)
        assert len(decoded) == count
        for source, row, state in zip(sources, found.of_post[:, 0], status, strict=True):
            alone = load_image(source, 32)
            assert (state, row < 0) == (alone.status, alone.pixels is None)
            if alone.pixels is not None:
                expected = normalise_batch([alone.pixels], Preprocessing(32))[0]
                assert torch.equal(found.values[row], expected)
    for number in (0, 3, 4):
        assert reader.read([posts[0].with_(image=tmp_path / f"{number}.png")])[1] == ["used"]
    assert (reader._held, len(reader._kept)) == (2 * one + 1024, 3)  # one is missing
