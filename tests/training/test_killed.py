"""Runs that are ended at random moments come to what they come to undisturbed, bit for bit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pydantic
import pytest

from rpbert.config.reading import write_yaml
from rpbert.stopping import StopSignals
from rpbert.training.train import train
from tests.killing import left_by
from tests.soak import Soak
from tests.training_runs import settings

ROOT = Path(__file__).parents[2]
ALONE = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def test_signals_are_held_once_and_handed_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals() as stop, stop.held():
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.should_stop
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt), stop.held(False):
            pytest.fail("a signal that came before is not forgotten")
    assert signal.getsignal(signal.SIGTERM) is before
    with StopSignals() as stop, stop.held(), stop.held(False), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)


def test_an_error_that_a_library_makes_of_a_signal_is_that_signal() -> None:
    class Wrapping(pydantic.BaseModel):
        value: int

        @pydantic.field_serializer("value")
        def interrupted(self, value: int) -> int:
            os.kill(os.getpid(), signal.SIGINT)
            return value

    with pytest.raises(KeyboardInterrupt) as stopped, StopSignals():
        Wrapping(value=1).model_dump()
    assert type(stopped.value.__cause__).__name__ == "PydanticSerializationError"
    with pytest.raises(ValueError, match="its own"), StopSignals():
        raise ValueError("its own")
    with StopSignals() as stop, suppress(KeyboardInterrupt):  # a library that swallows it
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.should_stop


def test_training_in_a_thread_leaves_signals_alone(data: Path, tmp_path: Path) -> None:
    chosen = settings(data, "bilstm_crf", epochs=1)
    thread = threading.Thread(target=train, args=(chosen, tmp_path / "run"))
    thread.start()
    thread.join()
    assert (tmp_path / "run" / "model" / "manifest.json").is_file()


def ended(data: Path, folder: Path, signals: str, ends: int, epochs: int = 2) -> str:
    """Ends runs with dropout, images and both tasks, whose every step is a checkpoint.

    Returns what happened, in words.
    """
    folder.mkdir(exist_ok=True)
    chosen = settings(data, batch_size=2, checkpoint_steps=1, epochs=epochs)
    write_yaml(chosen, folder / "run.yaml")
    given = [sys.executable, "-m", "tests.killing", str(folder / "run.yaml"), str(folder)]
    command = [*given, signals, str(ends), "1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=ALONE)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["differences"] == []
    assert found["within"] >= ends
    moments = f"{found['within']} ends within training and {found.get('before', 0)} before it"
    equal = "weights, optimisers, generators and scores bit-equal to the undisturbed run"
    return f"{moments}, in {found['runs']} runs: {equal}"


def test_a_few_ends(data: Path, tmp_path: Path) -> None:
    ended(data, tmp_path, "SIGKILL,SIGTERM,SIGINT", 3, epochs=1)


@pytest.mark.slow("SIGKILL at random moments of training, resume", "50 kills")
def test_many_kills(data: Path, tmp_path: Path, soak: Soak) -> None:
    soak(ended(data, tmp_path, "SIGKILL", 50))


@pytest.mark.slow("stop signals at random moments of training, resume", "25 SIGTERM, 25 SIGINT")
def test_many_stops(data: Path, tmp_path: Path, soak: Soak) -> None:
    for end in ("SIGTERM", "SIGINT"):
        soak(f"{end}: {ended(data, tmp_path / end, end, 25)}")


@pytest.mark.slow("2 gloo processes resumed within an epoch", "1 run")
def test_two_processes_go_on_within_an_epoch(data: Path, tmp_path: Path, soak: Soak) -> None:
    """Each with its own random generators."""
    run, config = tmp_path / "run", tmp_path / "run.yaml"
    own = {"batch_size": 3, "checkpoint_steps": 1, "keep_checkpoints": 100}
    write_yaml(settings(data, "bert", **own), config)
    launch = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", "-m", "rpbert"]
    given = [sys.executable, *launch, "train", str(config), "--output", str(run)]
    subprocess.run(given, check=True, capture_output=True, env=ALONE)
    expected = left_by(run)
    for checkpoint in (run / "checkpoints").iterdir():
        if checkpoint.name > "epoch-0001-step-000001":
            shutil.rmtree(checkpoint)
    subprocess.run([*given, "--resume"], check=True, capture_output=True, env=ALONE)
    assert left_by(run) == expected
    soak("weights, optimisers, generators and scores bit-equal")
