"""`rpbert train`: a run from a file of settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rpbert.cli.common import Json, print_json, stopped


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file of settings.")],
    output: Annotated[Path, typer.Option("--output", metavar="RUN", help="Folder of the run.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="training.epochs=3 …")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint.")] = False,
    as_json: Json = False,
) -> None:
    """Train a system and keep its best model by the development F1."""
    from rpbert.config.run import load_run
    from rpbert.stopping import StopSignals

    try:
        with StopSignals():  # from here on SIGTERM is answered as Ctrl-C is
            settings = load_run(config, overrides or ())  # a slip shows before PyTorch loads
            from rpbert.training.train import train as run

            result = run(settings, output, resume=resume)
    except KeyboardInterrupt:
        again = ["train", str(config), *(overrides or ()), "--output", str(output)]
        if (output / "config.yaml").exists():  # else nothing has begun that could go on
            again.append("--resume")
        stopped(*again)
    if as_json:
        print_json(
            {
                "model": str(result.model),
                "epoch": result.epoch,
                "dev_f1": result.f1,
                "seconds": round(result.seconds, 1),
            }
        )
    else:
        print(f"best development F1 {100 * result.f1:.2f} in epoch {result.epoch}: {result.model}")
