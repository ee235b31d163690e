"""`rpbert demo`: the main job on made data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rpbert.cli.common import Json, console, print_json


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
        print_json(result.to_dict())
    else:
        print_demo(result, console())
