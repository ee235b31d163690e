"""A reproduced table as a plot: our mean ± sd and the paper's figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rpbert.reproduce.rows import TITLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from rpbert.reproduce.rows import Measure
    from rpbert.reproduce.table import DataResult, TableResult


def plot(result: TableResult, path: Path) -> None:
    """Write a PNG: a row of panels a data set, a panel a measure, a line for each row that ran."""
    from matplotlib.figure import Figure as Canvas

    rows = max((len(data.rows) for data in result.data), default=1)
    sets, measures = len(result.data), len(result.measures)
    size = (3.4 + 2.6 * measures, 1.0 + sets * (0.8 + 0.3 * rows))
    canvas = Canvas(figsize=size, layout="constrained")
    grid = canvas.subplots(sets, measures, squeeze=False, sharey="row")
    for axes, data in zip(grid, result.data, strict=True):
        for axis, measure in zip(axes, result.measures, strict=True):
            _panel(axis, data, measure)
    shown: dict[str, Any] = {}  # the paper has figures for some data sets only
    for first in grid[:, 0]:
        handles, labels = first.get_legend_handles_labels()
        shown |= dict(zip(labels, handles, strict=True))
    canvas.legend(shown.values(), shown, loc="outside lower center", ncols=2, fontsize="x-small")
    canvas.suptitle(result.title, fontsize="medium")
    canvas.savefig(path, dpi=150, format="png", metadata={"Software": None})


def _panel(axis: Axes, data: DataResult, measure: Measure) -> None:
    names: list[str] = []
    for row in data.rows:
        figure = (row.figures or {}).get(measure)
        place = len(names)
        names.append(row.label if figure else f"{row.label} (not run)")
        if figure is None:
            continue
        axis.errorbar(figure.mean, place, xerr=figure.sd or 0, fmt="o", capsize=3, color="tab:blue")
        if figure.paper is not None:
            axis.plot(figure.paper, place, marker="D", fillstyle="none", color="tab:red")
    axis.plot([], [], "o", color="tab:blue", label="ours, mean ± sd")
    if data.paper_set:
        axis.plot([], [], "D", fillstyle="none", color="tab:red", label="paper")
    axis.set_yticks(range(len(names)), names, fontsize="small")
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.grid(axis="x", alpha=0.3)
    axis.set_title(f"{data.name}: {TITLES[measure]}", fontsize="small")
