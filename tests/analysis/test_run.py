"""What `analyze` writes, against plain sums over what `explain` says of each post."""

from __future__ import annotations

import csv
import gc
import json
import math
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rpbert import InputError, Post, Tagger
from rpbert.analysis import Explanation, explain
from rpbert.analysis.run import Analysis, analyze, short_names
from rpbert.data.readers import open_data
from tests.analysis.common import finder, posts_file
from tests.conftest import tiny
from tests.test_cli import run

Alone = list[tuple[Post, Explanation, Explanation]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("analysis")


@pytest.fixture(scope="module")
def made(folder: Path) -> Analysis:
    data = posts_file(folder / "data")
    model, other = finder(folder / "soft"), finder(folder / "open" / "model", gate="none")
    return analyze(str(model), data, folder / "out", against=str(other), posts=6)


@pytest.fixture(scope="module")
def alone(folder: Path, made: Analysis) -> Alone:
    """Each post as each model explains it, one by one."""
    taggers = [Tagger.from_pretrained(folder / name, "cpu") for name in ("soft", "open")]
    source = open_data(folder / "data" / "posts.jsonl")
    posts = source.read(source.splits[0])
    return [(post, *(explain(tagger, post) for tagger in taggers)) for post in posts]  # type: ignore[misc]


def rows_of(path: Path) -> Iterator[dict[str, str]]:
    csv.field_size_limit(2**24)
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def test_a_row_a_post(folder: Path, made: Analysis, alone: Alone) -> None:
    rows = list(rows_of(folder / "out" / "posts.csv"))
    assert [row["id"] for row in rows] == [post.id for post, _, _ in alone]
    for row, (post, *explained) in zip(rows, alone, strict=True):
        assert row["label"] == str(int(post.relation or 0))
        assert row["image"] == explained[0].prediction.image
        for prefix, one in zip(("", "against_"), explained, strict=True):
            entities = [[e["label"], e["start"]] for e in json.loads(row[f"{prefix}entities"])]
            assert entities == [[e.label, e.start] for e in one.prediction.entities]
            for name in ("s_tv", "s_tv_per_word"):
                value = getattr(one, name)
                assert (row[prefix + name] == "") == (value is None)
                if value is not None:
                    assert float(row[prefix + name]) == pytest.approx(value, rel=1e-4)
        assert row["against_r"] == ""
        assert float(row["r"]) == pytest.approx(explained[0].prediction.relation, rel=1e-4)
    assert {row["outcome"] for row in rows} <= {"mended", "broken", "differs", "both wrong"}
    assert [row["s_tv"] for row in rows].count("") == 2  # without image, and unreadable


def test_a_row_a_map_and_a_row_a_word(folder: Path, made: Analysis, alone: Alone) -> None:
    blocks = {(row["model"], row["id"]): row for row in rows_of(folder / "out" / "blocks.csv")}
    words = list(rows_of(folder / "out" / "words.csv"))
    for post, *explained in alone:
        for name, one in zip(("soft", "open"), explained, strict=True):
            own = [row for row in words if (row["model"], row["id"]) == (name, post.id)]
            if one.heat is None or one.attention is None:
                assert (name, post.id) not in blocks
                assert not own
                continue
            row = blocks[name, post.id]
            assert (int(row["rows"]), int(row["columns"])) == one.heat.shape
            found = np.array(row["attention"].split(), dtype=float)
            np.testing.assert_allclose(found, one.heat.ravel(), rtol=1e-3)
            assert [row["word"] for row in own] == list(post.words)
            sums = [float(row["sum"]) for row in own]
            np.testing.assert_allclose(sums, one.attention.sum((1, 2)), rtol=1e-4)


@pytest.mark.parametrize("measure", ["s_tv", "s_tv_per_word"])
@pytest.mark.parametrize("by", ["label", "r"])
@pytest.mark.parametrize("relation", ["irrelevant", "relevant"])
def test_means_are_those_of_the_posts(
    made: Analysis,
    alone: Alone,
    measure: str,
    by: str,
    relation: str,
) -> None:
    chosen = []
    for post, soft, open_ in alone:
        adds = post.relation == 1 if by == "label" else (soft.prediction.relation or 0) > 0.5
        if soft.attention is not None and adds == (relation == "relevant"):
            chosen.append((getattr(soft, measure), getattr(open_, measure)))
    rows = made.summary.to_dict()["means"]
    key = (measure, by, relation)
    found = [row for row in rows if (row["measure"], row["by"], row["relation"]) == key]
    if not chosen:
        assert not found
        return
    (row,) = found
    assert row["posts"] == len(chosen)
    values = np.array(chosen)
    for model in (0, 1):
        assert row["models"][model]["mean"] == pytest.approx(values[:, model].mean(), rel=1e-4)
    changes = values[:, 0] - values[:, 1]
    assert row["change"]["mean"] == pytest.approx(changes.mean(), abs=1e-5)
    if len(changes) > 1:
        error = changes.std(ddof=1) / math.sqrt(len(changes))
        assert row["change"]["error"] == pytest.approx(error, abs=1e-5)


def test_the_summary_counts_every_post(folder: Path, made: Analysis) -> None:
    written = json.loads((folder / "out" / "summary.json").read_text("utf-8"))
    assert written == made.summary.to_dict()
    assert written["posts"] == 13 == sum(written["outcomes"].values())
    assert written["images"] == {"used": 11, "none": 1, "unreadable": 1}
    assert written["models"] == ["soft", "open"]
    correlations = written["correlation_with_r"]["s_tv"]
    pairs = [
        (float(row["r"]), float(row["s_tv"]), float(row["against_s_tv"]))
        for row in rows_of(folder / "out" / "posts.csv")
        if row["s_tv"]
    ]
    for model in (0, 1):
        expected = np.corrcoef([p[0] for p in pairs], [p[1 + model] for p in pairs])[0, 1]
        assert correlations[model] == pytest.approx(expected, abs=1e-2)


def test_figures_are_written_the_same_each_time(
    folder: Path, made: Analysis, tmp_path: Path
) -> None:
    again = analyze(
        str(folder / "soft"),
        folder / "data" / "posts.jsonl",
        tmp_path / "again",
        against=str(folder / "open"),
        posts=6,
    )
    assert {path.name for path in again.files} == {path.name for path in made.files}
    for path in [made.report, *made.files]:
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name
    assert (folder / "out" / "s_tv.png").read_bytes()[:4] == b"\x89PNG"
    assert (folder / "out" / "s_tv.svg").read_text("utf-8").count("soft") >= 1


def test_one_model_a_blind_one_beside_it_and_posts_without_gold(
    folder: Path, made: Analysis
) -> None:
    data, soft = folder / "data" / "posts.jsonl", str(folder / "soft")
    single = analyze(soft, data, folder / "single").summary.to_dict()
    assert all(row["change"] is None for row in single["means"])
    assert set(single["outcomes"]) <= {"right", "wrong"}
    tiny("bert").save(folder / "blind")
    blind = analyze(soft, data, folder / "beside", against=str(folder / "blind"))
    assert all(row["models"][1] is None for row in blind.summary.to_dict()["means"])
    (folder / "bare.jsonl").write_text('{"id": "1", "text": "Ada at Lake Como"}\n')
    found = analyze(soft, folder / "bare.jsonl", folder / "bare").summary.to_dict()
    assert (found["outcomes"], found["means"]) == ({"unlabelled": 1}, [])


def test_memory_does_not_grow_with_the_posts(
    folder: Path, made: Analysis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables are written, posts forgotten; figure and report keep so many and no more."""
    monkeypatch.setattr("rpbert.analysis.figure.POINTS", 10)
    row = json.dumps({"id": "1", "text": "Ada Lovelace at Lake Como again", "image": "data/0.png"})

    def peak(count: int) -> int:
        data = folder / f"{count}.jsonl"
        data.write_text((row + "\n") * count)
        gc.collect()
        tracemalloc.start()
        analyze(str(folder / "soft"), data, folder / f"out{count}", posts=5)
        _, top = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return top

    peak(20)  # what is imported and cached once
    # 200 explained posts would take more than 3 KB each.
    assert peak(240) - peak(40) < 200 * 1000


def test_what_cannot_be_analysed_is_said(folder: Path, made: Analysis, tmp_path: Path) -> None:
    data = folder / "data" / "posts.jsonl"
    tiny("bert").save(tmp_path / "bert")
    (tmp_path / "file").touch()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"model": str(tmp_path / "bert")}, "a model of bert"),
        ({"data": tmp_path / "nowhere"}, "no such file"),
        ({"posts": 0}, "at least 1"),
        ({"output": tmp_path / "file"}, "a folder to write to"),
        ({"split": "summer"}, "summer"),
    ]
    given = {"model": str(folder / "soft"), "data": data, "output": tmp_path / "out"}
    for changes, message in wrong:
        with pytest.raises(InputError, match=message):
            analyze(**{**given, **changes})
    assert not (tmp_path / "out" / "posts.csv").exists()


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["runs/demo/rpbert", "runs/demo/none"], ["rpbert", "none"]),
        (["runs/a/rpbert/model", "runs/b/rpbert"], ["a/rpbert", "b/rpbert"]),
        (["runs/a"], ["a"]),
        (["model"], ["model"]),
        (["runs/a", "runs/a"], ["runs/a (1)", "runs/a (2)"]),
        (["you/rpbert-news", "/x/rpbert-news"], ["you/rpbert-news", "x/rpbert-news"]),
    ],
)
def test_short_names_tell_models_apart(names: list[str], short: list[str]) -> None:
    assert short_names(names) == short


def test_analyze(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    data = posts_file(tmp_path / "data")
    model, other = finder(tmp_path / "soft"), finder(tmp_path / "open", gate="none")
    arguments = ("analyze", model, data, "--output", tmp_path / "out", "--against", other)
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    assert "mean S_TV (Eq. 10)" in out
    assert "13 posts" in out
    first, second, *_ = out.splitlines()
    assert first.split() == ["model", "model"]
    assert second.split() == ["image", "posts", "open", "soft", "change", "paper"]
    assert "Not on the paper's scale" in out
    assert str(tmp_path / "out" / "report.html") in out.replace("\n", "")
    code, out, _ = run(capsys, *arguments, "--posts", 3, "--json")
    found = json.loads(out)
    assert (code, found["posts"], found["models"]) == (0, 13, ["soft", "open"])
    for path in found["files"]:
        assert Path(path).stat().st_size > 0
    assert "3 of 13 posts" in (tmp_path / "out" / "report.html").read_text("utf-8")
