"""The command line: each command is a typed function that calls one library function.

Results go to standard output, progress to standard error. Whatever a user can mend ends with one
line on standard error and exit code 2.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from rpbert.errors import InputError

# Typer names only the leaf of its usage errors; all of them carry `format_message`.
UsageError: type[Exception] = typer.BadParameter.__bases__[0]

STOPPED = 130
"""Exit code after Ctrl-C."""

app = typer.Typer(
    name="rpbert",
    help="Named entities from social posts with images.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Check data, or make some.", rich_markup_mode=None)
app.add_typer(data_app, name="data")

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]
ModelPath = Annotated[str, typer.Argument(metavar="MODEL", help="RUN, RUN/model or a hub id.")]


def main() -> NoReturn:
    """Run a command and exit: 0 done, 2 the user can mend it, 130 stopped by the user."""
    try:
        arguments = sys.argv[1:]
        if arguments in ([], ["data"]):
            arguments.append("--help")
        # Ctrl-C comes back as a code or as an exception, as the version of Typer has it.
        code = app(arguments, standalone_mode=False)
        if code == STOPPED:
            raise KeyboardInterrupt
    except UsageError as error:
        _fail(f"{error.format_message()}  (rpbert --help shows what there is)")  # type: ignore[attr-defined]
    except InputError as error:
        _fail(str(error))
    except BrokenPipeError:  # the reader of a pipe has seen enough
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        _fail(f"{error.filename or 'system'}: {error.strerror or error}")
    except (KeyboardInterrupt, typer.Abort):
        print("rpbert: stopped", file=sys.stderr)
        sys.exit(STOPPED)
    sys.exit(0)


def _fail(line: str) -> NoReturn:
    print(f"rpbert: {' '.join(line.split())}", file=sys.stderr)
    sys.exit(2)


@app.command()
def systems(as_json: Json = False) -> None:
    """List every system with its paper, table row, evidence and parameters."""
    from rpbert.evaluation import describe_systems

    rows = describe_systems()
    if as_json:
        _print_json(rows)
        return
    from rich.table import Table

    table = Table("system", "paper", "row", "evidence", "parameters", box=None)
    for row in rows:
        table.add_row(*(str(row[key]) for key in ("name", "paper", "row", "evidence")), _count(row))
    _console().print(table)


@data_app.command("check")
def data_check(
    path: Annotated[Path, typer.Argument(metavar="PATH")], as_json: Json = False
) -> None:
    """Report what a data set holds: posts, entities, images, labels, and every quirk."""
    from rpbert.data.check import check, render

    report = check(path)
    if as_json:
        _print_json(report.to_dict())
    else:
        print(render(report))


@data_app.command("make")
def data_make(
    folder: Annotated[Path, typer.Argument(metavar="DIR")],
    posts: Annotated[int, typer.Option(help="How many posts, over all splits.")] = 3000,
    relevant: Annotated[float, typer.Option(help="Share of images that add to the text.")] = 0.44,
    ambiguous: Annotated[
        float, typer.Option(help="Share of relevant posts whose text does not tell the type.")
    ] = 0.65,
    seed: Annotated[int, typer.Option(help="Decides every post.")] = 0,
    as_json: Json = False,
) -> None:
    """Write the controlled data set: made posts, made images, known truth."""
    from rpbert.data.controlled import make

    make(folder, posts=posts, relevant=relevant, ambiguous=ambiguous, seed=seed)
    if as_json:
        _print_json({"folder": str(folder), "posts": posts})
    else:
        print(f"{posts:,} made posts in {folder}")


@app.command()
def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file of settings.")],
    output: Annotated[Path, typer.Option("--output", metavar="RUN", help="Folder of the run.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="training.epochs=3 …")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on after the last finished epoch.")] = False,
    as_json: Json = False,
) -> None:
    """Train a system and keep its best model by the development F1."""
    from rpbert.config import load_run

    settings = load_run(config, overrides or ())  # a slip in the file shows before PyTorch loads
    from rpbert.training import train as run

    try:
        result = run(settings, output, resume=resume)
    except KeyboardInterrupt:
        again = ["rpbert", "train", str(config), *(overrides or ()), "--output", str(output)]
        if (output / "config.yaml").exists():  # else nothing has begun that could go on
            again.append("--resume")
        print(f"\nto go on: {shlex.join(again)}", file=sys.stderr)
        raise
    if as_json:
        _print_json(
            {
                "model": str(result.model),
                "epoch": result.epoch,
                "dev_f1": result.f1,
                "seconds": round(result.seconds, 1),
            }
        )
    else:
        print(f"best development F1 {100 * result.f1:.2f} in epoch {result.epoch}: {result.model}")


@app.command()
def evaluate(
    model: ModelPath,
    data: Annotated[Path, typer.Argument(metavar="DATA")],
    split: Annotated[
        str | None,
        typer.Option(help="train, dev or test; all in a single file.", show_default="test"),
    ] = None,
    by: Annotated[
        str | None, typer.Option(metavar="relation|type", help="Show these groups only.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Score a model: precision, recall and F1, overall and by group."""
    from rpbert.evaluation import GROUPINGS, evaluate_model, only
    from rpbert.score_table import render

    if by is not None and by not in GROUPINGS:
        raise InputError("--by", by, " or ".join(GROUPINGS))
    evaluation = only(evaluate_model(model, data, split), by)
    if as_json:
        _print_json(evaluation.to_dict())
    else:
        print(render(evaluation))


@app.command()
def predict(
    model: ModelPath,
    text: Annotated[str | None, typer.Option(help="The text of one post.")] = None,
    image: Annotated[Path | None, typer.Option(help="The image of that post.")] = None,
    source: Annotated[
        Path | None, typer.Option("--input", metavar="FILE", help="Posts as .jsonl or .parquet.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="JSON lines; else printed.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Tag one post, or a file of posts to JSON lines."""
    if (text is None) == (source is None):
        raise InputError("predict", "both or neither of --text and --input", "one of them")
    if image is not None and source is not None:
        raise InputError("--image", "beside --input", "--text, or `image` in the rows of the file")
    if output is not None and source is None:
        raise InputError("--output", "beside --text", "--input")
    if image is not None and not image.is_file():
        raise InputError("--image", f"no file {image}", "an image file")
    if source is not None:
        _predict_file(model, source, output, as_json)
        return
    from rpbert.inference import Tagger

    prediction = Tagger.from_pretrained(model).predict(str(text), image=image)
    if as_json:
        _print_json(prediction.to_dict())
    else:
        from rpbert.show import print_prediction

        print_prediction(prediction, _console())


def _predict_file(model: str, source: Path, output: Path | None, as_json: bool) -> None:
    from rpbert.data.readers import open_untagged
    from rpbert.data.words import SPLITTERS
    from rpbert.inference import Tagger
    from rpbert.writing import written_whole

    if source.is_dir() or not source.exists():  # before the model is loaded, which takes longer
        found = "a folder" if source.is_dir() else "no such file"
        raise InputError(source, found, "a .jsonl or .parquet file of posts")
    tagger = Tagger.from_pretrained(model)
    opened = open_untagged(source, SPLITTERS[tagger.model.vocabulary.marks])
    predictions = tagger.predict_stream(opened.read(opened.splits[0]))
    counts: Counter[str] = Counter()

    def lines() -> Iterable[str]:
        for prediction in predictions:
            counts["posts"] += 1
            counts[prediction.image] += 1
            yield json.dumps(prediction.to_dict(), ensure_ascii=False) + "\n"

    if output is None and as_json:
        _print_json([json.loads(line) for line in lines()])
    elif output is None:
        sys.stdout.writelines(lines())
    else:
        with written_whole(output) as file:
            file.writelines(lines())
        if as_json:
            _print_json({"output": str(output), **counts})
    images = ", ".join(
        f"{counts[key]:,} {key}" for key in ("used", "none", "missing", "unreadable")
    )
    print(f"{counts['posts']:,} posts; images: {images}", file=sys.stderr)


@app.command()
def demo(
    output: Annotated[
        Path, typer.Option("--output", metavar="DIR", help="Where data and models go.")
    ] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="Decides data and training.")] = 0,
    as_json: Json = False,
) -> None:
    """The main job on made data in a few minutes, its result as a table."""
    from rpbert.demo import demo as run
    from rpbert.show import print_demo

    result = run(output, seed)
    if as_json:
        _print_json(result.to_dict())
    else:
        print_demo(result, _console())


def _print_json(content: Any) -> None:
    print(json.dumps(content, ensure_ascii=False, indent=1))


def _count(row: dict[str, Any]) -> str:
    return f"{row['parameters'] / 1e6:.1f} M"


def _console() -> Any:
    from rich.console import Console

    return Console(highlight=False)
