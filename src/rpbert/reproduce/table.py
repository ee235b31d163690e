"""A reproduced table: our mean and standard deviation and the paper's figure, row by row."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

import numpy as np

from rpbert.errors import counted
from rpbert.evaluation.bootstrap import paired_bootstrap, ratios
from rpbert.reproduce.rows import ATTENTION, POSTS, TITLES, Measure, Row, Table

if TYPE_CHECKING:
    from rpbert.reproduce.runs import PostScores, Run

IN_PERCENT: frozenset[Measure] = frozenset(TITLES) - ATTENTION
SCORER = "seqeval, strict IOB2"


@dataclass(frozen=True)
class Figure:
    """One figure of a row."""

    values: Sequence[float]  # one a seed; F1 in %
    mean: float
    sd: float | None  # of the sample, None for a single seed
    paper: float | None  # of the paper's own evidence and initial weights
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
    figures = {}
    for i, measure in enumerate(table.measures):
        ours, others = (
            {
                run.seed: run.finished().outcomes(measure, table.by, references.get(run.seed))
                for run in each
            }
            for each in (runs, compared)
        )
        figures[measure] = _figure(measure, ours, others, printed[i] if printed else None)
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
) -> Figure | None:
    """A measure from outcomes by seed, (posts, 2 k) each; None where no test post is of it."""
    if not all(outcome[:, 1].any() for outcome in ours.values()):
        return None
    scale = 100 if measure in IN_PERCENT else 1
    whole = np.ones((1, len(next(iter(ours.values())))), dtype=np.int64)
    values = [scale * float(ratios(outcome[None], whole)[0]) for outcome in ours.values()]
    p = None
    if both := [seed for seed in ours if seed in compared]:
        mine, others = (np.stack([each[seed] for seed in both]) for each in (ours, compared))
        p = paired_bootstrap(mine, others)
    return Figure(
        values=values,
        mean=fmean(values),
        sd=stdev(values) if len(values) > 1 else None,
        paper=paper,
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
    header = ["system", "row"]
    for measure in result.measures:
        header += [TITLES[measure], *(["paper"] if data.paper_set else []), "p"]
    header += ["p against", "seeds", "evidence", "initial weights", "time"]
    lines = [header, ["---"] * len(header)]
    for row in data.rows:
        cells = [f"`{row.row}`", row.label]
        if row.figures is None:
            cells += [f"not run: {row.skip_reason}", *[""] * (len(header) - 3)]
        else:
            for measure in result.measures:
                ours, paper, p = _cells(row.figures[measure], measure)
                cells += [ours, *([paper] if data.paper_set else []), p]
            cells.append(f"`{row.against}`" if row.against else "")
            cells += [str(len(row.seeds)), row.evidence, row.initial_weights]
            cells.append(f"{row.seconds:,.0f} s, {counted(row.epochs, 'epoch')}")
        lines.append([cell.replace("|", "\\|").replace("\n", " ") for cell in cells])
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def _cells(figure: Figure | None, measure: Measure) -> tuple[str, str, str]:
    """Ours, the paper's, and p."""
    if figure is None:
        return "no post", "", ""
    places = 1 if measure in IN_PERCENT else 3
    sd = "" if figure.sd is None else f" ± {figure.sd:.{places}f}"
    paper = "" if figure.paper is None else f"{figure.paper:.{places}f}"
    p = "" if figure.p is None else f"{figure.p:.3f}" if figure.p >= 0.001 else "< 0.001"
    return f"{figure.mean:.{places}f}{sd}", paper, p
