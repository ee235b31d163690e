"""What `analyze` writes, against plain sums over what `explain` says of each post."""

from __future__ import annotations

import json
import math
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


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "posts.jsonl").read_text().splitlines()]


def test_a_row_a_post(folder: Path, made: Analysis, alone: Alone) -> None:
    rows = rows_of(folder / "out")
    assert [row["id"] for row in rows] == [post.id for post, _, _ in alone]
    for row, (post, *explained) in zip(rows, alone, strict=True):
        r = explained[0].prediction.relation if explained[0].attention is not None else None
        assert row["r"] == (None if r is None else pytest.approx(r, abs=1e-6))
        assert (row["label"], row["image"]) == (post.relation == 1, explained[0].prediction.image)
        for found, one in zip(row["models"], explained, strict=True):
            places = [(e.label, e.start, e.end) for e in one.prediction.entities]
            assert [tuple(entity[:3]) for entity in found["entities"]] == places
            attention = found["attention"]
            assert (attention is None) == (one.attention is None) == (found["s_tv"] is None)
            if attention is None or one.attention is None:
                continue
            assert found["s_tv"] == pytest.approx(one.s_tv, abs=1e-5)
            assert found["s_tv_per_word"] == pytest.approx(one.s_tv_per_word, abs=1e-5)
            grid = (attention["rows"], attention["columns"])
            values = np.array(attention["words"]).reshape(-1, *grid)
            np.testing.assert_allclose(values, one.attention, atol=1e-5)
    assert {row["outcome"] for row in rows} <= {"mended", "broken", "differs", "both wrong"}
    assert [row["models"][0]["s_tv"] for row in rows].count(None) == 2  # no image, and unreadable


@pytest.mark.parametrize("by", ["label", "r"])
def test_means_are_those_of_the_posts(made: Analysis, alone: Alone, by: str) -> None:
    rows = [row for row in made.summary.to_dict()["means"] if row["by"] == by]
    groups: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for post, soft, open_ in alone:
        adds = post.relation == 1 if by == "label" else (soft.prediction.relation or 0) > 0.5
        if soft.attention is not None:
            for measure in ("s_tv", "s_tv_per_word"):
                group = groups.setdefault((measure, "relevant" if adds else "irrelevant"), [])
                group.append((getattr(soft, measure), getattr(open_, measure)))
    assert {(row["measure"], row["relation"]) for row in rows} == set(groups)
    for row in rows:
        values = np.array(groups[row["measure"], row["relation"]])
        means = [model["mean"] for model in row["models"]]
        changes = values[:, 0] - values[:, 1]
        assert row["posts"] == len(values)
        assert means == pytest.approx(values.mean(0).tolist(), rel=1e-4)
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
        (row["r"], *(model["s_tv"] for model in row["models"]))
        for row in rows_of(folder / "out")
        if row["r"] is not None
    ]
    for model in (0, 1):
        expected = np.corrcoef([p[0] for p in pairs], [p[1 + model] for p in pairs])[0, 1]
        assert correlations[model] == pytest.approx(expected, abs=1e-2)


def test_files_are_written_the_same_each_time(folder: Path, made: Analysis) -> None:
    data, other = folder / "data" / "posts.jsonl", str(folder / "open")
    again = analyze(str(folder / "soft"), data, folder / "again", against=other, posts=6)
    assert [path.name for path in again.files] == [path.name for path in made.files]
    for path in (made.report, *made.files):
        assert (folder / "again" / path.name).read_bytes() == path.read_bytes(), path.name


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


def test_what_cannot_be_analysed_is_said(folder: Path, made: Analysis, tmp_path: Path) -> None:
    data = folder / "data" / "posts.jsonl"
    tiny("bert").save(tmp_path / "bert")
    (tmp_path / "file").touch()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"model": str(tmp_path / "bert")}, "a model of bert"),
        ({"data": tmp_path / "nowhere"}, "no such file"),
        ({"posts": 0}, "at least 1"),
        ({"output": tmp_path / "file"}, "no folder that can be written"),
        ({"split": "summer"}, "summer"),
    ]
    given = {"model": str(folder / "soft"), "data": data, "output": tmp_path / "out"}
    for changes, message in wrong:
        with pytest.raises(InputError, match=message):
            analyze(**{**given, **changes})
    assert not (tmp_path / "out" / "posts.jsonl").exists()


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["runs/a/rpbert/model", "runs/b/rpbert"], ["a/rpbert", "b/rpbert"]),
        (["model"], ["model"]),
        (["runs/a", "runs/a"], ["runs/a (1)", "runs/a (2)"]),
    ],
)
def test_short_names_tell_models_apart(names: list[str], short: list[str]) -> None:
    assert short_names(names) == short


def test_analyze(capsys: pytest.CaptureFixture[str], folder: Path, made: Analysis) -> None:
    data, out_folder = folder / "data" / "posts.jsonl", folder / "command"
    arguments = ("analyze", folder / "soft", data, "--output", out_folder, "--against")
    code, out, _ = run(capsys, *arguments, folder / "open")
    assert code == 0
    for row in made.summary.to_dict()["means"]:
        soft, other = (f"{mean['mean']:.3f}" for mean in row["models"])
        assert f"by {row['by']}, {row['posts']} post" in out
        assert f": model soft {soft}, model open {other}, change " in out
    assert str(out_folder / "report.html") in out.replace("\n", "")
    code, out, _ = run(capsys, *arguments, folder / "open", "--posts", 3, "--json")
    found = json.loads(out)
    assert (code, found["posts"], found["models"]) == (0, 13, ["soft", "open"])
    assert all(Path(path).stat().st_size > 0 for path in found["files"])
    assert "3 of 13 posts" in (out_folder / "report.html").read_text("utf-8")
