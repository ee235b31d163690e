"""`rpbert predict`: one post, a file to a file, or shards to shards."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from rpbert.cli import common
from rpbert.errors import InputError, counted, printable
from rpbert.types import ImageStatus, image_counts

if TYPE_CHECKING:
    from rpbert.batch import Job, Shard, Summary
    from rpbert.types import Prediction

PARTLY = 3
"""Exit code of a run that is done, but not with every post."""
WRITTEN = (".jsonl", ".parquet")
Text = Annotated[str | None, typer.Option(help="The text of one post.")]
Image = Annotated[str | None, typer.Option(help="The image of that post.")]
Caption = Annotated[str | None, typer.Option(help="What that image shows, if the model reads it.")]
Knowledge = Annotated[str | None, typer.Option(help="What is known, if the model reads it.")]
Source = Annotated[
    str | None,
    typer.Option(
        "--input",
        metavar="PATTERN",
        help="A file, folder or glob of .jsonl, .parquet, .tar, .conll.",
    ),
]
Output = Annotated[str | None, typer.Option(metavar="FILE|DIR/", help="A folder for shards.")]
Format = Annotated[Literal["jsonl", "parquet"] | None, typer.Option(help="Else by the suffix.")]
Faulty = Annotated[
    bool | None, typer.Option("--lenient/--strict", help="Else faulty rows are set aside.")
]
Threshold = Annotated[float, typer.Option(metavar="P", min=0, max=1, help="Least score shown.")]
Uncertain = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Also list posts to look at: a score below P or 0.5, r near 0.5 …"
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Leave finished shards as they are.")]
Part = Annotated[str, typer.Option(metavar="I/N", help="The i-th of n parts, for n machines.")]
EngineName = Annotated[Literal["local", "ray"], typer.Option(help="Or a Ray cluster.")]
Workers = Annotated[int, typer.Option(min=1, help="Models that tag at a time.")]
Gpus = Annotated[int | None, typer.Option(min=0, help="GPUs they share; 1 if there is one.")]


@dataclass(frozen=True)
class Shards:
    """The options that belong to `--input`, with their defaults."""

    output: str | None = None
    format: Literal["jsonl", "parquet"] | None = None
    lenient: bool | None = None
    resume: bool = False
    shard: str = "1/1"
    engine: str = "local"
    workers: int = 1
    gpus: int | None = None
    uncertain: Path | None = None

    @property
    def device(self) -> str | None:
        """Where a single model runs; None takes the GPU where there is one."""
        return "cpu" if self.gpus == 0 else None


def predict(
    model: common.ModelPath,
    text: Text = None,
    image: Image = None,
    caption: Caption = None,
    knowledge: Knowledge = None,
    source: Source = None,
    output: Output = None,
    format: Format = None,
    lenient: Faulty = None,
    threshold: Threshold = 0.0,
    uncertain: Uncertain = None,
    resume: Resume = False,
    shard: Part = "1/1",
    engine: EngineName = "local",
    workers: Workers = 1,
    gpus: Gpus = None,
    precision: common.Precision = "fp32",
    backend: common.Backend = "torch",
    as_json: common.Json = False,
) -> None:
    """Tag one post, a file of posts, or shards of posts to as many files.

    Exit code 3: done, but for the posts that are listed in *.errors.jsonl beside the output.
    """
    if (text is None) == (source is None):
        found = "neither --text nor --input" if text is None else "both --text and --input"
        raise InputError("predict", found, "one of them")
    shards = Shards(output, format, lenient, resume, shard, engine, workers, gpus, uncertain)
    post = {"image": image, "caption": caption, "knowledge": knowledge}
    chosen: dict[str, Any] = {"precision": precision, "backend": backend}
    if source is None:
        for name, value in vars(Shards()).items():
            if getattr(shards, name) != value:
                raise InputError(f"--{name}", "beside --text", "--input")
        _predict_one(model, {"text": text, "threshold": threshold, **post}, chosen, as_json)
        return
    for name, given in post.items():
        if given is not None:
            raise InputError(f"--{name}", "beside --input", f"--text, or `{name}` in its rows")
    chosen["threshold"] = threshold
    if not Path(source).is_file() or (output or "").endswith("/"):
        _predict_shards(model, source, shards, chosen, as_json)
        return
    if (resume, shard, engine, workers) != (False, "1/1", "local", 1):
        hint = "end --output with / to write shards into that folder"
        raise InputError("predict", "options of shards for one file", "a folder", hint)
    _predict_file(model, source, shards, chosen, as_json)


def _predict_one(model: str, post: dict[str, Any], chosen: dict[str, Any], as_json: bool) -> None:
    image = post["image"] or ""
    if image and not Path(image).is_file():
        expected = "an image file" + ("; addresses are not fetched" if "://" in image else "")
        raise InputError("--image", f"no file {image}", expected)
    from rpbert.evidence.texts import need_kind
    from rpbert.inference import Tagger

    tagger = Tagger.from_pretrained(model, **chosen)
    for name, kind in (("caption", "captions"), ("knowledge", "knowledge")):
        if post[name] is not None:
            need_kind(tagger.model.options.evidence, kind, f"--{name}")
    from rpbert.cli.show import print_prediction

    common.print_result(tagger.predict(**post).to_dict(), as_json, print_prediction)


def _predict_file(
    model: str, source: str, shards: Shards, chosen: dict[str, Any], as_json: bool
) -> None:
    """Tag one file to another, whole or not at all, or to standard output as it goes."""
    from rpbert.batch import Shard, Summary, Tally
    from rpbert.batch.output import Output as Rows
    from rpbert.batch.output import json_rows, opened
    from rpbert.batch.run import loaded, tag_into
    from rpbert.storage.writing import bytes_written_whole

    printed = shards.output in (None, "-")
    shard = Shard(Path(source), Path(shards.output or "-"))
    _check_names(shard, shards.format, printed)
    aside = shards.uncertain
    if aside and aside.resolve() in (shard.source.resolve(), shard.output.resolve()):
        raise InputError(f"--uncertain {aside}", "a file that is read or written", "another file")
    suffix = "parquet" if shard.output.suffix == ".parquet" else "jsonl"
    job = _job(model, shards, chosen, shards.format or suffix, shards.lenient is not False)
    tagger = loaded(job, shards.device)
    held: list[dict[str, Any]] = []
    with ExitStack() as files:
        if printed:
            write = held.append if as_json else files.enter_context(json_rows(sys.stdout.buffer))
            out = Rows(shard.source, write, lambda: sys.stderr)
        else:
            out = files.enter_context(opened(shard, job.format))
        if aside:
            doubtful = files.enter_context(
                json_rows(files.enter_context(bytes_written_whole(aside)))
            )

        def look(prediction: Prediction) -> None:
            if aside and (reasons := prediction.doubts(job.threshold or 0.5)):
                doubtful({**prediction.to_dict(), "reasons": reasons})

        for _ in tag_into(tagger, job, shard, out, look):
            pass
        if out.tally == Tally():
            raise InputError(shard.source, "no rows", "a row a post")
    summary = Summary(shards=1)
    summary.add(shard, out.tally)
    result = held if printed else {"output": str(shard.output), **summary.to_dict()}
    _finish(summary, result, "above" if printed else f"in {shard.errors}", as_json)


def _check_names(shard: Shard, format: str | None, printed: bool) -> None:
    """Check that a file can be read and another written, before the model is loaded."""
    from rpbert.data.readers import FILES

    source, output = shard.source, shard.output
    if source.suffix not in FILES:
        found = f"a file that ends in {source.suffix!r}"
        raise InputError(source, found, f"one of {', '.join(FILES)}")
    if printed:
        return
    # With --format any name will do, but not one that says another format.
    good = output.suffix in ("", *WRITTEN) if format is None else output.suffix not in WRITTEN
    if not good and output.suffix != f".{format}":
        where = f"--output {output}" + (f" --format {format}" if format else "")
        raise InputError(where, f"{output.suffix!r}", " or ".join(WRITTEN), "or another --format")
    if output.is_dir():
        hint = "end it with / to write into it"
        raise InputError(output, "a folder", "a file that can be written", hint)
    for written in (output, shard.errors):
        if written.exists() and written.samefile(source):
            found = f"{source}, which is read and would be written over"
            raise InputError(f"--output {output}", found, "another file")


def _predict_shards(
    model: str, source: str, shards: Shards, chosen: dict[str, Any], as_json: bool
) -> None:
    """Tag shards to as many files of a folder."""
    from rpbert.batch.plan import divide, find, plan
    from rpbert.batch.run import set_aside, tag, tag_locally, watched
    from rpbert.stopping import StopSignals

    if shards.engine == "local" and shards.workers > 1:
        hint = "give --engine ray, or --shard i/n in n processes"
        raise InputError("--workers", f"{shards.workers} with --engine local", "1", hint)
    base, sources = find(source)  # before PyTorch is loaded, which takes longer
    if shards.uncertain is not None:
        raise InputError("--uncertain", "beside shards", "one file as --input and --output")
    if shards.output in (None, "-"):
        raise InputError("--output", "nothing", "a folder for the predictions of the shards")
    output = Path(shards.output or "")
    if output.suffix in WRITTEN and not (shards.output or "").endswith("/") and not output.is_dir():
        found = f"{len(sources):,} shards and the name of a file, {output}"
        raise InputError("--output", found, "a folder", "end it with / if it is one")
    format = shards.format or "jsonl"
    parts = divide(plan(base, sources, output, format), shards.shard)
    engine = partial(tag_locally, device=shards.device)
    if shards.engine == "ray":
        from rpbert.batch.ray_engine import tag_on_ray

        engine = partial(tag_on_ray, workers=shards.workers, gpus=shards.gpus)
    job = _job(model, shards, chosen, format, shards.lenient is not False)
    try:
        with StopSignals():
            summary, waiting = set_aside(job, parts, resume=shards.resume)
            with watched(waiting) as tell:
                tag(job, waiting, engine, summary, tell)
    except KeyboardInterrupt:
        common.stopped(*(word for word in sys.argv[1:] if word != "--resume"), "--resume")
    result = {"output": str(output), **summary.to_dict()}
    _finish(summary, result, f"in {output}/*.errors.jsonl", as_json)


def _job(model: str, shards: Shards, chosen: dict[str, Any], format: Any, lenient: bool) -> Job:
    """What is the same for all files, once the GPUs asked for are there."""
    from torch.cuda import device_count

    from rpbert.backends import device_for, resolved
    from rpbert.batch import Job
    from rpbert.batch.plan import digest_of
    from rpbert.storage.published import model_folder

    elsewhere = shards.engine == "ray" and "RAY_ADDRESS" in os.environ  # Ray knows its GPUs
    if shards.gpus and not elsewhere and shards.gpus > device_count():
        raise InputError("--gpus", str(shards.gpus), f"at most {device_count()}, as there are here")
    on_gpu = shards.engine == "ray" and shards.gpus
    device = "cuda" if on_gpu else device_for(chosen["backend"], shards.device)
    precision = resolved(chosen["precision"], device)
    folder = model_folder(model)
    given = {**chosen, "precision": precision, "format": format, "lenient": lenient}
    return Job(folder, digest_of(folder), **given)


def _finish(summary: Summary, result: Any, faults: str, as_json: bool) -> None:
    """Report the counts, and exit with `PARTLY` if a post failed."""
    before = f" ({summary.skipped:,} finished before)" if summary.skipped else ""
    shards = counted(summary.shards + summary.skipped, "shard")
    images = image_counts(summary.images, get_args(ImageStatus))
    common.progress(f"{shards}{before}, {counted(summary.rows, 'post')}; images: {images}")
    if summary.errors:
        common.progress(f"{counted(summary.errors, 'post')} failed; the reasons are {faults}")
    for name, reason in [*summary.broken.items(), *summary.lost.items()]:
        common.progress(printable(f"not whole: {name}: {reason}; shards take --resume"))
    common.print_result(result, as_json, lambda _: None)
    if not summary.whole:
        raise typer.Exit(PARTLY)
