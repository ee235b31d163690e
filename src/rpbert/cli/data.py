"""`rpbert data` and `rpbert convert`: get, check and make data, convert published weights."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from rpbert.cli import common
from rpbert.errors import InputError, counted


def check(
    path: Annotated[Path, typer.Argument(metavar="PATH")],
    lenient: common.Lenient = False,
    tag_column: Annotated[int, typer.Option(help="Of CoNLL files, as data.tag_column.")] = -1,
    as_json: common.Json = False,
) -> None:
    """Report what a data set holds: posts, entities, images, labels, and every quirk."""
    from rpbert.data.check import check as run
    from rpbert.data.check import render

    found = run(path, lenient=lenient, tag_column=tag_column)
    common.print_result(found, as_json, lambda report: print(render(report)))


def known(as_json: common.Json = False) -> None:
    """List the public data sets that `get` knows: what each is, and its licence."""
    from rpbert.data.get import SOURCES

    lines = (f"{d.name:12} {d.what} ({d.paper}). Licence: {d.licence}" for d in SOURCES.values())
    rows = [asdict(data) for data in SOURCES.values()]
    common.print_result(rows, as_json, lambda _: print(*lines, sep="\n"))


def get(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name of `rpbert data list`.")],
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="Else NAME.")] = None,
    images: Annotated[bool, typer.Option("--images", help="Also images, if any can be.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Accept terms and size unasked.")] = False,
    as_json: common.Json = False,
) -> None:
    """Download a public data set into a data folder, verified; its terms are shown first."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn

    from rpbert.data.get import data_set
    from rpbert.data.get import get as run
    from rpbert.training.progress import bar

    data, output = data_set(name), output or Path(name)
    chosen = data.chosen(images)
    size = sum(file.bytes for file in chosen)
    common.progress(f"{data.what}; {data.paper}; licence: {data.licence}")
    for file in chosen:
        unknown = "" if file.sha256 else " (its checksum is not known: recorded in sources.json)"
        common.progress(f"  {file.to}: {file.bytes:,} bytes of {file.url}{unknown}")
    common.progress(f"not among them: {data.missing}")
    if not yes and not typer.confirm(f"download {size:,} bytes into {output}?", err=True):
        raise typer.Abort
    with bar(Console(stderr=True), BarColumn(), DownloadColumn()) as shown:
        task = shown.add_task("", total=size)
        found = run(data, output, images=images, advance=lambda n: shown.advance(task, n))
    common.print_result({"folder": str(output), **found}, as_json, lambda _: print(output))


def describe(
    posts: Annotated[Path, typer.Argument(metavar="POSTS", help="Data folder, or .jsonl file.")],
    output: Annotated[Path, typer.Option("--output", metavar="POSTS", help="As POSTS, in rows.")],
    caption: Annotated[str | None, typer.Option(metavar="MODEL", help="BLIP, GIT …")] = None,
    ocr: Annotated[bool, typer.Option("--ocr", help="Text in the images, by RapidOCR.")] = False,
    knowledge: Annotated[
        str | None, typer.Option(metavar="ENDPOINT", help="Such as http://localhost:8000/v1.")
    ] = None,
    model: Annotated[
        str, typer.Option(help="Its model. The key is in OPENAI_API_KEY.")
    ] = "default",
    prompt: Annotated[
        Path | None, typer.Option(help="A file with {text} and {caption} in it.")
    ] = None,
    images: Annotated[bool, typer.Option("--images", help="Send it the images, too.")] = False,
    at_once: Annotated[int, typer.Option(min=1, help="Questions asked at the same time.")] = 8,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it takes.")] = False,
    as_json: common.Json = False,
) -> None:
    """Make captions, texts in images and knowledge once; asks nothing twice and can be resumed.

    Exit code 3: done, but for the answers that are listed."""
    from rpbert.data.describe import PROMPT, Endpoint, Maker
    from rpbert.data.describe import describe as run
    from rpbert.data.reading import lines_of
    from rpbert.stopping import StopSignals

    if not (caption or ocr or knowledge):
        raise InputError("data describe", "nothing to make", "--caption, --ocr or --knowledge")
    if knowledge and not knowledge.startswith(("http://", "https://")):
        raise InputError(
            "--knowledge", knowledge, "an address that begins with http:// or https://"
        )
    makers: list[Maker] = []
    if caption:
        from rpbert.evidence.texts import Captioner
        from rpbert.storage.published import from_hub

        captioner = from_hub("--caption", caption, lambda: Captioner.from_pretrained(caption))
        makers.append(Maker(makes="caption", name=caption, describe=captioner))
    if ocr:
        from rpbert.evidence.texts import TextFinder

        makers.append(Maker(makes="image_text", name="RapidOCR", describe=TextFinder()))
    if knowledge:
        words = "\n".join(line for _, line in lines_of(prompt or PROMPT))
        asked = Endpoint(name=model, address=knowledge, prompt=words, at_once=at_once)
        makers.append(replace(asked, sees_images=images))
    with StopSignals() as stop, stop.held():
        faults = run(posts, output, makers, stop, common.progress, dry_run)
    for fault in faults:
        common.progress(fault)
    result = {"output": str(output), "failed": len(faults)}
    common.print_result(result, as_json, lambda _: None if dry_run else print(output))
    if faults:
        raise typer.Exit(3)


def make(
    folder: Annotated[Path, typer.Argument(metavar="DIR")],
    posts: Annotated[int, typer.Option(help="How many posts, over all splits.")] = 3000,
    relevant: Annotated[float, typer.Option(help="Share of images that add to the text.")] = 0.44,
    ambiguous: Annotated[
        float, typer.Option(help="Share of relevant posts whose text does not tell the type.")
    ] = 0.65,
    misleading: Annotated[
        float | None,
        typer.Option(
            help="Share of other posts whose name could be what the image shows.",
            show_default="as --ambiguous",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides every post.")] = 0,
    images: Annotated[int, typer.Option(help="Of a post; one at most adds to the text.")] = 1,
    as_json: common.Json = False,
) -> None:
    """Write the controlled data set: made posts, made images, known truth."""
    from rpbert.synthetic.controlled import make as run

    chances = {"relevant": relevant, "ambiguous": ambiguous, "misleading": misleading}
    run(folder, posts=posts, **chances, seed=seed, images=images)
    line = f"{counted(posts, 'made post')} in {folder}"
    common.print_result({"folder": str(folder), "posts": posts}, as_json, lambda _: print(line))


def convert(
    system: Annotated[
        str, typer.Argument(metavar="SYSTEM", help="uniter, vl_bert, vilbert … or resnet.")
    ],
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="The published file, or a hub's folder.")
    ],
    output: common.Output,
    tokenizer: Annotated[str | None, typer.Option(help="Hub name or folder; else its own.")] = None,
    as_json: common.Json = False,
) -> None:
    """Convert published weights to safetensors with this package's names; pickles are not run."""
    from rpbert.integrations.convert import collapsed
    from rpbert.integrations.convert import convert as run

    result = run(system, checkpoint, output, tokenizer)
    filled = f"{result['filled']} of {result['filled']} parameters filled, none missing"
    lines = [f"{filled}: {output}"]
    if left_out := result["left_out"]:
        lines.append(f"left out, as {system} has no place for them here ({len(left_out)} tensors):")
        lines += [f"  {name}" for name in collapsed(left_out)]
    common.print_result(result, as_json, lambda _: print(*lines, sep="\n"))
