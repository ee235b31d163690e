"""The report on a data source, held to the published figures of the real sets."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from rpbert.data.check import check, render
from rpbert.errors import InputError
from tests.conftest import picture
from tests.data.files import folder_of

KEYS = ("posts", "words", "strict", "conlleval", "lone_inside", "blank_line_at_end")
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


@pytest.mark.parametrize(
    ("name", "marks", "labelled"),
    [("twitter2015", "joined", (5727, 3122)), ("twitter2017", "apart", (4273, 2490))],
)
def test_figures_of_the_real_sets(
    shared: Path, name: str, marks: str, labelled: tuple[int, int]
) -> None:
    report = check(shared / name)
    found = report["splits"]
    for split in found.values():
        split |= {key: split[f"entities_{key}"]["total"] for key in ("strict", "conlleval")}
        assert split["entities_strict"]["by_type"].keys() == {"PER", "LOC", "ORG", "MISC"}
        assert split["marks"] == marks
        assert "as Yu et al. 2020 (UMT)" in split["version"]
    assert sum("labels of Twitter-20" in note for note in report["notes"]) == 3
    assert {name: tuple(map(split.get, KEYS)) for name, split in found.items()} == PUBLISHED[name]
    keys = ("relations", "relations_positive")
    assert tuple(sum(split[key] for split in found.values()) for key in keys) == labelled
    pairs = check(shared / "real_pairs" / name)["splits"]
    assert all(split["version"] is None for split in pairs.values())
    present = {"present": 5, "missing": 0, "unreadable": 0, "none": 0}
    assert [split["images"] for split in pairs.values()] == [present] * 3


def test_published_relation_labels_without_tweets_are_still_reported(shared: Path) -> None:
    report = check(shared / "trc")
    # 4,471 rows less 28 rewritten ids and less the 2 rows that lost a label column.
    assert sum(split["relations"] for split in report["splits"].values()) == 4441
    assert {split["posts"] for split in report["splits"].values()} == {0}
    assert "no tweets" in {quirk["kind"] for quirk in report["quirks"]}


def test_everything_of_a_small_folder(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "train.txt": "IMGID:a\nAnna\tB-PER\n\nIMGID:a\nx\tI-LOC\n\nIMGID:b\ny\tB-LOC\nz\tI-LOC\n\n",
        "test.txt": "IMGID:c\n#x\tO\n\nIMGID:b\ny\tB-OTHER",
        "captions.tsv": "a\ta cat\nc\t\n",
        "relations.tsv": "a\t0\nb\t1\n",
        "images/c.jpg": b"no image",
    }
    folder_of(tmp_path, files)
    regions = {"b/features": np.ones((2, 3), np.float32), "b/boxes": np.zeros((2, 4), np.float32)}
    save_file(regions, tmp_path / "regions.safetensors")
    picture(0).save(tmp_path / "images" / "a.jpg")
    report = json.loads(json.dumps(check(tmp_path)))
    (note,) = report["notes"]
    assert note.startswith("test.txt: types that the train split does not know: MISC")
    train, test = report["splits"].values()
    assert train == train | {
        "tagged": 3,
        "entities_conlleval": {"total": 3, "by_type": {"LOC": 2, "PER": 1}},
        "images": {"present": 2, "missing": 1, "unreadable": 0, "none": 0},
        "captions": 2,
        "regions": 1,
        "relations": 3,
        "relations_positive": 1,
        "duplicate_ids": 1,
    }
    assert test["images"] == {"present": 0, "missing": 1, "unreadable": 1, "none": 0}
    assert (train["blank_line_at_end"], test["blank_line_at_end"]) == (True, False)
    assert (train["marks"], test["marks"]) == (None, "joined")
    assert [(q["file"], q["line"], q["kind"]) for q in report["quirks"]] == [
        ("captions.tsv", 2, "empty value"), ("train.txt", 5, "lone I- tag"),
        ("train.txt", 4, "id given twice"), ("train.txt", 7, "image missing"),
        ("test.txt", 1, "image unreadable"), ("test.txt", 5, "no blank line at the end"),
        ("test.txt", 5, "OTHER for MISC"), ("test.txt", 4, "image missing"),
        ("test.txt", 4, "id in two splits"),
    ]  # fmt: skip
    report["quirks"] += [
        {"file": "a.txt", "line": line, "kind": "z", "detail": ""} for line in (9, 3, 4, 5)
    ]
    lines = render(report).splitlines()
    rows = [line.split() for line in lines]
    assert sum(row[-3:] == ["PER", "1", "0"] for row in rows) == 2
    assert ["images", "missing", "1", "1"] in rows
    assert ["blank", "line", "at", "end", "yes", "no"] in rows
    assert ["marks", "-", "joined"] in rows
    assert lines[-2:] == ["z: 4", "  a.txt: 3-5, 9"]


def test_a_known_version_is_named_by_its_counts_and_tags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two published splits, one with its tags and one by its counts; whichever file they are in."""
    sha256 = hashlib.sha256(b"B-MISC I-MISC O\nO\n").hexdigest()
    known = {"A, dev": {"posts": 2, "words": 4, "sha256": sha256}, "B": {"posts": 1, "words": 2}}
    monkeypatch.setattr("rpbert.data.check.VERSIONS", known)
    tagged = "IMGID:1\nAda\tB-{}\nL\tI-{}\nRT\tO\n\nIMGID:2\nno\tO\n".format
    files = {"train": tagged("OTHER", "OTHER"), "dev": tagged(1, 1), "test": tagged(1, 1)}
    found = check(folder_of(tmp_path, {f"{name}.txt": text for name, text in files.items()}))
    assert [of["version"] for of in found["splits"].values()] == ["A, dev", None, None]
    assert "train: labels of A, dev" in render(found)
    (tmp_path / "dev.txt").write_text("IMGID:2\nno\tO\nway\tO\n")
    assert check(tmp_path)["splits"]["dev"]["version"] == "B"


def test_data_without_any_image_is_reported(tmp_path: Path) -> None:
    path = folder_of(tmp_path, {"a.jsonl": '{"id": "1", "text": "x"}', "train.txt": "IMGID:a\n"})
    for data, note in ((path, "there is no folder images/"), (path / "a.jsonl", "no row names an")):
        report = check(data)
        (said,) = report["notes"]
        assert said.startswith(note)
        assert said in render(report).splitlines()


def test_faulty_rows_are_listed_where_that_is_asked_for(tmp_path: Path) -> None:
    text = "IMGID:1\nAda\tB-PER\n\nIMGID:2\nAda\tPER\nsaid\tO\n\nIMGID:3\nAda B-PER\n\n"
    report = check(folder_of(tmp_path, {"train.txt": text}), lenient=True)
    assert report["splits"]["train"]["entities_strict"]["total"] == 2  # the space is read as a tab
    faulty = [(q["line"], q["file"]) for q in report["quirks"] if "faulty" in q["kind"]]
    assert faulty == [(5, "train.txt"), (9, "train.txt")]
    with pytest.raises(InputError, match=r"train\.txt:5"):
        check(tmp_path)
