"""`rpbert systems`, `train` and `evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from rpbert.cli.common import (
    Backend,
    Captioner,
    Json,
    Lenient,
    ModelPath,
    Ocr,
    Precision,
    Split,
    print_json,
    progress,
    stopped,
)
from rpbert.errors import refuse


def systems(as_json: Json = False) -> None:
    """List every system with its paper, table row, evidence and parameters."""
    from rpbert.evaluation.evaluate import describe_systems

    rows = describe_systems()
    if as_json:
        print_json(rows)
    else:
        from rpbert.cli.show import print_systems

        print_systems(rows)


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
        found = {"model": str(result.model), "epoch": result.epoch, "dev_f1": result.f1}
        print_json({**found, "seconds": round(result.seconds, 1)})
    else:
        print(f"best development F1 {100 * result.f1:.2f} in epoch {result.epoch}: {result.model}")


def evaluate(
    model: ModelPath,
    data: Annotated[Path, typer.Argument(metavar="DATA")],
    split: Split = None,
    by: Annotated[
        Literal["relation", "type"] | None, typer.Option(help="Show these groups only.")
    ] = None,
    precision: Precision = "fp32",
    backend: Backend = "torch",
    captioner: Captioner = None,
    ocr: Ocr = False,
    lenient: Lenient = False,
    as_json: Json = False,
) -> None:
    """Score a model: precision, recall and F1, overall and by group."""
    from rpbert.data.reading import LeftOut
    from rpbert.evaluation.evaluate import evaluate_model, only, render

    left_out = LeftOut()
    faults = left_out if lenient else refuse
    evaluation = evaluate_model(model, data, split, faults, precision, captioner, ocr, backend)
    evaluation = only(evaluation, by)
    if left_out.count:
        progress(str(left_out))
    if as_json:
        print_json(evaluation.to_dict())
    else:
        print(render(evaluation))
