"""Runs that are stopped, killed or damaged at any moment resume to the same bits."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import threading
from collections import Counter
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias
from unittest.mock import DEFAULT, patch

import pydantic
import pytest
from safetensors.torch import save_file

from rpbert.config.reading import write_yaml
from rpbert.config.run import RunSettings
from rpbert.errors import InputError
from rpbert.inference import Tagger
from rpbert.stopping import StopSignals
from rpbert.training.train import train
from rpbert.training.trainer import Trainer
from tests.killing import KILLED, FaultyDisk, left_by, outcome
from tests.soak import Soak
from tests.training_runs import (
    TORCHRUN,
    cut_back,
    data_folder,
    places,
    python,
    records,
    settings,
    with_data,
)

Undisturbed: TypeAlias = tuple[Path, dict[str, str]]
"""Made posts, and what a run on them leaves."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    data = data_folder(folder / "data")
    train(settings(data), folder / "run")
    return data, left_by(folder / "run")


@pytest.mark.parametrize(
    ("system", "training", "source"),
    [
        ("rpbert", {"moments": "shared", "average": {"ema": 0.9}, "schedule": "blocks"}, None),
        ("rpbert", {"optimizer": "adam", "decay": "cosine"}, "mismatch"),
    ],
)
def test_a_run_goes_on_within_an_epoch_bit_for_bit(
    data: Path, tmp_path: Path, system: str, training: dict[str, Any], source: str | None
) -> None:
    """Dropout, moments, means of the weights and pairs that are drawn every epoch."""
    chosen = settings(data, system, checkpoint_steps=1, keep_checkpoints=100, **training)
    chosen = with_data(chosen, relation_source=source)
    run = tmp_path / "run"
    train(chosen, run)
    expected = left_by(run)
    cut_back(run)
    train(chosen, run, resume=True)
    assert left_by(run) == expected


@pytest.mark.parametrize(
    "case",
    [
        ("step", 4 + 3, ["epoch-0001", "epoch-0001-step-000003"]),  # an epoch has 4 steps
        ("_score", 1, ["epoch-0000-step-000004"]),
        ("_save_model", 1, ["epoch-0001"]),
    ],
)
def test_a_signal_keeps_every_step_taken(
    undisturbed: Undisturbed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: Any
) -> None:
    """Within an epoch, while it is scored and while its model is saved."""
    (data, expected), (moment, at, kept) = undisturbed, case
    run, calls = tmp_path / "run", Counter[str]()

    def watch(name: str) -> None:
        plain = getattr(Trainer, name)

        def call(self: Trainer, *rest: Any) -> Any:
            calls[name] += 1
            if (name, calls[name]) == (moment, at):
                os.kill(os.getpid(), signal.SIGTERM)
            return plain(self, *rest)

        monkeypatch.setattr(Trainer, name, call)

    for name in {moment, "step"}:
        watch(name)
    with pytest.raises(KeyboardInterrupt):
        train(settings(data), run)
    assert places(run) == kept
    assert (run / "metrics.jsonl").exists() == ("epoch-0001" in kept)
    train(settings(data), run, resume=True)
    assert calls["step"] == 2 * 4  # none was taken twice
    assert left_by(run) == expected


def test_a_full_disk_is_one_line_that_says_what_is_kept_and_how_to_go_on(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    (data, expected), run = undisturbed, tmp_path / "run"
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with patch("rpbert.training.checkpoint.save_file", wraps=save_file) as save:
        save.side_effect = [*[DEFAULT] * 9, full]  # the second of four files of the third one
        with pytest.raises(InputError, match=r"No space left.* epoch-0001 is kept.* --resume"):
            train(settings(data, checkpoint_steps=3), run)
    assert places(run) == ["epoch-0000-step-000003", "epoch-0001"]
    train(settings(data), run, resume=True)  # how often it saves decides no weights
    assert left_by(run) == expected


def test_what_a_killed_run_left_half_written_is_passed_over(data: Path, tmp_path: Path) -> None:
    """A record, or the model between the two renames of a save; or there was no checkpoint yet."""
    chosen, run = settings(data, "bilstm_crf"), tmp_path / "run"
    train(chosen, run)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "secon')
    (run / "model").rename(run / ".model.old")
    (run / ".model.new").mkdir()
    result = train(chosen, run, resume=True)
    assert len(records(run)) == 2
    assert Tagger.from_pretrained(result.model).predict("Ada").text == "Ada"
    assert not list(run.glob(".model*"))
    expected = left_by(run)
    shutil.rmtree(run / "checkpoints")
    train(chosen, run, resume=True)
    assert left_by(run) == expected


def test_a_lost_model_is_written_again_from_the_best_checkpoint_or_refused(
    data: Path, tmp_path: Path
) -> None:
    """The weights of the last epoch are not those of the best."""
    chosen, run = settings(data, "bilstm_crf", epochs=4, keep_checkpoints=1), tmp_path / "run"
    result = train(chosen, run)
    assert result.epoch < 4
    expected = left_by(run)
    (run / "model" / "model.safetensors").unlink()
    again = train(chosen, run, resume=True)
    assert (again.epoch, again.f1) == (result.epoch, result.f1)
    assert left_by(run) == expected
    shutil.rmtree(run / "model")
    shutil.rmtree(run / "checkpoints" / f"epoch-{result.epoch:04d}")
    with pytest.raises(InputError, match="no whole model"):
        train(chosen, run, resume=True)


def test_what_cannot_be_resumed_is_named_and_left_as_it_is(data: Path, tmp_path: Path) -> None:
    run, chosen = tmp_path / "run", settings(data, "bilstm_crf", epochs=1)

    def refused(words: str, given: RunSettings = chosen, resume: bool = True) -> None:
        with pytest.raises(InputError, match=words):
            train(given, run, resume=resume)

    (run / ".model.old").mkdir(parents=True)
    refused("no run")
    assert [path.name for path in run.iterdir()] == [".model.old"]
    train(chosen, run)
    before = (run / "metrics.jsonl").read_bytes()
    refused("an earlier run", resume=False)
    assert (run / "metrics.jsonl").read_bytes() == before
    refused("batch_size", settings(data, "bilstm_crf", epochs=1, batch_size=2))
    text = (data / "train.txt").read_text()
    (data / "train.txt").write_text(text.replace("again\tO", "again\tB-PER", 1))
    refused("other training posts")
    (data / "train.txt").write_text(text)
    (run / "metrics.jsonl").write_text("{broken\n")
    refused(r"metrics\.jsonl:1")
    (run / "metrics.jsonl").write_text(json.dumps({"epoch": 1}) + "\n")
    weights = run / "checkpoints" / "epoch-0001" / "system.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    refused("epoch-0001")


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


def test_a_run_killed_at_any_moment_goes_on_to_the_same_bits(data: Path, tmp_path: Path) -> None:
    """In each of some operations on the disk, half of what it writes is there."""
    chosen = settings(data, checkpoint_steps=3)

    def work(run: Path, disk: FaultyDisk) -> None:
        with disk.in_place():
            train(chosen, run, resume=(run / "config.yaml").exists())
        (run / "operations").write_text(str(disk.count))

    calm = FaultyDisk(tmp_path, -1, "kill")
    assert outcome(partial(work, tmp_path / "calm", calm)) == 0
    expected = left_by(tmp_path / "calm")
    count = int((tmp_path / "calm" / "operations").read_text())
    for number in range(0, count, count // 12):
        run = tmp_path / str(number)
        assert outcome(partial(work, run, FaultyDisk(tmp_path, number, "kill"))) == KILLED
        assert outcome(partial(work, run, calm)) == 0
        assert left_by(run) == expected, number


@pytest.mark.slow("2 gloo processes resumed within an epoch", "1 run")
def test_two_processes_go_on_within_an_epoch(data: Path, tmp_path: Path, soak: Soak) -> None:
    """Each with its own random generators."""
    run, config = tmp_path / "run", tmp_path / "run.yaml"
    own = {"batch_size": 3, "checkpoint_steps": 1, "keep_checkpoints": 100}
    write_yaml(settings(data, "bert", **own), config)
    given = [*TORCHRUN, "rpbert", "train", str(config), "--output", str(run)]
    python(*given)
    expected = left_by(run)
    cut_back(run)
    python(*given, "--resume")
    assert left_by(run) == expected
    soak("weights, optimisers, generators and scores bit-equal")
