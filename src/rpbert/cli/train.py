"""`rpbert systems`, `train` and `evaluate`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from rpbert.cli import common
from rpbert.errors import InputError, refuse


def systems(as_json: common.Json = False) -> None:
    """List every system with its paper, table row, evidence and parameters."""
    from rpbert.cli.show import print_systems
    from rpbert.evaluation.evaluate import describe_systems

    common.print_result(describe_systems(), as_json, print_systems)


def train(
    config: Annotated[
        str | None, typer.Argument(metavar="CONFIG", help="A YAML file, or a name of --list.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="RUN", help="Folder of the run.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="training.epochs=3 …")
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="MODEL", help="Go on from a trained model.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="List the named configs.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show rates and time alone.")] = False,
    as_json: common.Json = False,
) -> None:
    """Train a system and keep its best model by the development F1."""
    from rpbert.config.run import load_run
    from rpbert.stopping import StopSignals

    if listed:
        common.print_result(named_configs(), as_json, print_configs)
        return
    if config is None:
        raise InputError("CONFIG", "nothing", "a YAML file or a name", "--list shows the names")
    changes = list(overrides or ())
    if start is not None:
        if any(change.startswith("model") for change in changes):
            expected = "settings of data and training"
            raise InputError("command line", "model settings with --from", expected)
        place = str(Path(start).absolute()) if Path(start).exists() else start
        changes.append(f"start={json.dumps(place)}")
    if dry_run:
        from rpbert.training.train import learning_groups

        groups = learning_groups(load_run(config, changes), common.progress)
        common.print_result(groups, as_json, print_groups)
        return
    if output is None:
        raise InputError("--output", "nothing", "the folder of the run, RUN")
    try:
        with StopSignals():  # from here on SIGTERM is answered as Ctrl-C is
            settings = load_run(config, changes)  # an error shows before PyTorch loads
            from rpbert.training.train import train as run

            result = run(settings, output, resume=resume)
    except KeyboardInterrupt:
        again = ["train", config, *changes, "--output", str(output)]
        if (output / "config.yaml").exists():  # else there is nothing to resume
            again.append("--resume")
        common.stopped(*again)
    found: dict[str, Any] = {"model": str(result.model), "epoch": result.epoch}
    found |= {"dev_f1": result.f1, "seconds": round(result.seconds, 1)}
    line = f"best development F1 {100 * result.f1:.2f} in epoch {result.epoch}: {result.model}"
    common.print_result(found, as_json, lambda _: print(line))


def named_configs() -> dict[str, str]:
    """The configs of the package for `train`: what each is, takes, and may be expected to reach."""
    from rpbert.config.reading import CONFIGS

    heads = {f.stem: f.read_text("utf-8").splitlines()[:2] for f in sorted(CONFIGS.glob("*.yaml"))}
    told = {name: " ".join(line.strip("# ") for line in head) for name, head in heads.items()}
    found = {name: line for name, line in told.items() if " Takes " in line}
    return dict(sorted(found.items(), key=lambda row: not row[1].startswith("START HERE")))


def print_configs(found: dict[str, str]) -> None:
    """A line a config."""
    for name, line in found.items():
        print(f"{name:16} {line}")


def print_groups(groups: list[dict[str, Any]]) -> None:
    """A line for each group, then its parameters."""
    for found in groups:
        rates = ", ".join(f"{rate:g} in {task}" for task, rate in found["rates"].items())
        print(f"{found['group']}: {found['numbers']:,} numbers; {rates or 'frozen'}")
        for name in found["parameters"]:
            print(f"  {name}")
        for name in found["frozen"]:
            print(f"  {name} (frozen)")


def evaluate(
    model: common.ModelPath,
    data: Annotated[Path, typer.Argument(metavar="DATA")],
    split: common.Split = None,
    by: Annotated[
        Literal["relation", "type"] | None, typer.Option(help="Show these groups only.")
    ] = None,
    curve: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Print scores by threshold, and draw them: .png, .svg."),
    ] = None,
    precision: common.Precision = "fp32",
    backend: common.Backend = "torch",
    lenient: common.Lenient = False,
    as_json: common.Json = False,
) -> None:
    """Score a model: precision, recall and F1, overall and by group."""
    from rpbert.data.reading import LeftOut
    from rpbert.evaluation.evaluate import evaluate_model, only, plot_curve, render, render_curve

    if curve is not None and curve.suffix not in (".png", ".svg", ".pdf"):
        raise InputError(f"--curve {curve}", f"{curve.suffix!r}", ".png, .svg or .pdf")
    left_out = LeftOut()
    faults = left_out if lenient else refuse
    whole = evaluate_model(model, data, split, faults, precision, backend)
    if left_out.count:
        common.progress(str(left_out))
    evaluation = asdict(only(whole, by))
    common.print_result(evaluation, as_json, lambda found: print(render(found)))
    if curve is not None:
        plot_curve(whole.curve, curve)
        if not as_json:
            print("", render_curve(evaluation["curve"]), sep="\n")
