"""What is drawn of a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure as Canvas

from rpbert.reproduce.plot import plot
from rpbert.reproduce.table import DataResult, Figure, RowResult, TableResult


def test_the_legend_has_the_paper_wherever_its_data_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = Figure((80.0,), 80.0, None, None, None, None)
    row = RowResult("bert", "BERT", "bert", "", (0,), figures={"f1": figure})
    sets = [
        DataResult("made", None, 1, 1, 1, "", [row]),
        DataResult("twitter2017", "twitter2017", 1, 1, 1, "", [row]),
    ]
    found: list[str] = []

    class Seen(Canvas):
        def legend(self, *given: Any, **rest: Any) -> Any:
            found.extend(given[1])
            return super().legend(*given, **rest)

    monkeypatch.setattr("matplotlib.figure.Figure", Seen)
    plot(TableResult("table4", "T", ["f1"], sets, {}, {}), tmp_path / "table4.png")
    assert found == ["ours, mean ± sd", "paper"]
