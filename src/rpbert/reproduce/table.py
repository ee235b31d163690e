"""A reproduced table: our mean and standard deviation and the paper's figure, row by row."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

import numpy as np

from rpbert.errors import counted
from rpbert.evaluation.bootstrap import paired_bootstrap, ratios
from rpbert.reproduce.rows import ATTENTION, POSTS, TITLES, Measure, Row, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from rpbert.reproduce.runs import PostScores, Run

IN_PERCENT: frozenset[Measure] = frozenset(TITLES) - ATTENTION
SCORER = "seqeval, strict IOB2"
LEAST = 0.001
"""The smallest p that is given: for a smaller one there are too few resamples."""
COLUMNS = ("ours", "paper", "difference", "p")


@dataclass(frozen=True)
class Figure:
    """One figure of a row."""

    values: Sequence[float]  # one a seed; F1 in %
    mean: float
    sd: float | None  # of the sample, None for a single seed
    paper: float | None
    difference: float | None
    p: float | None  # of the paired bootstrap against the row that it is compared with


@dataclass(frozen=True)
class RowResult:
    """A row on one data set; a row that did not run has a `skip_reason` and no figures."""

    row: str
    label: str
    system: str
    skip_reason: str
    seeds: Sequence[int] = ()
    evidence: str = ""
    initial_weights: str = ""
    seconds: float = 0.0
    against: str = ""  # the row that it is compared with
    epochs: int = 0
    figures: Mapping[Measure, Figure | None] | None = None


@dataclass(frozen=True)
class DataResult:
    """The rows on one data set."""

    name: str
    paper_set: str | None  # the data set of the paper whose figures are compared with
    train: int
    test: int
    support: int  # entities in the test posts
    groups: str  # what posts are grouped by, else empty
    rows: Sequence[RowResult]


@dataclass(frozen=True)
class TableResult:
    """A whole table with the machine and the settings it was made with."""

    table: str
    title: str
    measures: Sequence[Measure]
    data: Sequence[DataResult]
    machine: Mapping[str, Any]
    settings: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The table as JSON types."""
        titles = {measure: TITLES[measure] for measure in self.measures}
        return {**asdict(self), "titles": titles, "scorer": SCORER}


def row_result(
    table: Table,
    row: Row,
    runs: Sequence[Run],
    compared: Sequence[Run],
    references: Mapping[int, PostScores],
    paper_set: str | None,
) -> RowResult:
    """The figures of a row from its finished runs and those of the row it is compared with;
    `references` are scores of RpBERT with the soft gate, by seed."""
    trained = [run.trained or {} for run in runs]
    printed = table.paper.get(row.name, {}).get(paper_set or "")
    if any(run.lacks_weights for run in runs):
        printed = None  # the paper's row stands for those weights
    figures = {}
    for i, measure in enumerate(table.measures):
        ours, others = (
            {
                run.seed: run.finished().outcomes(measure, table.by, references.get(run.seed))
                for run in each
            }
            for each in (runs, compared)
        )
        same = table.same_quantity and all(run.like_the_paper for run in runs)
        figures[measure] = _figure(measure, ours, others, printed[i] if printed else None, same)
    return RowResult(
        row=row.name,
        label=row.label,
        system=row.system,
        skip_reason="",
        seeds=[run.seed for run in runs],
        evidence=runs[0].evidence(),
        initial_weights=trained[0]["initial_weights"],
        seconds=round(fmean(found["seconds"] for found in trained), 1),
        epochs=runs[0].settings.training.epochs,
        against=compared[0].row.name if compared else "",
        figures=figures,
    )


def _figure(
    measure: Measure,
    ours: Mapping[int, np.ndarray],
    compared: Mapping[int, np.ndarray],
    paper: float | None,
    same: bool,
) -> Figure | None:
    """A measure from outcomes by seed, (posts, 2 k) each; None where no test post is of it. `same`:
    the paper's figure is of the same quantity and the same initial weights."""
    if not all(outcome[:, 1].any() for outcome in ours.values()):
        return None
    scale = 100 if measure in IN_PERCENT else 1
    whole = np.ones((1, len(next(iter(ours.values())))), dtype=np.int64)
    values = [scale * float(ratios(outcome[None], whole)[0]) for outcome in ours.values()]
    mean = fmean(values)
    p = None
    if both := [seed for seed in ours if seed in compared]:
        mine, others = (np.stack([each[seed] for seed in both]) for each in (ours, compared))
        p = paired_bootstrap(mine, others)
    return Figure(
        values=values,
        mean=mean,
        sd=stdev(values) if len(values) > 1 else None,
        paper=paper,
        difference=None if paper is None or not same else mean - paper,
        p=p,
    )


def this_machine() -> dict[str, Any]:
    """The machine and the versions that training times belong to."""
    import torch

    return {
        "machine": platform.machine(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "transformers": version("transformers"),
    }


def render(result: TableResult) -> str:
    """The table as Markdown, a section for each data set."""
    made = result.machine
    machine = made["gpu"] or f"{made['machine']}, {counted(made['threads'], 'thread')}"
    versions = ", ".join(f"{name} {made[name]}" for name in ("torch", "transformers"))
    units = []
    if set(result.measures) & IN_PERCENT:
        units.append(f"F1 in %; entities by {SCORER}. Ours is the mean ± sd of the seeds.")
    if set(result.measures) & ATTENTION:
        units.append("S_TV (Eq. 10) divided by the number of words; mean of the posts.")
    lines = [
        f"# {result.title}",
        "",
        *units,
        "p: paired bootstrap over the test posts, two-sided, against the row named with it.",
        f"Training time of one seed, on {machine}; Python {made['python']}, {versions}.",
    ]
    for data in result.data:
        lines += ["", f"## {data.name}", "", *_description(data), "", *_rows(result, data)]
    return "\n".join(lines) + "\n"


def _description(data: DataResult) -> list[str]:
    entities = f" with {data.support:,} entities" if data.support else ""
    lines = [f"{data.train:,} training posts, {data.test:,} test posts{entities}."]
    if data.paper_set:
        train, test = POSTS[data.paper_set]
        own = f"{train:,} training posts, {test:,} test posts, its own evidence and initial weights"
        lines.append(f"The paper's figures are those on {data.paper_set}: {own}.")
    if data.groups:
        lines.append(f"Posts are grouped by {data.groups}.")
    return lines


def _rows(result: TableResult, data: DataResult) -> list[str]:
    columns = COLUMNS if data.paper_set else ("ours", "p")
    header = ["system", "row"]
    for measure in result.measures:
        header += [TITLES[measure], *columns[1:]]
    header += ["p against", "seeds", "evidence", "initial weights", "time"]
    lines = [header, ["---"] * len(header)]
    for row in data.rows:
        cells = [f"`{row.row}`", row.label]
        if row.figures is None:
            cells += [f"not run: {row.skip_reason}", *[""] * (len(header) - 3)]
        else:
            shown = (_cells(row.figures[measure], measure) for measure in result.measures)
            cells += [figure[column] for figure in shown for column in columns]
            cells.append(f"`{row.against}`" if row.against else "")
            cells += [str(len(row.seeds)), row.evidence, row.initial_weights]
            cells.append(f"{row.seconds:,.0f} s, {counted(row.epochs, 'epoch')}")
        lines.append([cell.replace("|", "\\|").replace("\n", " ") for cell in cells])
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def _cells(figure: Figure | None, measure: Measure) -> dict[str, str]:
    """A figure by column: ours, the paper's, the difference and p."""
    if figure is None:
        return {**dict.fromkeys(COLUMNS, ""), "ours": "no post"}
    places = 1 if measure in IN_PERCENT else 3
    sd = "" if figure.sd is None else f" ± {figure.sd:.{places}f}"
    return {
        "ours": f"{figure.mean:.{places}f}{sd}",
        "paper": "" if figure.paper is None else f"{figure.paper:.{places}f}",
        "difference": "" if figure.difference is None else f"{figure.difference:+.{places}f}",
        "p": "" if figure.p is None else f"{figure.p:.3f}" if figure.p >= LEAST else f"< {LEAST}",
    }


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
