"""Runs that are stopped, damaged or ended at any moment resume to the same bits."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from rpbert.config.reading import write_yaml
from rpbert.config.run import RunSettings
from rpbert.errors import InputError
from rpbert.inference import Tagger
from rpbert.training.train import train
from rpbert.training.trainer import Trainer
from tests.killing import left_by
from tests.test_cli import run as command
from tests.training_runs import data_folder, records, settings, with_data


def places(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Made posts, and what a run on them leaves."""
    folder = tmp_path_factory.mktemp("undisturbed")
    data = data_folder(folder / "data")
    train(settings(data), folder / "run")
    return data, left_by(folder / "run")


@pytest.mark.parametrize(
    ("system", "training", "source"),
    [
        ("rpbert", {}, None),
        ("rpbert", {"moments": "shared", "average": {"ema": 0.9}, "schedule": "blocks"}, None),
        ("rpbert", {"optimizer": "adam", "decay": "cosine"}, "mismatch"),
        ("bert", {"average": {"epochs": 2}}, None),
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
    for name in places(run):
        if name > "epoch-0001-step-000001":
            shutil.rmtree(run / "checkpoints" / name)
    train(chosen, run, resume=True)
    assert left_by(run) == expected


@pytest.mark.parametrize(
    ("moment", "at", "kept"),
    [
        ("step", 4 + 3, ["epoch-0001", "epoch-0001-step-000003"]),  # an epoch has 4 steps
        ("_score", 1, ["epoch-0000-step-000004"]),
        ("_save_model", 1, ["epoch-0001"]),
    ],
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_every_step_taken(
    undisturbed: tuple[Path, dict[str, str]],
    tmp_path: Path,
    moment: str,
    at: int,
    kept: list[str],
    number: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Within an epoch, while it is scored and while its model is saved."""
    data, expected = undisturbed
    run, calls = tmp_path / "run", Counter[str]()
    plain: dict[str, Any] = {}

    def watched(name: str) -> Any:
        def call(self: Trainer, *rest: Any) -> Any:
            calls[name] += 1
            if (name, calls[name]) == (moment, at):
                os.kill(os.getpid(), number)
            return plain[name](self, *rest)

        return call

    for name in {moment, "step"}:
        plain[name] = getattr(Trainer, name)
        monkeypatch.setattr(Trainer, name, watched(name))
    with pytest.raises(KeyboardInterrupt):
        train(settings(data), run)
    assert places(run) == kept
    assert (run / "metrics.jsonl").exists() == ("epoch-0001" in kept)
    train(settings(data), run, resume=True)
    assert calls["step"] == 2 * 4  # none was taken twice
    assert left_by(run) == expected


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
    for words in ("No space left on device", "epoch-0001 is kept", "--resume"):
        assert words in line
    assert "Traceback" not in err
    assert places(tmp_path / "run") == ["epoch-0000-step-000003", "epoch-0001"]
    assert command(capsys, *given, "--resume")[0] == 0
    assert left_by(tmp_path / "run") == expected


def test_what_a_killed_run_left_half_written_is_passed_over(data: Path, tmp_path: Path) -> None:
    """A record, or the model between the two renames of a save; or there was no checkpoint yet."""
    chosen, run = settings(data, "bilstm_crf"), tmp_path / "run"
    train(chosen, run)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "secon')
    (run / "model").rename(run / ".model.old-1234")
    (run / ".model.new-1234").mkdir()
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
    for part in (run / "model", *(run / "model").glob("*.safetensors")):
        (part.unlink if part.is_file() else lambda part=part: shutil.rmtree(part))()
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

    (run / ".model.old-1").mkdir(parents=True)
    refused("no run")
    assert [path.name for path in run.iterdir()] == [".model.old-1"]
    train(chosen, run)
    before = (run / "metrics.jsonl").read_bytes()
    refused("an earlier run", resume=False)
    assert (run / "metrics.jsonl").read_bytes() == before
    refused("batch_size", settings(data, "bilstm_crf", epochs=1, batch_size=2))
    kept = {"checkpoint_steps": 1, "keep_checkpoints": 5}  # these decide no weights
    train(settings(data, "bilstm_crf", epochs=1, **kept), run, resume=True)
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
