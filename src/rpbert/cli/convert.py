"""`rpbert convert`: a published checkpoint to a folder that training starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rpbert.cli.common import Json, print_json


def convert(
    system: Annotated[
        str, typer.Argument(metavar="SYSTEM", help="uniter, vl_bert, vilbert, visualbert, lxmert.")
    ],
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="The authors' file, or a hub's folder.")
    ],
    output: Annotated[
        Path, typer.Option("--output", metavar="FOLDER", help="For model.encoder.pretrained.")
    ],
    tokenizer: Annotated[
        str | None,
        typer.Option(help="Hub name or folder; else the one the weights were trained with."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Convert published weights to safetensors with this package's names; pickles are not run."""
    from rpbert.integrations.convert import collapsed
    from rpbert.integrations.convert import convert as run

    result = run(system, checkpoint, output, tokenizer)
    if as_json:
        print_json(result.to_dict())
        return
    print(f"{result.filled} of {result.filled} parameters filled, none missing: {result.folder}")
    if result.left_out:
        print(f"left out, as {system} has no such part here ({len(result.left_out)} tensors):")
        for name in collapsed(result.left_out):
            print(f"  {name}")
