"""`rpbert evaluate`: the scores of a model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from rpbert.cli.common import (
    BackendName,
    CaptionerName,
    Json,
    Lenient,
    ModelPath,
    Ocr,
    PrecisionName,
    one_of,
    print_json,
)
from rpbert.errors import InputError, refuse


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
    precision: PrecisionName = "fp32",
    backend: BackendName = "torch",
    captioner: CaptionerName = None,
    ocr: Ocr = False,
    lenient: Lenient = False,
    as_json: Json = False,
) -> None:
    """Score a model: precision, recall and F1, overall and by group."""
    from rpbert.config.run import BACKENDS, PRECISIONS, Precision
    from rpbert.data.reading import LeftOut
    from rpbert.evaluation.evaluate import GROUPINGS, evaluate_model, only, render

    if by is not None and by not in GROUPINGS:
        raise InputError("--by", by, " or ".join(GROUPINGS))
    left_out = LeftOut()
    faults = left_out if lenient else refuse
    chosen: Precision = one_of("--precision", precision, PRECISIONS)
    computed_by = one_of("--backend", backend, BACKENDS)
    evaluation = evaluate_model(model, data, split, faults, chosen, captioner, ocr, computed_by)
    evaluation = only(evaluation, by)
    if left_out.count:
        print(left_out, file=sys.stderr)
    if as_json:
        print_json(evaluation.to_dict())
    else:
        print(render(evaluation))
