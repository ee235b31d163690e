"""Going on with a run: what it leaves behind, damaged or whole, and whose it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rpbert.errors import InputError
from rpbert.inference import Tagger
from rpbert.training.train import train
from rpbert.training.trainer import Trainer
from tests.training_runs import data_folder, settings


@pytest.mark.parametrize(
    ("system", "moments"), [("rpbert", "task"), ("rpbert", "shared"), ("bert", "task")]
)
def test_resuming_gives_the_weights_of_the_undisturbed_run(
    system: str, moments: str, tmp_path: Path
) -> None:
    """Bit for bit, dropout and all; the disturbed run is stopped after its first epoch."""
    data = data_folder(tmp_path / "data")
    train(settings(data, system, moments=moments), tmp_path / "whole")
    stopped = settings(data, system, moments=moments)

    class Stop(Exception):
        pass

    epoch = Trainer._epoch

    def stopping(self: Trainer, *rest: Any) -> None:
        if self.progress.epoch == 1:
            raise Stop
        epoch(self, *rest)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        patch.setattr(Trainer, "_epoch", stopping)
        train(stopped, tmp_path / "resumed")
    torch.manual_seed(99)
    train(stopped, tmp_path / "resumed", resume=True)
    file = Path("checkpoints/epoch-0003/system.safetensors")
    whole, resumed = load_file(tmp_path / "whole" / file), load_file(tmp_path / "resumed" / file)
    assert whole.keys() == resumed.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name


def test_a_run_stopped_before_its_first_checkpoint_starts_anew(tmp_path: Path) -> None:
    data = data_folder(tmp_path / "data")
    chosen = settings(data, "bilstm_crf", epochs=1)
    train(chosen, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    train(chosen, tmp_path / "run", resume=True)
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 1


def test_a_run_killed_while_it_wrote_a_record_or_its_model_goes_on(tmp_path: Path) -> None:
    data, run = data_folder(tmp_path / "data"), tmp_path / "run"
    train(settings(data, "bilstm_crf", epochs=2), run)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "secon')
    (run / "model").rename(run / ".model.old-1234")  # between the two renames of a save
    (run / ".model.new-1234").mkdir()
    result = train(settings(data, "bilstm_crf", epochs=2), run, resume=True)
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
    assert Tagger.from_pretrained(result.model).predict("Ada").text == "Ada"
    assert not list(run.glob(".model*"))


def test_resuming_what_is_no_run_leaves_it_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "run" / ".model.old-1").mkdir(parents=True)
    with pytest.raises(InputError, match="no run"):
        train(settings(tmp_path, "bilstm_crf"), tmp_path / "run", resume=True)
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".model.old-1"]


def test_a_lost_model_is_written_again_from_the_checkpoint_of_the_best_epoch(
    tmp_path: Path,
) -> None:
    data, run = data_folder(tmp_path / "data"), tmp_path / "run"
    result = train(settings(data, "bilstm_crf", epochs=1), run)
    before = load_file(result.model / "model.safetensors")
    shutil.rmtree(run / "model")
    again = train(settings(data, "bilstm_crf", epochs=1), run, resume=True)
    after = load_file(again.model / "model.safetensors")
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert (again.epoch, again.f1) == (result.epoch, result.f1)


def test_a_finished_run_without_its_model_and_its_best_checkpoint_says_so(tmp_path: Path) -> None:
    """The weights of the last epoch are not those of the best."""
    data, run = data_folder(tmp_path / "data"), tmp_path / "run"
    chosen = settings(data, "bilstm_crf", epochs=4, keep_checkpoints=1)
    result = train(chosen, run)
    assert result.epoch < 4
    shutil.rmtree(run / "model")
    shutil.rmtree(run / "checkpoints" / f"epoch-{result.epoch:04d}")
    with pytest.raises(InputError, match="no whole model"):
        train(chosen, run, resume=True)


def test_a_damaged_record_is_named_by_its_line(tmp_path: Path) -> None:
    data, run = data_folder(tmp_path / "data"), tmp_path / "run"
    train(settings(data, "bilstm_crf", epochs=1), run)
    (run / "metrics.jsonl").write_text("{broken\n")
    with pytest.raises(InputError, match=r"metrics\.jsonl:1"):
        train(settings(data, "bilstm_crf", epochs=1), run, resume=True)


def test_a_damaged_checkpoint_is_one_line(tmp_path: Path) -> None:
    data = data_folder(tmp_path / "data")
    chosen = settings(data, "bilstm_crf", epochs=1)
    train(chosen, tmp_path / "run")
    weights = tmp_path / "run" / "checkpoints" / "epoch-0001" / "system.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(InputError, match="epoch-0001"):
        train(chosen, tmp_path / "run", resume=True)


def test_bfloat16_learns_and_a_run_in_another_precision_follows(tmp_path: Path) -> None:
    data = data_folder(tmp_path / "data")
    for precision in ("bf16", "fp32"):
        train(settings(data, epochs=3, precision=precision), tmp_path / precision)
        lines = (tmp_path / precision / "metrics.jsonl").read_text().splitlines()
        losses = [json.loads(line)["loss"]["tagging"] for line in lines]
        assert losses[-1] < losses[0]


def test_an_earlier_run_is_never_written_over(tmp_path: Path) -> None:
    data = data_folder(tmp_path / "data")
    train(settings(data, "bilstm_crf", epochs=1), tmp_path / "run")
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    with pytest.raises(InputError, match="an earlier run"):
        train(settings(data, "bilstm_crf", epochs=1), tmp_path / "run")
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


def test_resuming_with_other_settings_is_refused(tmp_path: Path) -> None:
    data = data_folder(tmp_path / "data")
    train(settings(data, "bilstm_crf", epochs=1), tmp_path / "run")
    with pytest.raises(InputError, match="batch_size"):
        train(settings(data, "bilstm_crf", epochs=1, batch_size=2), tmp_path / "run", resume=True)
