"""The report on a data source, held to the published figures of the real sets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from rpbert.data.check import DataReport, SplitReport, check, render
from rpbert.data.reading import Quirk
from rpbert.errors import InputError

REAL = Path(__file__).parents[2].parent / "shared" / "data"

# Per split: posts, words, entities strict, entities conlleval, lone I-, blank line at the end.
PUBLISHED = {
    "twitter2015": {
        "train": (4000, 64439, 6166, 6352, 186, False),
        "dev": (1000, 16178, 1541, 1594, 53, False),
        "test": (3257, 52822, 5072, 5207, 135, False),
    },
    "twitter2017": {
        "train": (3373, 53007, 6049, 6049, 0, True),
        "dev": (723, 11309, 1324, 1324, 0, True),
        "test": (723, 11330, 1351, 1351, 0, True),
    },
}
LABELLED = {"twitter2015": (5727, 3122), "twitter2017": (4273, 2490)}
STYLE = {"twitter2015": "joined", "twitter2017": "apart"}


def real(name: str) -> Path:
    if not (REAL / name).is_dir():
        pytest.skip(f"needs the real data in ../shared/data/{name}")
    return REAL / name


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_figures_of_the_real_sets(name: str) -> None:
    report = check(real(name))
    found = report.to_dict()["splits"]
    assert {
        split: (
            d["posts"],
            d["words"],
            d["entities_strict"]["total"],
            d["entities_conlleval"]["total"],
            d["lone_inside"],
            d["blank_line_at_end"],
        )
        for split, d in found.items()
    } == PUBLISHED[name]
    for d in found.values():
        assert d["entities_strict"]["by_type"].keys() == {"PER", "LOC", "ORG", "MISC"}
        assert d["marks"] == STYLE[name]
    lone = sum(quirk.kind == "lone I- tag" for quirk in report.quirks)
    assert lone == sum(figures[4] for figures in PUBLISHED[name].values())
    labels = (
        sum(d["relations"] for d in found.values()),
        sum(d["relations_positive"] for d in found.values()),
    )
    assert labels == LABELLED[name]


@pytest.mark.parametrize("name", ["twitter2015", "twitter2017"])
def test_real_images_are_all_readable(name: str) -> None:
    found = check(real(f"real_pairs/{name}")).to_dict()["splits"]
    present = {"present": 5, "missing": 0, "unreadable": 0, "none": 0}
    assert {split: d["images"] for split, d in found.items()} == dict.fromkeys(
        ("train", "dev", "test"), present
    )


def test_published_relation_labels_without_tweets_are_still_reported() -> None:
    report = check(real("trc"))
    labels = [(split.posts, split.relations) for split in report.splits]
    # 4,471 rows less 28 rewritten ids and less the 2 rows that lost a label column.
    assert sum(count for _, count in labels) == 4441
    assert {posts for posts, _ in labels} == {0}
    assert any(quirk.kind == "no tweets" for quirk in report.quirks)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    from PIL import Image

    texts = {
        "train": "IMGID:a\nAnna\tB-PER\n\nIMGID:a\nx\tI-LOC\n\nIMGID:b\ny\tB-LOC\nz\tI-LOC\n\n",
        "test": "IMGID:c\n#x\tO\n\nIMGID:b\ny\tB-OTHER",
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
    (tmp_path / "captions.tsv").write_text("a\ta cat\nc\t\n", encoding="utf-8")
    regions = {"b/features": np.ones((2, 3), np.float32), "b/boxes": np.zeros((2, 4), np.float32)}
    save_file(regions, tmp_path / "regions.safetensors")
    (tmp_path / "relations.tsv").write_text("a\t0\nb\t1\n", encoding="utf-8")
    (tmp_path / "images").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "images" / "a.jpg")
    (tmp_path / "images" / "c.jpg").write_bytes(b"no image")
    return tmp_path


def test_everything_of_a_small_folder(small: Path) -> None:
    report = check(small)
    assert json.loads(json.dumps(report.to_dict()))["splits"] == {
        "train": {
            "posts": 3,
            "words": 4,
            "tagged": 3,
            "entities_strict": {"total": 2, "by_type": {"LOC": 1, "PER": 1}},
            "entities_conlleval": {"total": 3, "by_type": {"LOC": 2, "PER": 1}},
            "lone_inside": 1,
            "images": {"present": 2, "missing": 1, "unreadable": 0, "none": 0},
            "captions": 2,
            "regions": 1,
            "relations": 3,
            "relations_positive": 1,
            "duplicate_ids": 1,
            "blank_line_at_end": True,
            "marks": None,
        },
        "test": {
            "posts": 2,
            "words": 2,
            "tagged": 2,
            "entities_strict": {"total": 1, "by_type": {"MISC": 1}},
            "entities_conlleval": {"total": 1, "by_type": {"MISC": 1}},
            "lone_inside": 0,
            "images": {"present": 0, "missing": 1, "unreadable": 1, "none": 0},
            "captions": 0,
            "regions": 1,
            "relations": 1,
            "relations_positive": 1,
            "duplicate_ids": 0,
            "blank_line_at_end": False,
            "marks": "joined",
        },
    }
    assert sorted((q.file, q.line, q.kind) for q in report.quirks) == [
        ("captions.tsv", 2, "empty value"),
        ("test.txt", 1, "image unreadable"),
        ("test.txt", 4, "id in two splits"),
        ("test.txt", 4, "image missing"),
        ("test.txt", 5, "OTHER for MISC"),
        ("test.txt", 5, "no blank line at the end"),
        ("train.txt", 4, "id given twice"),
        ("train.txt", 5, "lone I- tag"),
        ("train.txt", 7, "image missing"),
    ]


def test_the_plain_text_shows_counts_and_lines() -> None:
    split = SplitReport("train", posts=1234)
    split.strict.update(["PER", "PER", "LOC"])
    quirks = tuple(Quirk("a.txt", line, "empty word", "") for line in (9, 3, 4, 5))
    lines = render(DataReport("folder", (split,), quirks)).splitlines()
    assert lines[0] == "folder"
    assert [line.split() for line in lines if line.startswith(("posts", "  PER", "blank"))] == [
        ["posts", "1,234"],
        ["PER", "2"],
        ["blank", "line", "at", "the", "end", "-"],
    ]
    assert lines[-2:] == ["empty word: 4", "  a.txt: 3-5, 9"]


@pytest.mark.parametrize(
    ("files", "note"),
    [
        ({"train.txt": "IMGID:a\nAnna\tB-PER\n\n"}, "there is no folder images/: "),
        ({"train.txt": "IMGID:a\nAnna\tB-PER\n\n", "images/b.jpg": ""}, None),
        ({"train.jsonl": '{"id": "1", "text": "x"}'}, "no row names an image: "),
        ({"train.jsonl": '{"id": "1", "text": "x", "image": "a.jpg"}'}, None),
    ],
)
def test_data_without_any_image_is_told(
    tmp_path: Path, files: dict[str, str], note: str | None
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    report = check(tmp_path)
    told = [line for line in render(report).splitlines() if "would see text alone" in line]
    assert list(report.notes) == told == report.to_dict()["notes"]
    assert [line[: len(note or "")] for line in told] == ([note] if note else [])


def test_marks_are_told_only_where_there_are_some(tmp_path: Path) -> None:
    texts = {"train": "plain", "dev": "#NBA", "test": "# NBA"}
    for split, text in texts.items():
        row = {"id": split, "tokens": text.split()}
        (tmp_path / f"{split}.jsonl").write_text(json.dumps(row), encoding="utf-8")
    report = check(tmp_path)
    assert [split.marks for split in report.splits] == [None, "joined", "apart"]
    assert "# and @" in render(report)


def test_a_clean_source_has_no_quirks(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text('{"id": "1", "text": "x"}\n', encoding="utf-8")
    report = check(tmp_path / "test.jsonl")
    assert report.quirks == ()
    assert render(report).endswith("no quirks")


def test_malformed_input_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text("{}\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"test\.jsonl:1: found no id"):
        check(tmp_path)
