"""`rpbert predict --input`: a file to a file, or shards to shards."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from rpbert.cli.common import print_json, stopped
from rpbert.errors import InputError, counted, printable

if TYPE_CHECKING:
    from rpbert.batch import Engine, Format, Summary
    from rpbert.config.run import Backend, Precision

PARTLY = 3
"""Exit code of a run that is done, but not with every post."""
WRITTEN = (".jsonl", ".parquet")
_IMAGES = ("used", "none", "missing", "unreadable")


@dataclass(frozen=True)
class Shards:
    """What the command line says; see `rpbert predict --help`."""

    model: str
    source: str
    output: str | None
    format: Format
    format_by_name: bool
    lenient: bool
    resume: bool
    shard: str
    engine: Literal["local", "ray"]
    workers: int
    gpus: int | None
    precision: Precision
    captioner: str | None
    ocr: bool
    backend: Backend

    @property
    def device(self) -> str | None:
        """Where a single model runs; None takes the GPU where there is one."""
        return "cpu" if self.gpus == 0 else None


def predict_file(given: Shards, *, as_json: bool) -> None:
    """Tag one file to another, whole or not at all, or to standard output as it goes."""
    from rpbert.batch import Job, Shard
    from rpbert.batch.finished import digest_of
    from rpbert.batch.output import Output, json_rows, opened
    from rpbert.batch.run import loaded, tag_into
    from rpbert.data.readers import SUFFIXES
    from rpbert.inference import model_folder

    _check(given)
    printed = given.output in (None, "-")
    shard = Shard(Path(given.source), Path(given.output or "-"))
    if shard.source.suffix not in SUFFIXES:  # before the model is loaded, which takes longer
        found = f"a file that ends in {shard.source.suffix!r}"
        raise InputError(shard.source, found, f"one of {', '.join(SUFFIXES)}")
    if not printed and shard.output.suffix in {*WRITTEN} - {f".{given.format}"}:
        found = f"{given.format} beside --output {shard.output}"
        raise InputError("--format", found, "that of the name", "leave out one of the two")
    if not printed and given.format_by_name and shard.output.suffix not in ("", *WRITTEN):
        found = f"a name that ends in {shard.output.suffix!r}"
        raise InputError(f"--output {shard.output}", found, " or ".join(WRITTEN), "or say --format")
    if not printed and shard.output.is_dir():
        hint = "end it with / to write into it"
        raise InputError(shard.output, "a folder", "a file that can be written", hint)
    for written in (shard.output, shard.errors):
        if not printed and written.exists() and written.samefile(shard.source):
            found = f"{shard.source}, which is read and would be written over"
            raise InputError(f"--output {shard.output}", found, "another file")
    _check_gpus(given)
    model = model_folder(given.model)
    job = Job(
        model,
        digest_of(model),
        given.format,
        given.precision,
        lenient=given.lenient,
        captioner=given.captioner,
        ocr=given.ocr,
        backend=given.backend,
    )
    tagger = loaded(job, given.device)
    held: list[dict[str, Any]] = []
    with ExitStack() as files:
        if printed:
            write = held.append if as_json else files.enter_context(json_rows(sys.stdout.buffer))
            out = Output(shard.source, write, lambda: sys.stderr)
        else:
            out = files.enter_context(opened(shard, job.format))
        for _ in tag_into(tagger, job, shard, out):
            pass
        tally = out.tally
        if not (tally.rows or tally.errors or tally.broken):
            raise InputError(shard.source, "no rows", "a row a post")
    if as_json and printed:
        print_json(held)
    elif as_json:
        counts = {"posts": tally.rows, **tally.images, "failed": tally.errors}
        print_json({"output": str(shard.output), **counts})
    images = ", ".join(f"{tally.images[key]:,} {key}" for key in _IMAGES)
    print(f"{counted(tally.rows, 'post')}; images: {images}", file=sys.stderr)
    if tally.errors or tally.broken:
        where = "above" if printed else f"in {shard.errors}"
        line = f"{counted(tally.errors, 'post')} failed, as told {where}. {tally.broken}"
        print(line, file=sys.stderr)
        raise typer.Exit(PARTLY)


def predict_shards(given: Shards, *, as_json: bool) -> None:
    """Tag shards, say what came of it, and exit with `PARTLY` if a post failed."""
    from rpbert.batch import Job
    from rpbert.batch.finished import digest_of
    from rpbert.batch.plan import divide, find, plan
    from rpbert.batch.run import set_aside, tag
    from rpbert.batch.watch import watched
    from rpbert.stopping import StopSignals

    _check(given)
    base, sources = find(given.source)  # before PyTorch is loaded, which takes longer
    if given.output in (None, "-"):
        raise InputError("--output", "nothing", "a folder for the predictions of the shards")
    output = Path(given.output or "")
    if output.suffix in WRITTEN and not (given.output or "").endswith("/") and not output.is_dir():
        found = f"{len(sources):,} shards and the name of a file, {output}"
        raise InputError("--output", found, "a folder", "end it with / if it is one")
    shards = divide(plan(base, sources, output, given.format), given.shard)
    engine = _engine(given)
    from rpbert.backends import resolved
    from rpbert.inference import best_device, model_folder

    _check_gpus(given)
    model = model_folder(given.model)
    device = "cuda" if given.engine == "ray" and given.gpus else given.device
    precision = resolved(given.precision, device or best_device())
    job = Job(
        model,
        digest_of(model),
        given.format,
        precision,
        lenient=given.lenient,
        captioner=given.captioner,
        ocr=given.ocr,
        backend=given.backend,
    )
    try:
        with StopSignals():
            summary, waiting = set_aside(job, shards, resume=given.resume)
            with watched(waiting) as tell:
                tag(job, waiting, engine, summary, tell)
    except KeyboardInterrupt:
        again = [word for word in sys.argv[1:] if word != "--resume"]
        stopped(*again, "--resume")
    _say(summary, output)
    if as_json:
        print_json({"output": str(output), **summary.to_dict()})
    if not summary.whole:
        raise typer.Exit(PARTLY)


def _check(given: Shards) -> None:
    """See that the numbers may be what they are."""
    if given.workers < 1:
        raise InputError("--workers", str(given.workers), "1 or more")
    if given.engine == "local" and given.workers > 1:
        hint = "give --engine ray, or --shard i/n in n processes"
        raise InputError("--workers", f"{given.workers} with --engine local", "1", hint)
    if given.gpus is not None and given.gpus < 0:
        raise InputError("--gpus", str(given.gpus), "0 or more")


def _check_gpus(given: Shards) -> None:
    """See that there are so many GPUs; what a cluster has, Ray knows."""
    from torch.cuda import device_count

    elsewhere = given.engine == "ray" and "RAY_ADDRESS" in os.environ
    if given.gpus and not elsewhere and given.gpus > device_count():
        raise InputError("--gpus", str(given.gpus), f"at most the {device_count()} of this machine")


def _engine(given: Shards) -> Engine:
    if given.engine == "ray":
        from rpbert.batch.ray_engine import tag_on_ray

        return partial(tag_on_ray, workers=given.workers, gpus=given.gpus)
    from rpbert.batch.run import tag_locally

    return partial(tag_locally, device=given.device)


def _say(summary: Summary, output: Path) -> None:
    before = f" ({summary.skipped:,} finished before)" if summary.skipped else ""
    shards = summary.shards + summary.skipped
    images = ", ".join(f"{summary.images[key]:,} {key}" for key in _IMAGES)
    print(
        f"{counted(shards, 'shard')}{before}, {counted(summary.rows, 'post')}; images: {images}",
        file=sys.stderr,
    )
    if summary.errors:
        where = f"{output}/*.errors.jsonl"
        print(
            f"{counted(summary.errors, 'post')} failed: the reasons are in {where}", file=sys.stderr
        )
    for name, reason in [*summary.broken.items(), *summary.lost.items()]:
        line = f"not whole: {name}: {reason}; --resume tries it again"
        print(printable(line), file=sys.stderr)
