"""`rpbert benchmark` on tiny sizes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from rpbert import benchmark
from rpbert.cli.show import benchmark_table
from tests.test_cli import run as command

TINY = ("benchmark", "--size", "tiny", "--batch", "2", "--posts", "4", "--repeats", "1")


@pytest.fixture(scope="module")
def parts() -> Iterator[None]:
    """Parts run in this process."""

    def here(measure: Any, threads: int | None, *given: Any) -> Any:
        return json.loads(json.dumps(measure(*given)))

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
    assert [*row["length"]] == ["1", "2", "4", "8"]
    assert {*found["training"]["fp32"]["posts_per_second"]} == {"relation", "tagging"}
    lines = [line for line in "\n".join(benchmark_table(found)).splitlines() if "fp32" in line]
    assert len(lines) == 3  # inference, two tasks
    assert sum("posts in a batch" in line for line in benchmark_table(found)) == 1


@pytest.mark.parametrize("options", ["--precision fp32,fp8", "--precision int8"])
def test_what_cannot_be_measured_is_refused_before_anything_runs(
    options: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = command(capsys, *TINY, *options.split())
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert options[-4:].strip(",") in err


def test_a_part_in_a_process_of_its_own() -> None:
    machine = benchmark._in_a_process(benchmark.machine, 1)
    assert machine["threads"] == 1
