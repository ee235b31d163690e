"""From a table's name and data sets to the table: plans its runs, runs them, puts it together."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from rpbert.data.labels import strict_spans
from rpbert.data.readers import open_data
from rpbert.errors import InputError, did_you_mean
from rpbert.reproduce.markdown import render
from rpbert.reproduce.plot import plot, plot_attention
from rpbert.reproduce.result import (
    DataResult,
    RowResult,
    TableResult,
    needs_reference,
    row_result,
    this_machine,
)
from rpbert.reproduce.rows import ORACLE, ROWS, SOFT, TABLES, TRC, Row, Table, paper_set
from rpbert.reproduce.running import Job, probe
from rpbert.reproduce.settings import CannotRun, SharedSettings, run_settings
from rpbert.storage.writing import check_writable, written_whole
from rpbert.training.train import complete_settings
from rpbert.types import Post

Note = Callable[[str], None]
PROBED_BATCHES = 8


@dataclass(frozen=True)
class Request:
    """What is to be reproduced.

    Attributes:
        data: data folders, each with train, dev and test splits.
        relations: Task#1's posts apart from `data`, and then Table 3's test posts too.
        only: names of rows; empty for all.
        epochs, posts: for a quick pass, in place of the settings' and of all posts.
    """

    table: str
    data: Sequence[Path]
    output: Path
    shared: SharedSettings
    seeds: int = 1
    relations: Path | None = None
    only: Sequence[str] = ()
    epochs: int | None = None
    posts: int | None = None


@dataclass
class DataSet:
    """The posts of one data set, its jobs by row, and why rows cannot run."""

    path: Path
    train: Sequence[Post]
    test: Sequence[Post]
    jobs: dict[str, list[Job]] = field(default_factory=dict)
    done: dict[str, list[Job]] = field(default_factory=dict)
    why_not: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name


def reproduce(request: Request, note: Note) -> TableResult:
    """Run what is not done yet of a table, and write DIR/TABLE.md, .json and .png.

    Those of some of its rows (`Request.only`) are DIR/TABLE.part.md and so on.

    Args:
        note: told how it goes, a line at a time.

    Raises:
        InputError: the request names what is not there, DIR cannot be written, or holds runs of
            other settings.
        KeyboardInterrupt: stopped; the same request goes on from there.
    """
    table, rows = _chosen(request)
    check_writable(request.output, "DIR")
    sets = [_opened(request, table, path) for path in request.data]
    for data in sets:
        for row in rows:
            _plan(request, table, data, row)
    jobs = [job for data in sets for row in data.jobs.values() for job in row]
    for data in sets:
        for job in (job for row in data.jobs.values() for job in row):
            job.check(data.test)
    for data in sets:
        for name, reason in data.why_not.items():
            note(f"{data.name}, {name}: cannot run: {reason}")
    _estimate(sets, jobs, note)
    try:
        # Seed by seed, so that a table stopped halfway has all its rows.
        for job in sorted(jobs, key=lambda job: job.seed):
            data = next(data for data in sets if data.name == job.data)
            if job.row.name not in data.why_not:
                _run(job, data, note)
    finally:
        result = _result(request, table, rows, sets)
        _write(request, result)
    drawing = request.output / f"{_stem(request)}.png"
    if table.name == "fig3":
        plot_attention(_attention(rows, sets), drawing)
    else:
        plot(result, drawing)
    return result


def _attention(
    rows: Sequence[Row], sets: Sequence[DataSet]
) -> dict[str, list[tuple[float, float]]]:
    """r of RpBERT and S_TV / words of each post of every seed, for each row on each data set."""
    panels: dict[str, list[tuple[float, float]]] = {}
    for data in sets:
        seen = {job.seed: job.finished().relation for job in data.done.get(SOFT.name, ())}
        for row in rows:
            for job in data.done.get(row.name, ()):
                pairs = zip(seen.get(job.seed, ()), job.finished().s_tv, strict=False)
                known = [(r, s_tv) for r, s_tv in pairs if r is not None and s_tv is not None]
                panels.setdefault(f"{data.name}: {row.label}", []).extend(known)
    return panels


def _chosen(request: Request) -> tuple[Table, list[Row]]:
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
    return table, [ROWS[name] for name in table.rows if not request.only or name in request.only]


def _opened(request: Request, table: Table, path: Path) -> DataSet:
    """The posts of a data set; Table 3 is scored on those that have relation labels."""
    source = open_data(path)
    train = list(islice(source.read("train"), request.posts))
    scored = source
    if table.name == "table3" and request.relations is not None:
        scored = open_data(request.relations)
    return DataSet(path, train, list(islice(scored.read("test"), request.posts)))


def _plan(request: Request, table: Table, data: DataSet, row: Row) -> None:
    """The jobs of a row, or why there are none."""
    block = {"path": data.path, "relations": request.relations, "posts": request.posts}
    relations = table.name == "table3"
    if split := _unlabelled(request, table, data, row):
        data.why_not[row.name] = f"no relation labels in the {split} split"
        return
    for seed in range(request.seeds):
        changes: dict[str, Any] = {"seed": seed}
        if request.epochs is not None:
            changes["epochs"] = request.epochs
        try:
            settings = run_settings(row, request.shared, block, data.train, changes)
        except CannotRun as reason:
            data.why_not[row.name] = str(reason)
            return
        complete_settings(settings)  # a slip in them shows before anything runs
        apart = request.relations if relations else None
        attention = table.name == "fig3"
        job = Job(
            row=row,
            data=data.name,
            seed=seed,
            settings=settings,
            folder=request.output / "runs" / data.name / row.name / f"seed-{seed}",
            posts=len(data.train),
            test=apart or data.path,
            scores="relations.json" if apart else "attention.json" if attention else "test.json",
            attention=attention,
        )
        data.jobs.setdefault(row.name, []).append(job)


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


def _estimate(sets: Sequence[DataSet], jobs: Sequence[Job], note: Note) -> None:
    """Say how long the runs that are not done will take."""
    left = [job for job in jobs if job.trained is None]
    note(f"{len(jobs):,} runs, {len(jobs) - len(left):,} of them done")
    seconds = {
        (job.data, job.row.name): float(job.trained["seconds"]) for job in jobs if job.trained
    }
    judged: list[float] = []
    failed: set[tuple[str, str]] = set()
    probed = 0
    for job in left:
        key = (job.data, job.row.name)
        data = next(data for data in sets if data.name == job.data)
        if job.row.name in data.why_not or key in failed:
            continue
        if key not in seconds:
            posts = PROBED_BATCHES * job.settings.training.batch_size
            if job.posts <= 2 * posts:
                continue  # as short as a probe
            note(f"{job.data}, {job.row.name}: a short run to judge the time")
            try:
                seconds[key] = probe(job, posts)
            except InputError as fault:
                # Maybe of its few posts alone: the run itself will say.
                note(f"{job.data}, {job.row.name}: the short run failed: {fault}")
                failed.add(key)
                continue
            probed += 1
        judged.append(seconds[key])
    if judged:
        how = f"judged by finished runs and a probe of {probed}" if probed else "as runs before"
        note(f"about {duration(sum(judged))} to train, {how}")


def duration(seconds: float) -> str:
    """A time a person can plan with."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _run(job: Job, data: DataSet, note: Note) -> None:
    if job.trained is None:
        note(f"{job.data}, {job.row.name}, seed {job.seed}")
    try:
        job.run()
    except InputError as fault:
        _give_up(data, job, fault, note)
    else:
        data.done.setdefault(job.row.name, []).append(job)


def _give_up(data: DataSet, job: Job, fault: InputError, note: Note) -> None:
    data.why_not[job.row.name] = str(fault)
    note(f"{data.name}, {job.row.name}: cannot run: {fault}")


def _result(
    request: Request, table: Table, rows: Sequence[Row], sets: Sequence[DataSet]
) -> TableResult:
    """The table of all jobs that are done."""
    settings = request.shared.model_dump(mode="json")
    if request.epochs is not None:
        settings["training"]["epochs"] = request.epochs
    return TableResult(
        table=table.name,
        title=table.title,
        measures=table.measures,
        data=[_data_result(request, table, rows, data) for data in sets],
        machine=this_machine(),
        settings=settings,
    )


def _data_result(request: Request, table: Table, rows: Sequence[Row], data: DataSet) -> DataResult:
    known = paper_set(data.path) if table.paper else None
    if table.name == "table3":
        known = TRC if paper_set(request.relations or data.path) == TRC else None
    references = {}
    if needs_reference(table):
        references = {job.seed: job.finished() for job in data.done.get(SOFT.name, ())}
    results: list[RowResult] = []
    above: Sequence[Job] = ()
    for row in rows:
        done = data.done.get(row.name, [])
        if done:
            results.append(row_result(table, row, done, above, references, known))
            above = done
        else:
            reason = data.why_not.get(row.name, "not yet")
            results.append(RowResult(row.name, row.label, row.system, reason))
    grouped = set(table.measures) & {"adds", "does_not", "low", "high"}
    labelled = 0 if table.name == "fig3" else _labels(data.test)
    groups = ""
    if grouped and labelled:
        groups = f"the labels of {labelled:,}"
    elif grouped and references:
        groups = "the r of rpbert-soft"
    return DataResult(
        name=data.name,
        paper_set=known,
        train=len(data.train),
        test=len(data.test),
        support=sum(len(strict_spans(post.tags or ())) for post in data.test),
        groups=groups,
        rows=results,
    )


def _write(request: Request, result: TableResult) -> None:
    files: Mapping[str, str] = {
        "md": render(result),
        "json": json.dumps(result.to_dict(), ensure_ascii=False, indent=1) + "\n",
    }
    request.output.mkdir(parents=True, exist_ok=True)
    for suffix, content in files.items():
        with written_whole(request.output / f"{_stem(request)}.{suffix}") as file:
            file.write(content)


def _stem(request: Request) -> str:
    """Name of the files: some rows of a table never take the place of all."""
    return f"{request.table}.part" if request.only else request.table
