"""`rpbert benchmark`: how fast this machine trains and tags."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from rpbert.cli.common import BackendName, Json, one_of, print_json
from rpbert.errors import InputError, reason_of


def benchmark(
    system: Annotated[
        str, typer.Option(metavar="rpbert|bert", help="With pictures, or the text alone.")
    ] = "rpbert",
    size: Annotated[
        str, typer.Option(metavar="published|tiny", help="BERT-base and ResNet-152, or small.")
    ] = "published",
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="P,P…", help="Of fp32, bf16 and on a CPU int8.", show_default="all of them"
        ),
    ] = None,
    backend: BackendName = "torch",
    batch: Annotated[int, typer.Option(min=1, help="Posts in a batch.")] = 8,
    posts: Annotated[int, typer.Option(min=1, help="Posts tagged in a repeat.")] = 64,
    repeats: Annotated[int, typer.Option(min=1)] = 5,
    threads: Annotated[int | None, typer.Option(min=1, show_default="PyTorch's choice")] = None,
    device: Annotated[str, typer.Option(metavar="cpu|cuda")] = "cpu",
    training: Annotated[bool, typer.Option(help="Also measure training.")] = True,
    moments: Annotated[
        str, typer.Option(metavar="task|shared", help="As training.moments.")
    ] = "task",
    growth: Annotated[bool, typer.Option(help="Also let batch, length and number grow.")] = True,
    profile: Annotated[bool, typer.Option("--profile", help="Name where the time goes.")] = False,
    compare: Annotated[
        Path | None, typer.Option(metavar="JSON", help="An earlier benchmark's --json.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Throughput, latency and memory of training and inference: made posts, random weights."""
    from rpbert.benchmark.report import render
    from rpbert.benchmark.whole import Plan, run
    from rpbert.benchmark.work import Work
    from rpbert.config.run import BACKENDS, Precision

    device = one_of("--device", device, ("cpu", "cuda"))
    known: tuple[Precision, ...] = ("fp32", "bf16", "int8") if device == "cpu" else ("fp32", "bf16")
    names = precision.split(",") if precision else known
    precisions = [one_of("--precision", name, known) for name in names]
    if compare and as_json:
        raise InputError("--compare", "--json beside it", "the table, which the ratios stand in")
    earlier = _read(compare) if compare else None
    work = Work(
        one_of("--system", system, ("rpbert", "bert")),
        one_of("--size", size, ("published", "tiny")),
        batch,
        posts,
        repeats,
        threads,
        device,
        one_of("--backend", backend, BACKENDS),
    )
    plan = Plan(
        work,
        precisions,
        training,
        one_of("--moments", moments, ("task", "shared")),
        growth,
        profile,
    )
    found = run(plan, lambda line: print(line, file=sys.stderr))
    if as_json:
        print_json(found)
    else:
        print(render(found, earlier))


def _read(path: Path) -> Any:
    try:
        found = json.loads(path.read_text("utf-8"))
        if not {"work", "machine", "inference", "training"} <= found.keys():
            raise ValueError("no benchmark")
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(path, reason_of(error), "what `rpbert benchmark --json` printed") from None
    return found
