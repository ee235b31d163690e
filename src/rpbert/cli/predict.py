"""`rpbert predict`: one post, or a file of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rpbert.cli.common import (
    BackendName,
    CaptionerName,
    Json,
    ModelPath,
    Ocr,
    PrecisionName,
    console,
    one_of,
    print_json,
)
from rpbert.cli.shards import Shards, predict_file, predict_shards
from rpbert.errors import InputError


def predict(
    model: ModelPath,
    text: Annotated[str | None, typer.Option(help="The text of one post.")] = None,
    image: Annotated[Path | None, typer.Option(help="The image of that post.")] = None,
    caption: Annotated[
        str | None, typer.Option(help="What that image shows, for a model that reads captions.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--input", metavar="PATTERN", help="A file, folder or glob of .jsonl, .parquet, .tar."
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", metavar="FILE|DIR/", help="A file for a file, a folder for shards."
        ),
    ] = None,
    format: Annotated[
        str | None, typer.Option(metavar="jsonl|parquet", help="Of the output; by its suffix.")
    ] = None,
    lenient: Annotated[
        bool | None,
        typer.Option(
            "--lenient/--strict",
            help="Set faulty rows aside (shards), or stop at the first (a file).",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Leave finished shards as they are.")] = (
        False
    ),
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="The i-th of n parts, for n machines.")
    ] = "1/1",
    engine: Annotated[
        str, typer.Option(metavar="local|ray", help="Processes here, or a Ray cluster.")
    ] = "local",
    workers: Annotated[int, typer.Option(help="Models that tag at a time.")] = 1,
    gpus: Annotated[
        int | None,
        typer.Option(help="GPUs they share; 0 for none.", show_default="1 if there is one"),
    ] = None,
    precision: PrecisionName = "fp32",
    backend: BackendName = "torch",
    captioner: CaptionerName = None,
    ocr: Ocr = False,
    as_json: Json = False,
) -> None:
    """Tag one post, a file of posts, or shards of posts to as many files.

    Exit code 3: done, but for the posts that are listed in *.errors.jsonl beside the output.
    """
    from rpbert.config.run import BACKENDS, PRECISIONS

    if (text is None) == (source is None):
        found = "neither --text nor --input" if text is None else "both --text and --input"
        raise InputError("predict", found, "one of them")
    chosen = one_of("--precision", precision, PRECISIONS)
    computed_by = one_of("--backend", backend, BACKENDS)
    if source is None:
        shards_alone = {
            "output": output is not None, "format": format is not None,
            "lenient": lenient is not None, "resume": resume, "shard": shard != "1/1",
            "engine": engine != "local", "workers": workers != 1, "gpus": gpus is not None,
        }  # fmt: skip
        for name in (name for name, given in shards_alone.items() if given):
            raise InputError(f"--{name}", "beside --text", "--input")
        words = {"captioner": captioner, "ocr": ocr, "backend": computed_by}
        post = {"text": text, "image": image, "caption": caption}
        _predict_one(model, post, as_json, precision=chosen, **words)
        return
    if image is not None:
        raise InputError("--image", "beside --input", "--text, or `image` in the rows of the file")
    if caption is not None:
        raise InputError("--caption", "beside --input", "--text, or `caption` in the file's rows")
    alone = Path(source).is_file() and not (output or "").endswith("/")
    by_suffix = "parquet" if alone and (output or "").endswith(".parquet") else "jsonl"
    shards = Shards(
        model=model,
        source=source,
        output=output,
        format=one_of("--format", format or by_suffix, ("jsonl", "parquet")),
        format_by_name=format is None,
        lenient=not alone if lenient is None else lenient,
        resume=resume,
        shard=shard,
        engine=one_of("--engine", engine, ("local", "ray")),
        workers=workers,
        gpus=gpus,
        precision=chosen,
        captioner=captioner,
        ocr=ocr,
        backend=computed_by,
    )
    if not alone:
        predict_shards(shards, as_json=as_json)
        return
    if resume or (shard, engine, workers) != ("1/1", "local", 1):
        hint = "end --output with / to write shards into that folder"
        raise InputError("predict", "options of shards for one file", "a folder", hint)
    predict_file(shards, as_json=as_json)


def _predict_one(model: str, post: dict[str, Any], as_json: bool, **chosen: Any) -> None:
    image = post["image"]
    if image is not None and not image.is_file():
        raise InputError("--image", f"no file {image}", "an image file")
    from rpbert.evidence.describers import need_reader
    from rpbert.inference import Tagger

    tagger = Tagger.from_pretrained(model, **chosen)
    if post["caption"] is not None:
        need_reader(tagger.model.options, "captions", "--caption")
    prediction = tagger.predict(**post)
    if as_json:
        print_json(prediction.to_dict())
    else:
        from rpbert.cli.show import print_prediction

        print_prediction(prediction, console())
