"""Runs that are ended at random moments come to what they come to undisturbed, bit for bit."""

from __future__ import annotations

import errno
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
from safetensors.torch import save_file

from rpbert.config.run import write_yaml
from rpbert.errors import InputError
from rpbert.training.stopping import StopSignals
from rpbert.training.train import train
from rpbert.training.trainer import Trainer
from tests.killing import left_by
from tests.soak import Soak
from tests.test_cli import run as command
from tests.training_runs import data_folder, settings

ROOT = Path(__file__).parents[2]
ENDED = {"SIGKILL": -signal.SIGKILL, "SIGTERM": 130, "SIGINT": 130}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A run with dropout, images and both tasks, whose every step is a checkpoint."""
    write_yaml(
        settings(data_folder(tmp_path / "data"), batch_size=2, checkpoint_steps=1),
        tmp_path / "run.yaml",
    )
    return tmp_path / "run.yaml"


def killed(config: Path, end: str, ends: int) -> dict[str, Any]:
    """What runs ended by a signal came to."""
    command = [sys.executable, "-m", "tests.killing", str(config), str(config.parent), end]
    done = subprocess.run(
        [*command, str(ends), "1"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def check(found: dict[str, Any], end: str, ends: int) -> str:
    """Hold what happened to what is promised; returns it in words."""
    happened = found["happened"]
    assert found["differences"] == []
    # Before a command has taken over the signals, SIGTERM ends it as any process.
    early = {f"{ENDED[end]} before", f"{-signal.SIGTERM} before"}
    assert set(happened) <= {f"{ENDED[end]} within", "finished"} | early
    within = happened[f"{ENDED[end]} within"]
    assert within >= ends
    before = sum(happened.get(what, 0) for what in early)
    return (
        f"{within} ends within training and {before} before it, in {happened['finished']} runs: "
        "weights, optimisers, generators and scores bit-equal to the undisturbed run"
    )


def places(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


@pytest.fixture
def undisturbed(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """Made posts, and what a run on them leaves."""
    data = data_folder(tmp_path / "data")
    train(settings(data), tmp_path / "undisturbed")
    return data, left_by(tmp_path / "undisturbed")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_within_an_epoch_saves_after_the_step_and_resuming_goes_on_there(
    undisturbed: tuple[Path, dict[str, str]],
    tmp_path: Path,
    number: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, expected = undisturbed
    run, steps, step = tmp_path / "run", 0, Trainer.step

    def signalled(self: Trainer, *rest: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 4 + 3:  # an epoch has two steps of each task
            os.kill(os.getpid(), number)
        return step(self, *rest)

    monkeypatch.setattr(Trainer, "step", signalled)
    with pytest.raises(KeyboardInterrupt):
        train(settings(data), run)
    assert places(run) == ["epoch-0001", "epoch-0001-step-000003"]
    train(settings(data), run, resume=True)
    assert steps == 3 * 4  # none was taken twice
    assert left_by(run) == expected


def test_a_signal_while_the_epoch_is_scored_keeps_its_steps(
    undisturbed: tuple[Path, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, expected = undisturbed
    run, score = tmp_path / "run", Trainer._score

    def signalled(self: Trainer, dev: Any) -> Any:
        scores = score(self, dev)
        os.kill(os.getpid(), signal.SIGTERM)
        return scores

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "_score", signalled)
        train(settings(data), run)
    assert places(run) == ["epoch-0000-step-000004"]
    assert not (run / "metrics.jsonl").exists()
    train(settings(data), run, resume=True)
    assert left_by(run) == expected


def test_a_signal_that_came_during_a_save_stops_after_it(
    undisturbed: tuple[Path, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, expected = undisturbed
    run, save = tmp_path / "run", Trainer._save_model

    def signalled(self: Trainer) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        save(self)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "_save_model", signalled)
        train(settings(data), run)
    assert places(run) == ["epoch-0001"]
    train(settings(data), run, resume=True)
    assert left_by(run) == expected


def test_signals_are_held_once_and_handed_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals() as stop, stop.held():
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wanted
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt), stop.released():
            pytest.fail("a signal that came before is not forgotten")
    assert signal.getsignal(signal.SIGTERM) is before


def test_signals_that_are_not_held_stop_at_once() -> None:
    with StopSignals() as stop, stop.held(), stop.released(), pytest.raises(KeyboardInterrupt):
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
    with pytest.raises(ValueError, match="of its own"), StopSignals():
        raise ValueError("of its own")


def test_a_signal_that_a_library_swallows_is_wanted_all_the_same() -> None:
    with StopSignals() as stop, suppress(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.wanted


def test_training_in_a_thread_leaves_signals_alone(tmp_path: Path) -> None:
    chosen = settings(data_folder(tmp_path / "data"), "bilstm_crf", epochs=1)
    thread = threading.Thread(target=train, args=(chosen, tmp_path / "run"))
    thread.start()
    thread.join()
    assert (tmp_path / "run" / "model" / "manifest.json").is_file()


def test_a_full_disk_is_one_line_that_says_what_is_kept_and_how_to_go_on(
    undisturbed: tuple[Path, dict[str, str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, expected = undisturbed
    write_yaml(settings(data, checkpoint_steps=3), tmp_path / "run.yaml")
    given = ["train", tmp_path / "run.yaml", "--output", tmp_path / "run"]
    saves = 0

    def full(*arguments: Any) -> None:
        nonlocal saves
        saves += 1
        if saves == 4 * 2 + 2:  # the second of four files of the third checkpoint
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save_file(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("rpbert.training.checkpoint.save_file", full)
        code, out, err = command(capsys, *given)
    (line,) = [line for line in err.splitlines() if line.startswith("rpbert: ")]
    assert (code, out) == (2, "")
    assert "No space left on device" in line
    assert "epoch-0001 is kept" in line
    assert "--resume" in line
    assert "Traceback" not in err
    assert places(tmp_path / "run") == ["epoch-0000-step-000003", "epoch-0001"]
    assert command(capsys, *given, "--resume")[0] == 0
    assert left_by(tmp_path / "run") == expected


def test_a_damaged_newest_checkpoint_costs_its_steps_and_nothing_else(
    undisturbed: tuple[Path, dict[str, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, expected = undisturbed
    train(settings(data), tmp_path / "run")
    newest = tmp_path / "run" / "checkpoints" / "epoch-0003"
    weights = newest / "system.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    capsys.readouterr()
    train(settings(data), tmp_path / "run", resume=True)
    said = capsys.readouterr().err
    assert f"{weights}: found changed content" in said
    assert "passed over for epoch-0002" in said
    assert left_by(tmp_path / "run") == expected


def test_what_decides_no_weights_may_change_and_other_posts_may_not(tmp_path: Path) -> None:
    data, run = data_folder(tmp_path / "data"), tmp_path / "run"
    train(settings(data, "bilstm_crf", epochs=1), run)
    train(
        settings(data, "bilstm_crf", epochs=1, checkpoint_steps=1, keep_checkpoints=5),
        run,
        resume=True,
    )
    text = (data / "train.txt").read_text()
    (data / "train.txt").write_text(text.replace("again\tO", "again\tB-PER", 1))
    with pytest.raises(InputError, match="other training posts"):
        train(settings(data, "bilstm_crf", epochs=1), run, resume=True)


@pytest.mark.parametrize("end", ["SIGKILL", "SIGTERM"])
def test_a_few_ends(config: Path, end: str) -> None:
    check(killed(config, end, 3), end, 3)


@pytest.mark.slow("SIGKILL at random moments of training, resume", "50 kills")
def test_many_kills(config: Path, soak: Soak) -> None:
    soak(check(killed(config, "SIGKILL", 50), "SIGKILL", 50))


@pytest.mark.slow("stop signals at random moments of training, resume", "25 SIGTERM, 25 SIGINT")
def test_many_stops(config: Path, soak: Soak, tmp_path: Path) -> None:
    for end in ("SIGTERM", "SIGINT"):
        folder = tmp_path / end
        folder.mkdir()
        own = folder / "run.yaml"
        own.write_text(config.read_text())
        soak(f"{end}: {check(killed(own, end, 25), end, 25)}")


@pytest.mark.slow("2 gloo processes resumed within an epoch", "1 run")
def test_two_processes_go_on_within_an_epoch(tmp_path: Path, soak: Soak) -> None:
    """Each with its own random generators."""
    data, run = data_folder(tmp_path / "data"), tmp_path / "run"
    write_yaml(
        settings(data, "bert", batch_size=3, checkpoint_steps=1, keep_checkpoints=100),
        tmp_path / "run.yaml",
    )
    launch = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", "-m", "rpbert"]
    given = [sys.executable, *launch, "train", str(tmp_path / "run.yaml"), "--output", str(run)]
    own = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(given, check=True, capture_output=True, env=own)
    expected = left_by(run)
    for name in places(run):
        if name > "epoch-0001-step-000001":
            shutil.rmtree(run / "checkpoints" / name)
    subprocess.run([*given, "--resume"], check=True, capture_output=True, env=own)
    assert left_by(run) == expected
    soak("weights, optimisers, generators and scores bit-equal")
