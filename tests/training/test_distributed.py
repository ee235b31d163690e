"""Several processes train as one: the same losses, step by step, and each post scored once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from rpbert.config.reading import write_yaml
from rpbert.config.run import RunSettings, load_run
from rpbert.training.train import train
from tests.conftest import ENCODER, TAGGER, TINY
from tests.soak import Soak
from tests.training_runs import TORCHRUN, places, python, records, settings, with_data

# Accelerate starts several processes for several GPUs only; without any they compute on CPUs.
ACCELERATE = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
ACCELERATE += ["--num_machines", "1", "--main_process_port", "0", "--mixed_precision", "no"]
ACCELERATE += ["--dynamo_backend", "no", "-m"]


def long(launcher: str, size: str) -> pytest.MarkDecorator:
    return pytest.mark.slow(f"2 gloo processes, {launcher}", size)


def without_chance(data: Path, system: str, **training: Any) -> RunSettings:
    """A run whose steps draw nothing: no dropout, and no statistics of a process's own share."""
    quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    encoder = {**ENCODER, "shape": {**ENCODER["shape"], **quiet}}
    tagger = {**TAGGER, "dropout": 0.0}
    model = {"system": system, **TINY[system], "tagger": tagger, "encoder": encoder}
    return settings(data, system, **training).model_copy(update={"model": model})


@pytest.mark.parametrize(
    ("system", "epochs", "launch"),
    [
        ("bert", 2, TORCHRUN),
        pytest.param("rpbert", 17, TORCHRUN, marks=long("torchrun", "51 steps a task")),
        pytest.param("bert", 17, ACCELERATE, marks=long("accelerate", "51 steps")),
    ],
    ids=["short", "torchrun", "accelerate"],
)
def test_two_processes_train_as_one(
    data: Path, tmp_path: Path, soak: Soak, system: str, epochs: int, launch: list[str]
) -> None:
    """Of 7 posts in batches of 3, so that shares differ and one process goes without."""
    rates = {"head": 1e-3, "encoder": 1e-4, "projection": 1e-3, "visual": 0.0}
    training = {"batch_size": 3, "epochs": epochs, "relation": rates, "tagging": rates}
    chosen = without_chance(data, system, **training)
    config = tmp_path / "run.yaml"
    write_yaml(with_data(chosen, posts=7), config)
    train(load_run(config), tmp_path / "one")
    python(*launch, "rpbert", "train", str(config), "--output", str(tmp_path / "two"))
    for run, processes in (("one", {"0"}), ("two", {"0", "1"})):
        last = tmp_path / run / "checkpoints" / places(tmp_path / run)[-1]
        drawn = load_file(last / "generators.safetensors")
        assert {name.partition("/")[0] for name in drawn} == processes
    one, two = records(tmp_path / "one"), records(tmp_path / "two")
    assert len(one) == len(two) == epochs
    tasks = {"relation", "tagging"} if system == "rpbert" else {"tagging"}
    worst = 0.0
    for single, shared in zip(one, two, strict=True):
        assert single["loss"].keys() == shared["loss"].keys() == tasks
        worst = max(worst, *(abs(single["loss"][t] - shared["loss"][t]) for t in tasks))
        assert shared["dev"] == single["dev"]
        assert shared["dev"]["posts"] == 7
        assert shared["images"] == single["images"]
        assert (shared["dev_relation"] is None) == (single["dev_relation"] is None)
    moved = one[0]["loss"]["tagging"] - one[-1]["loss"]["tagging"]
    steps = 3 * epochs * len(tasks)
    soak(f"{steps} steps, largest difference of a loss {worst:.1e}, which fell by {moved:.2f}")
    assert worst < 1e-5 / 7  # an epoch's mean hides no step, not even that of one post
    assert moved > 100 * worst
