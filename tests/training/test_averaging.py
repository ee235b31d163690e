"""Means of the weights, held to the mean worked out beside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor

from rpbert.config.run import AverageSettings
from rpbert.inference import Decoder
from rpbert.models.tagger import System
from rpbert.training.train import train
from rpbert.training.trainer import Average
from tests.conftest import made_posts, tiny
from tests.training_runs import settings

NAME = "tagger.to_tags.weight"


def moved(system: System, by: float) -> Tensor:
    """Move every weight, and give one of them."""
    with torch.no_grad():
        for parameter in system.parameters():
            parameter.add_(by)
    return system.get_parameter(NAME).detach().clone()


def test_the_moving_average_is_the_recurrence() -> None:
    system = tiny("bilstm_crf").system
    mean = Average(system, AverageSettings(ema=0.5), 1)
    expected = None
    for step in range(1, 9):
        value = moved(system, 1.0 / step)
        mean.after_step()
        keep = min(0.5, step / (9 + step))
        expected = value if expected is None else keep * expected + (1 - keep) * value
        torch.testing.assert_close(mean.system.get_parameter(NAME), expected)
        mean.after_epoch(step)


def test_the_mean_of_epochs_takes_each_of_the_last_ones_once() -> None:
    system = tiny("bilstm_crf").system
    mean = Average(system, AverageSettings(epochs=3), 5)
    values = []
    for number in range(1, 6):
        mean.after_step()
        values.append(moved(system, float(number)))
        mean.after_epoch(number)
        mean.after_epoch(number)  # as a run does that was stopped while it scored
        expected = torch.stack(values[2:]).mean(0) if number > 2 else values[-1]
        torch.testing.assert_close(mean.system.get_parameter(NAME), expected)


def test_the_mean_computes_with_modules_of_its_own() -> None:
    """A caption encoder that shares the encoder's table reads that of the mean."""
    model = tiny("rpbert", evidence={"captions": {}})
    mean = Average(model.system, AverageSettings(ema=0.9), 1)
    mean.after_step()
    batch = model.collator()(made_posts())
    before = mean.system.eval()(batch).emissions
    moved(model.system, 1.0)
    torch.testing.assert_close(mean.system(batch).emissions, before)


def test_a_mean_is_of_one_kind() -> None:
    for given in ({}, {"ema": 0.9, "epochs": 2}, {"ema": 1.0}, {"epochs": 1}):
        with pytest.raises(ValidationError):
            AverageSettings.model_validate(given)


@pytest.mark.parametrize("average", [{"ema": 0.9}, {"epochs": 2}])
def test_a_run_scores_and_saves_the_mean(
    average: dict[str, Any], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, scored = Decoder.decode, []

    def watched(self: Decoder, *rest: Any) -> Any:
        scored.append(self.model.system is self.system)  # and with its own CRF
        return decode(self, *rest)

    monkeypatch.setattr(Decoder, "decode", watched)
    chosen = settings(data, "bilstm_crf", average=average, epochs=3, keep_checkpoints=3)
    result = train(chosen, tmp_path / "run")
    assert all(scored)
    checkpoints = tmp_path / "run" / "checkpoints"
    saved = load_file(result.model / "model.safetensors")
    place = checkpoints / f"epoch-{result.epoch:04d}"
    unaveraged = "epochs" in average and result.epoch == 1  # no mean yet
    kept = load_file(place / f"{'system' if unaveraged else 'average'}.safetensors")
    assert torch.equal(saved[NAME], kept[NAME if unaveraged else f"module.{NAME}"])
    if "epochs" in average:
        ends = [load_file(checkpoints / f"epoch-000{n}" / "system.safetensors") for n in (2, 3)]
        mean = load_file(checkpoints / "epoch-0003" / "average.safetensors")
        torch.testing.assert_close(mean[f"module.{NAME}"], (ends[0][NAME] + ends[1][NAME]) / 2)
