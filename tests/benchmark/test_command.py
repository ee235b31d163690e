"""`rpbert benchmark` on tiny sizes, its parts in this process but for one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rpbert.benchmark import whole
from rpbert.benchmark.parts import PARTS
from rpbert.benchmark.work import Work
from tests.test_cli import run

TINY = ("benchmark", "--size", "tiny", "--batch", "2", "--posts", "4", "--repeats", "1")


@pytest.fixture(scope="module")
def parts() -> Iterator[dict[str, Any]]:
    """What each part gave; a part that is asked for again gives the same at once."""
    given: dict[str, Any] = {}

    def here(name: str, work: Work, arguments: dict[str, Any]) -> Any:
        asked = {key: value for key, value in arguments.items() if key != "folder"}
        key = f"{name} {asked}"
        if key not in given or "folder" in arguments:
            given[key] = json.loads(json.dumps(PARTS[name](work, **arguments)))
        return given[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(whole, "_in_a_process", here)
        yield given


@pytest.fixture(scope="module")
def earlier(parts: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A benchmark that was twice as fast."""
    work = Work(size="tiny", batch=2, posts=4, repeats=1)
    plan = whole.Plan(work, ["fp32"], growth=False)
    found = json.loads(json.dumps(whole.run(plan, lambda _: None)))
    found["inference"]["fp32"]["posts_per_second"]["median"] *= 2
    found["training"]["fp32"]["posts_per_second"]["tagging"]["median"] *= 2
    path = tmp_path_factory.mktemp("benchmark") / "earlier.json"
    path.write_text(json.dumps(found))
    return path


def test_the_whole_as_json(parts: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, *TINY, "--precision", "fp32", "--profile", "--json")
    found = json.loads(out)
    assert (code, "inference fp32" in err) == (0, True)
    assert "first prediction fp32\n" in err  # without the folder that it needs meanwhile
    assert set(found) == {
        *("work", "machine", "inference", "training", "training_gflop_per_post"),
        *("growth", "profile"),
    }
    assert set(found["inference"]["fp32"]) == {
        *("posts_per_second", "latency_seconds", "peak_gib", "gflop_per_post"),
        *("gflop_per_second", "max_difference", "first_prediction_seconds"),
    }
    assert set(found["training"]["fp32"]["posts_per_second"]) == {"relation", "tagging"}
    assert {axis: list(rates) for axis, rates in found["growth"]["fp32"].items()} == {
        "batch": ["1", "2", "4", "8", "16", "32"],
        "length": ["1", "2", "4", "8"],
        "posts": ["1", "2", "4"],
    }
    assert list(found["profile"]) == ["inference fp32", "training fp32"]


def test_a_table_beside_an_earlier_one(
    earlier: Path, parts: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    given = (*TINY, "--precision", "fp32", "--no-growth", "--compare", earlier)
    code, out, _ = run(capsys, *given)
    assert code == 0
    rows = {line[:21].strip(): line for line in out.splitlines()}
    [row] = (line for line in out.splitlines() if line.startswith("fp32 ") and " ms" in line)
    assert row.endswith("0.50 × the earlier")
    assert rows["fp32       tagging"].endswith("0.50 × the earlier")
    assert rows["fp32       relation"].endswith("1.00 × the earlier")
    assert "other work" not in out


def test_an_earlier_one_of_other_work_is_told(
    earlier: Path, parts: dict[str, Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    found = json.loads(earlier.read_text())
    found["work"] |= {"size": "published", "batch": 16, "repeats": 9}
    other = tmp_path / "other.json"
    other.write_text(json.dumps(found))
    given = (*TINY, "--precision", "fp32", "--no-growth", "--compare", other)
    assert "is of other work: size published, batch 16\n" in run(capsys, *given)[1]


@pytest.mark.parametrize("content", ["no JSON", "[]", "{}", None])
def test_another_file_is_refused_before_anything_runs(
    content: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "other.json"
    if content is not None:
        path.write_text(content)
    code, out, err = run(capsys, *TINY, "--compare", path)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert "other.json" in err
    assert "rpbert benchmark --json" in err


def test_a_comparison_that_nothing_would_show_is_refused_before_anything_runs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, err = run(capsys, *TINY, "--compare", "earlier.json", "--json")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "--compare: found --json beside it" in err


@pytest.mark.parametrize(("device", "precision"), [("cpu", "fp8"), ("cuda", "int8")])
def test_a_precision_that_a_device_has_not_is_refused_before_anything_runs(
    device: str, precision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(capsys, *TINY, "--device", device, "--precision", f"fp32,{precision}")
    assert (code, len(err.splitlines())) == (2, 1)
    assert precision in err


def test_a_part_in_a_process_of_its_own() -> None:
    work = Work(size="tiny", threads=1)
    machine = whole._in_a_process("machine", work, {})
    assert machine["threads"] == 1
    assert set(machine["products"]) >= {"fp32", "bf16"}
