"""`rpbert analyze`, `reproduce`, `export` and `benchmark`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from rpbert.cli import common
from rpbert.errors import InputError

PRECISIONS = ("fp32", "bf16")


def analyze(
    model: common.ModelPath,
    data: Annotated[Path, typer.Argument(metavar="DATA")],
    output: common.Output,
    against: Annotated[str | None, typer.Option(metavar="MODEL", help="Compare with it.")] = None,
    split: common.Split = None,
    posts: Annotated[int, typer.Option(metavar="N", help="Most posts in the report.")] = 200,
    as_json: common.Json = False,
) -> None:
    """Show what a model looks at: relation score against S_TV, heat maps, one HTML report."""
    from rich.console import Console
    from rich.progress import SpinnerColumn, TextColumn

    from rpbert.analysis.run import analyze as run
    from rpbert.cli.show import print_analysis
    from rpbert.training.progress import bar

    columns = (SpinnerColumn(), TextColumn("{task.completed:,} posts"))
    with bar(Console(stderr=True), *columns) as shown:
        task = shown.add_task("posts", total=None)
        found = run(model, data, output, against, split, posts, lambda n: shown.advance(task, n))
    files = [str(found.report), *map(str, found.files)]
    common.print_result({**found.summary.to_dict(), "files": files}, as_json, print_analysis)


def reproduce(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="table3 … table6, fig3, or gates.")],
    data: Annotated[list[Path], typer.Argument(metavar="DATA", help="Data folders.")],
    output: common.Output,
    seeds: Annotated[int, typer.Option(metavar="N", min=1, help="Runs of each row.")] = 3,
    config: Annotated[
        str | None, typer.Option(metavar="FILE", help="What all rows share; else Table 2.")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Changes --config.")
    ] = None,
    relations: Annotated[
        Path | None, typer.Option(metavar="DATA", help="Task#1's posts, such as TRC.")
    ] = None,
    only: Annotated[str | None, typer.Option(metavar="ROW,...", help="These rows alone.")] = None,
    posts: Annotated[int | None, typer.Option(min=1, help="At most so many of a split.")] = None,
    by: Annotated[
        Literal["classifier", "labels"] | None,
        typer.Option(help="What tells posts whose image adds.", show_default="as the table"),
    ] = None,
    as_json: common.Json = False,
) -> None:
    """Train and score every row of a table; stopped, it resumes."""
    for path in (*data, *([relations] if relations else [])):
        if not path.is_dir():
            raise InputError(path, "no such folder", "a data folder with train, dev and test")
    from rpbert.reproduce.make import Request
    from rpbert.reproduce.make import reproduce as run
    from rpbert.reproduce.settings import load_shared
    from rpbert.reproduce.table import render

    rows = [name.strip() for name in only.split(",") if name.strip()] if only else []
    shared = load_shared(config, changes or ())
    request = Request(table, data, output, shared, seeds, relations, rows, posts, by)
    try:
        result = run(request, common.progress)
    except KeyboardInterrupt:
        common.stopped(*sys.argv[1:])
    common.print_result(result.to_dict(), as_json, lambda _: print(render(result), end=""))
    chosen = [row for found in result.data for row in found.rows if not rows or row.row in rows]
    reasons = [row.skip_reason for row in chosen]
    if all(reasons):
        raise InputError(table, "no row that could run", "one at least", reasons[0])


def export(
    model: common.ModelPath,
    to: Annotated[Literal["openvino", "onnx"], typer.Option(help="The engine that will run it.")],
    output: common.Output,
    data: Annotated[
        Path | None, typer.Option(metavar="DATA", help="Posts to check it with, not made ones.")
    ] = None,
    precision: Annotated[
        Literal["fp32", "int8"], typer.Option(help="int8: openvino; scaled by 300 posts of DATA.")
    ] = "fp32",
    as_json: common.Json = False,
) -> None:
    """Write a model for another engine, and compare what it computes with PyTorch."""
    from itertools import islice

    from rpbert.backends.engines import export as run
    from rpbert.benchmark import Work
    from rpbert.data.readers import open_data
    from rpbert.data.words import SPLITTERS
    from rpbert.evaluation.evaluate import evaluate_posts
    from rpbert.inference import Tagger
    from rpbert.models.saved import TaggingModel
    from rpbert.storage.published import model_folder
    from rpbert.types import Post

    if precision == "int8" and (to != "openvino" or data is None):
        given = f"--to {to}{'' if data else ' without --data'}"
        raise InputError("--precision int8", given, "--to openvino and --data DATA")
    loaded, posts = TaggingModel.load(model_folder(model)), Work(size="tiny").given(0, 8)
    scaling: list[Post] = []
    if data is not None:
        source = open_data(data, SPLITTERS[loaded.vocabulary.marks])
        posts = list(islice(source.read(source.splits[-1]), 32 if precision == "fp32" else None))
        scaling = list(islice(source.read(source.splits[0]), 300)) if precision == "int8" else []
    differences = run(loaded, to, output, posts[:32], scaling)
    lines = [f"{name}: at most {gap:.1e} from PyTorch" for name, gap in differences.items()]
    found: dict[str, Any] = {"output": str(output), "posts": len(posts)}
    found["differences"] = differences
    if scaling and loaded.system.tags_words and all(post.tags is not None for post in posts):
        taggers = Tagger(loaded, "cpu"), Tagger.from_pretrained(output, backend=to)
        scores = [evaluate_posts(tagger, posts).tags for tagger in taggers]
        before, after = found["f1"] = [tags.strict.f1 for tags in scores if tags is not None]
        lines.append(f"strict F1 {100 * before:.2f} by torch, {100 * after:.2f} in int8")
    common.print_result(found, as_json, lambda _: print("\n".join([*lines, str(output)])))


def benchmark(
    system: Annotated[
        Literal["rpbert", "bert"], typer.Option(help="With pictures, or the text alone.")
    ] = "rpbert",
    size: Annotated[
        Literal["published", "tiny"], typer.Option(help="BERT-base and ResNet-152, or small.")
    ] = "published",
    precision: Annotated[str | None, typer.Option(metavar="P,P…", help="Else both.")] = None,
    backend: common.Backend = "torch",
    batch: Annotated[int, typer.Option(min=1, help="Posts in a batch.")] = 8,
    posts: Annotated[int, typer.Option(min=1, help="Posts tagged in a repeat.")] = 64,
    repeats: Annotated[int, typer.Option(min=1)] = 5,
    threads: Annotated[int | None, typer.Option(min=1, show_default="PyTorch's choice")] = None,
    device: Literal["cpu", "cuda"] = "cpu",
    training: Annotated[bool, typer.Option(help="Also measure training.")] = True,
    moments: Annotated[Literal["task", "shared"], typer.Option(help="As training.moments.")] = (
        "task"
    ),
    growth: Annotated[bool, typer.Option(help="Also let batch, length and number grow.")] = True,
    as_json: common.Json = False,
) -> None:
    """Throughput, latency and memory of training and inference: made posts, random weights."""
    from rpbert.benchmark import Work, run
    from rpbert.cli.show import benchmark_table

    names: list[Any] = precision.split(",") if precision else [*PRECISIONS]
    for name in names:
        if name not in PRECISIONS:
            raise InputError("--precision", name, ", ".join(PRECISIONS))
    work = Work(system, size, batch, posts, repeats, threads, device, backend)
    parts = {"training": training, "growth": growth}
    found = run(work, names, common.progress, moments=moments, **parts)
    common.print_result(found, as_json, lambda _: print("\n".join(benchmark_table(found))))
