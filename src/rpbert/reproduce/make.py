"""From a table's name and data sets to the table: plans its runs, runs them, writes the table."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from rpbert.data.labels import strict_spans
from rpbert.data.readers import open_data
from rpbert.errors import InputError, did_you_mean
from rpbert.reproduce.rows import (
    ATTENTION,
    ORACLE,
    ROWS,
    SOFT,
    TABLES,
    TRC,
    Grouping,
    Row,
    Table,
    paper_set,
)
from rpbert.reproduce.runs import Run
from rpbert.reproduce.settings import CannotRun, SharedSettings, run_settings
from rpbert.reproduce.table import (
    DataResult,
    RowResult,
    TableResult,
    render,
    row_result,
    this_machine,
)
from rpbert.storage.writing import check_writable, written_whole
from rpbert.training.train import complete_settings
from rpbert.types import Post


@dataclass(frozen=True)
class Request:
    """What is to be reproduced."""

    table: str
    data: Sequence[Path]  # folders with train, dev and test splits
    output: Path
    shared: SharedSettings
    seeds: int = 1
    relations: Path | None = None  # Task#1's posts where `data` has none; Table 3's test posts too
    only: Sequence[str] = ()  # names of the rows that are run; empty for all
    posts: int | None = None  # for a quick pass, in place of all
    by: Grouping | None = None  # in place of what the table says


@dataclass
class DataSet:
    """The posts of one data set, its runs by row, and why rows are skipped."""

    path: Path
    train: Sequence[Post]
    test: Sequence[Post]
    runs: dict[str, list[Run]] = field(default_factory=dict)
    skip: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    def done(self, row: str) -> list[Run]:
        """The finished runs of a row."""
        return [run for run in self.runs.get(row, ()) if run.done]


def reproduce(request: Request, note: Callable[[str], None]) -> TableResult:
    """Do the runs that are missing, and write DIR/TABLE.md and .json from all that are done.
    `note` takes each line of progress. Raises InputError: the request names what is not there, or
    DIR holds runs of other settings; KeyboardInterrupt: stopped, and the same request resumes."""
    table = _table(request)
    check_writable(request.output, "DIR")
    sets = [_opened(request, table, path) for path in request.data]
    for data in sets:
        for name in table.rows:
            _plan(request, table, data, ROWS[name])
        for name, reason in data.skip.items():
            if not request.only or name in request.only:
                note(f"{data.name}, {name}: cannot run: {reason}")
    runs = [
        (run, data)
        for data in sets
        for row, each in data.runs.items()
        for run in each
        if not request.only or row in request.only
    ]
    for run, data in runs:
        run.check(data.test)
    if request.by == "labels" and (bare := [d for d in sets if not _labels(d.test)]):
        raise InputError("--by", f"labels, and {bare[0].path} has none", "--by classifier")
    note(f"{len(runs):,} runs, {sum(run.done for run, _ in runs):,} of them done")
    try:
        # Seed by seed, so that a table stopped halfway has all its rows.
        for run, data in sorted(runs, key=lambda pair: pair[0].seed):
            _run(run, data, note)
    finally:
        result = TableResult(
            table=table.name,
            title=table.title,
            measures=table.measures,
            data=[_data_result(request, table, data) for data in sets],
            machine=this_machine(),
            settings=request.shared.model_dump(mode="json"),
        )
        request.output.mkdir(parents=True, exist_ok=True)
        with written_whole(request.output / f"{table.name}.md") as file:
            file.write(render(result))
        with written_whole(request.output / f"{table.name}.json") as file:
            file.write(json.dumps(result.to_dict(), ensure_ascii=False, indent=1) + "\n")
    return result


def _table(request: Request) -> Table:
    if request.table not in TABLES:
        hint = did_you_mean(request.table, TABLES)
        raise InputError("TABLE", request.table, f"one of {', '.join(TABLES)}", hint)
    table = TABLES[request.table]
    if unknown := [name for name in request.only if name not in table.rows]:
        hint = did_you_mean(unknown[0], table.rows)
        raise InputError("--only", unknown[0], f"some of {', '.join(table.rows)}", hint)
    names = [path.resolve().name for path in request.data]
    if len(set(names)) < len(names):
        raise InputError("DATA", f"two folders named {names[0]}", "folders of different names")
    return replace(table, by=request.by or table.by)


def _opened(request: Request, table: Table, path: Path) -> DataSet:
    """The posts of a data set; Table 3 is scored on those that have relation labels."""
    source = open_data(path)
    train = list(islice(source.read("train"), request.posts))
    if table.name == "table3" and request.relations is not None:
        source = open_data(request.relations)
    return DataSet(path, train, list(islice(source.read("test"), request.posts)))


def _plan(request: Request, table: Table, data: DataSet, row: Row) -> None:
    """The runs of a row, or why it is skipped."""
    if split := _unlabelled(request, table, data, row):
        data.skip[row.name] = f"no relation labels in the {split} split"
        return
    block = {"path": data.path, "relations": request.relations, "posts": request.posts}
    attention = bool(ATTENTION & set(table.measures))
    test, scores = data.path, "attention.json" if attention else "test.json"
    if table.name == "table3" and request.relations is not None:
        test, scores = request.relations, "relations.json"
    planned = []
    for seed in range(request.seeds):
        try:
            settings = run_settings(row, request.shared, block, data.train, {"seed": seed})
        except CannotRun as reason:
            data.skip[row.name] = str(reason)
            return
        complete_settings(settings)  # a mistake in them shows before anything runs
        folder = request.output / "runs" / data.name / row.name / f"seed-{seed}"
        planned.append(Run(row, data.name, seed, settings, folder, test, scores))
    data.runs[row.name] = planned


def _unlabelled(request: Request, table: Table, data: DataSet, row: Row) -> str:
    """The split whose missing relation labels keep a row from being what its name says."""
    if table.name == "table3" or row == ORACLE:
        return "" if _labels(data.test) else "test"
    if table.name == "gates" and row == SOFT and request.relations is None:
        return "" if _labels(data.train) else "training"  # it would be the row of exchanged images
    return ""


def _labels(posts: Sequence[Post]) -> int:
    """How many posts have a relation."""
    return sum(post.relation is not None for post in posts)


def _run(run: Run, data: DataSet, note: Callable[[str], None]) -> None:
    if run.row.name in data.skip:  # another seed of it failed
        return
    if run.trained is None:
        note(f"{run.data}, {run.row.name}, seed {run.seed}")
    try:
        run.run()
    except InputError as fault:
        data.skip[run.row.name] = str(fault)
        note(f"{data.name}, {run.row.name}: cannot run: {fault}")


def _data_result(request: Request, table: Table, data: DataSet) -> DataResult:
    known = paper_set(data.path) if table.paper else None
    if table.name == "table3":
        known = TRC if paper_set(request.relations or data.path) == TRC else None
    grouped = set(table.measures) & {"adds", "does_not", *ATTENTION}
    references = {run.seed: run.finished() for run in data.done(SOFT.name)} if grouped else {}
    rows: list[RowResult] = []
    for row in (ROWS[name] for name in table.rows):
        if done := data.done(row.name):
            compared = data.done(table.against.get(row.name, ""))
            rows.append(row_result(table, row, done, compared, references, known))
        else:
            reason = data.skip.get(row.name, "not yet")
            rows.append(RowResult(row.name, row.label, row.system, reason))
    labelled = _labels(data.test) if table.by == "labels" else 0
    groups = f"the labels of {labelled:,}" if labelled else "the r of rpbert-soft"
    return DataResult(
        name=data.name,
        paper_set=known,
        train=len(data.train),
        test=len(data.test),
        support=sum(len(strict_spans(post.tags or ())) for post in data.test),
        groups=groups if grouped and (labelled or references) else "",
        rows=rows,
    )
