"""`rpbert predict`: one post, or a file of them."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from rpbert.cli.common import Json, ModelPath, console, print_json
from rpbert.errors import InputError


def predict(
    model: ModelPath,
    text: Annotated[str | None, typer.Option(help="The text of one post.")] = None,
    image: Annotated[Path | None, typer.Option(help="The image of that post.")] = None,
    caption: Annotated[
        str | None, typer.Option(help="What that image shows, for a model that reads captions.")
    ] = None,
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
    if caption is not None and source is not None:
        raise InputError("--caption", "beside --input", "--text, or `caption` in the file's rows")
    if output is not None and source is None:
        raise InputError("--output", "beside --text", "--input")
    if image is not None and not image.is_file():
        raise InputError("--image", f"no file {image}", "an image file")
    if source is not None:
        _predict_file(model, source, output, as_json)
        return
    from rpbert.inference import Tagger

    prediction = Tagger.from_pretrained(model).predict(str(text), image, caption)
    if as_json:
        print_json(prediction.to_dict())
    else:
        from rpbert.show import print_prediction

        print_prediction(prediction, console())


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
        print_json([json.loads(line) for line in lines()])
    elif output is None:
        sys.stdout.writelines(lines())
    else:
        with written_whole(output) as file:
            file.writelines(lines())
        if as_json:
            print_json({"output": str(output), **counts})
    images = ", ".join(
        f"{counts[key]:,} {key}" for key in ("used", "none", "missing", "unreadable")
    )
    print(f"{counts['posts']:,} posts; images: {images}", file=sys.stderr)
