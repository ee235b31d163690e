"""What several commands share: options, and how results are printed."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]
Lenient = Annotated[
    bool, typer.Option("--lenient", help="Leave faulty rows out and count them; else stop.")
]
ModelPath = Annotated[str, typer.Argument(metavar="MODEL", help="RUN, RUN/model or a hub id.")]
Output = Annotated[Path, typer.Option("--output", metavar="DIR", help="Where the results go.")]
Split = Annotated[
    str | None, typer.Option(help="train, dev or test; all in a single file.", show_default="test")
]
Precision = Annotated[
    Literal["fp32", "bf16", "auto"], typer.Option(help="auto: bf16 where it is fast.")
]
Backend = Annotated[
    Literal["torch", "openvino", "onnx"], typer.Option(help="The others read an exported model.")
]

STOPPED = 130
"""Exit code after Ctrl-C."""


def stopped(*again: str) -> NoReturn:
    """Say that the command was stopped and, if possible, how to resume; then exit."""
    if sys.stderr.isatty():
        print(file=sys.stderr)  # behind the ^C
    print("rpbert: stopped", file=sys.stderr)
    if again:
        print(f"to go on: {shlex.join(['rpbert', *again])}", file=sys.stderr)
    sys.exit(STOPPED)


def print_result(document: Any, as_json: bool, show: Callable[[Any], object] = print) -> None:
    """A result on standard output: as one JSON document, or as `show` prints it."""
    if not as_json:
        show(document)
        return
    print(json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False))


def progress(line: str) -> None:
    """A line of progress on standard error."""
    print(line, file=sys.stderr, flush=True)
