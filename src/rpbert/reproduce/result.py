"""A reproduced table: our mean and deviation beside the paper's figure, row by row."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

import numpy as np

from rpbert.evaluation.bootstrap import paired_bootstrap, ratios
from rpbert.reproduce.rows import SOFT, TITLES, Measure, Row, Table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rpbert.reproduce.running import Job
    from rpbert.reproduce.scores import PostScores

IN_PERCENT: frozenset[Measure] = frozenset(("f1", "adds", "does_not", "relation"))
SCORER = "seqeval, strict IOB2"


@dataclass(frozen=True)
class Figure:
    """One figure of a row.

    Attributes:
        values: one a seed; F1 in %.
        sd: of the sample, None for a single seed.
        paper: what the paper prints, None where it prints nothing.
        p: of the paired bootstrap against the row above, None for the first row.
    """

    values: Sequence[float]
    mean: float
    sd: float | None
    paper: float | None
    difference: float | None
    p: float | None


@dataclass(frozen=True)
class RowResult:
    """A row on one data set; `why_not` says why it could not run, else it is empty."""

    row: str
    label: str
    system: str
    why_not: str
    seeds: Sequence[int] = ()
    evidence: str = ""
    initial_weights: str = ""
    seconds: float = 0.0
    figures: Mapping[Measure, Figure | None] | None = None


@dataclass(frozen=True)
class DataResult:
    """The rows on one data set.

    Attributes:
        paper_set: the data set of the paper whose figures stand beside ours, if it is one.
        train, test: how many posts.
        support: entities in the test posts.
        groups: what posts were grouped by, empty where they were not.
    """

    name: str
    paper_set: str | None
    train: int
    test: int
    support: int
    groups: str
    rows: Sequence[RowResult]


@dataclass(frozen=True)
class TableResult:
    """A whole table, with what it was made by."""

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
    jobs: Sequence[Job],
    above: Sequence[Job],
    references: Mapping[int, PostScores],
    paper_set: str | None,
) -> RowResult:
    """What the finished jobs of a row came to.

    Args:
        above: the finished jobs of the row above, empty for the first one.
        references: scores of RpBERT with the soft gate, by seed.
    """
    printed = table.paper.get(row.name, {}).get(paper_set or "")
    figures = {
        measure: _figure(measure, jobs, above, references, printed[i] if printed else None)
        for i, measure in enumerate(table.measures)
    }
    trained = [job.trained or {} for job in jobs]
    return RowResult(
        row=row.name,
        label=row.label,
        system=row.system,
        why_not="",
        seeds=[job.seed for job in jobs],
        evidence=jobs[0].evidence(),
        initial_weights=trained[0]["initial_weights"],
        seconds=round(fmean(found["seconds"] for found in trained), 1),
        figures=figures,
    )


def _figure(
    measure: Measure,
    jobs: Sequence[Job],
    above: Sequence[Job],
    references: Mapping[int, PostScores],
    paper: float | None,
) -> Figure | None:
    """A measure over the seeds; None where no post of the test split is of it."""
    ours = {job.seed: job.finished().outcomes(measure, references.get(job.seed)) for job in jobs}
    if not all(outcome[:, 1].any() for outcome in ours.values()):
        return None
    scale = 100 if measure in IN_PERCENT else 1
    values = [scale * _ratio(outcome) for outcome in ours.values()]
    mean = fmean(values)
    others = {
        job.seed: job.finished().outcomes(measure, references.get(job.seed))
        for job in above
        if job.seed in ours
    }
    p = None
    if others:
        mine = np.stack([ours[seed] for seed in others])
        p = paired_bootstrap(mine, np.stack(list(others.values())))
    return Figure(
        values=values,
        mean=mean,
        sd=stdev(values) if len(values) > 1 else None,
        paper=paper,
        difference=None if paper is None else mean - paper,
        p=p,
    )


def _ratio(outcome: NDArray[np.float64]) -> float:
    return float(ratios(outcome[None], np.ones((1, len(outcome)), dtype=np.int64))[0])


def needs_reference(table: Table) -> bool:
    """Whether its measures may group posts by the r of `SOFT`."""
    return SOFT.name in table.rows and set(table.measures) != {"f1"}


def this_machine() -> dict[str, Any]:
    """What a time belongs to."""
    import torch

    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "machine": platform.machine(),
        "gpu": cuda,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "transformers": version("transformers"),
    }
