"""`rpbert benchmark` on tiny sizes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from rpbert import benchmark
from rpbert.benchmark import Work
from tests.test_cli import run as command

TINY = ("benchmark", "--size", "tiny", "--batch", "2", "--posts", "4", "--repeats", "1")


@pytest.fixture(scope="module")
def parts() -> Iterator[None]:
    """Parts run in this process; training and growth once."""
    given: dict[str, Any] = {}

    def here(measure: Any, work: Work, arguments: dict[str, Any]) -> Any:
        key = measure.__name__
        if key not in given or key in ("_models", "_inference", "_first_prediction"):
            given[key] = json.loads(json.dumps(measure(work, **arguments)))
        return given[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "_in_a_process", here)
        yield


def test_the_whole_as_json_and_as_a_table(parts: None, capsys: pytest.CaptureFixture[str]) -> None:
    given = (*TINY, "--precision", "fp32")
    code, out, err = command(capsys, *given, "--json")
    found = json.loads(out)
    assert (code, "inference fp32" in err) == (0, True)
    row = found["inference"]["fp32"]
    assert row["latency_seconds"]["p50"] <= row["latency_seconds"]["p95"]
    assert [*found["growth"]["fp32"]["length"]] == ["1", "2", "4", "8"]
    lines = [line for line in command(capsys, *given)[1].splitlines() if line[:4] == "fp32"]
    assert len(lines) == 4  # inference, two tasks, growth


@pytest.mark.parametrize("options", ["--precision fp32,fp8", "--precision int8"])
def test_what_cannot_be_measured_is_refused_before_anything_runs(
    options: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = command(capsys, *TINY, *options.split())
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert options[-4:].strip(",") in err


def test_a_part_in_a_process_of_its_own() -> None:
    machine = benchmark._in_a_process(benchmark._machine, Work(size="tiny", threads=1), {})
    assert machine["threads"] == 1
