"""Several processes train as one: the same losses, step by step, and each post scored once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rpbert.config.run import RunSettings, write_yaml
from tests.conftest import ENCODER, TAGGER, TINY
from tests.soak import Soak
from tests.training_runs import data_folder, settings

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"]
# Accelerate starts several processes for several GPUs only; without any they compute on CPUs.
ACCELERATE = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
ACCELERATE += ["--num_machines", "1", "--main_process_port", "0", "--mixed_precision", "no"]
ACCELERATE += ["--dynamo_backend", "no", "-m"]


def without_chance(data: Path, system: str, **training: Any) -> RunSettings:
    """A run whose steps draw nothing: no dropout, and no statistics of a process's own share."""
    quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    encoder = {**ENCODER, "shape": {**ENCODER["shape"], **quiet}}
    tagger = {**TAGGER, "dropout": 0.0}
    chosen = settings(data, system, **training)
    model = {"system": system, **TINY[system], "tagger": tagger, "encoder": encoder}
    return chosen.model_copy(update={"model": model})


def trained(launch: list[str], config: Path, run: Path) -> list[dict[str, Any]]:
    """The steps of a run that is started by a launcher."""
    steps = run.with_suffix(".steps")
    command = [sys.executable, *launch, "tests.recording", "train", str(config)]
    subprocess.run(
        [*command, "--output", str(run)],
        check=True,
        capture_output=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "STEPS": str(steps)},
    )
    return [json.loads(line) for line in steps.read_text().splitlines()]


def evaluations(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("system", "epochs", "launch"),
    [
        ("bert", 2, TORCHRUN),
        pytest.param(
            "rpbert",
            17,
            TORCHRUN,
            marks=pytest.mark.slow("2 gloo processes, torchrun", "51 steps a task"),
        ),
        pytest.param(
            "bert",
            17,
            ACCELERATE,
            marks=pytest.mark.slow("2 gloo processes, accelerate", "51 steps"),
        ),
    ],
    ids=["short", "torchrun", "accelerate"],
)
def test_two_processes_train_as_one(
    tmp_path: Path, soak: Soak, system: str, epochs: int, launch: list[str]
) -> None:
    """Of 8 posts in batches of 3, so that shares differ and one process goes without."""
    rates = {"head": 1e-3, "encoder": 1e-4, "projection": 1e-3, "visual": 0.0}
    data = data_folder(tmp_path / "data")
    chosen = without_chance(
        data, system, batch_size=3, epochs=epochs, relation=rates, tagging=rates
    )
    config = tmp_path / "run.yaml"
    write_yaml(chosen, config)
    one = trained(["-m"], config, tmp_path / "one")
    two = trained(launch, config, tmp_path / "two")
    tasks = 2 if system == "rpbert" else 1
    assert len(one) == len(two) == 3 * epochs * tasks
    for alone, shared in zip(one, two, strict=True):
        assert (shared["task"], shared["posts"]) == (alone["task"], alone["posts"])
        assert (shared["processes"], alone["processes"]) == (2, 1)
    worst = max(abs(a["loss"] - b["loss"]) for a, b in zip(one, two, strict=True))
    tagging = [step["loss"] for step in one if step["task"] == "tagging"]
    moved = tagging[0] - tagging[-1]
    soak(f"{len(one)} steps, largest difference of a loss {worst:.1e}, which fell by {moved:.2f}")
    assert worst < 1e-5
    assert moved > 100 * worst
    for alone, shared in zip(*map(evaluations, (tmp_path / "one", tmp_path / "two")), strict=True):
        assert shared["dev"]["posts"] == alone["dev"]["posts"] == 8
        assert shared["dev"]["strict"] == alone["dev"]["strict"]
        assert shared["dev_relation"] == alone["dev_relation"]
