"""What several commands share: options, and how results are printed."""

from __future__ import annotations

import json
import shlex
import sys
from typing import Annotated, Any, NoReturn, TypeVar

import typer

from rpbert.errors import InputError, did_you_mean

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]
Lenient = Annotated[
    bool, typer.Option("--lenient", help="Leave faulty rows out and count them; else stop.")
]
ModelPath = Annotated[str, typer.Argument(metavar="MODEL", help="RUN, RUN/model or a hub id.")]
PrecisionName = Annotated[
    str,
    typer.Option("--precision", metavar="fp32|bf16|int8|auto", help="auto: bf16 where it is fast."),
]
BackendName = Annotated[
    str,
    typer.Option(
        "--backend", metavar="torch|kernels", help="The model itself, or a CPU's kernels."
    ),
]
CaptionerName = Annotated[
    str | None,
    typer.Option(
        "--captioner", metavar="NAME", help="Makes captions of images: BLIP, GIT or ViT-GPT2."
    ),
]
Ocr = Annotated[bool, typer.Option("--ocr", help="Look for text in images, by RapidOCR.")]

STOPPED = 130
"""Exit code after Ctrl-C."""

Name = TypeVar("Name", bound=str)


def one_of(option: str, given: str, names: tuple[Name, ...]) -> Name:
    """The name that an option gives.

    Raises:
        InputError: it is none of `names`.
    """
    for name in names:
        if name == given:
            return name
    raise InputError(option, given, " or ".join(names), did_you_mean(given, names))


def stopped(*again: str) -> NoReturn:
    """Say that the command was stopped, and what to type to go on, if it can; then exit."""
    if sys.stderr.isatty():
        print(file=sys.stderr)  # behind the ^C
    print("rpbert: stopped", file=sys.stderr)
    if again:
        print(f"to go on: {shlex.join(['rpbert', *again])}", file=sys.stderr)
    sys.exit(STOPPED)


def print_json(content: Any) -> None:
    """A result as one JSON document on standard output."""
    text = json.dumps(content, ensure_ascii=False, indent=1)
    # The name of a file may hold a lone surrogate: as JSON escapes it.
    print(text.encode("utf-8", "backslashreplace").decode())


def console() -> Any:
    """Where tables and tagged posts are printed."""
    from rich.console import Console

    return Console(highlight=False)
