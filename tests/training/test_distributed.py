"""Several processes train as one: the same losses, step by step, and each post scored once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from rpbert.config.reading import write_yaml
from rpbert.config.run import RunSettings, load_run
from rpbert.training.train import train
from tests.conftest import ENCODER, TAGGER, TINY
from tests.training_runs import TORCHRUN, places, python, records, settings, with_data


def without_chance(data: Path, system: str, **training: Any) -> RunSettings:
    """A run whose steps draw nothing: no dropout, and no statistics of a process's own share."""
    quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    encoder = {**ENCODER, "shape": {**ENCODER["shape"], **quiet}}
    tagger = {**TAGGER, "dropout": 0.0}
    model = {"system": system, **TINY[system], "tagger": tagger, "encoder": encoder}
    return settings(data, system, **training).model_copy(update={"model": model})


def test_two_processes_train_as_one(data: Path, tmp_path: Path) -> None:
    """Of 7 posts in batches of 3, so that shares differ and one process goes without."""
    rates = {"head": 1e-3, "encoder": 1e-4, "projection": 1e-3, "visual": 0.0}
    chosen = without_chance(data, "rpbert", batch_size=3, relation=rates, tagging=rates)
    config = tmp_path / "run.yaml"
    write_yaml(with_data(chosen, posts=7), config)
    train(load_run(config), tmp_path / "one")
    python(*TORCHRUN, "rpbert", "train", str(config), "--output", str(tmp_path / "two"))
    for run, processes in (("one", {"0"}), ("two", {"0", "1"})):
        last = tmp_path / run / "checkpoints" / places(tmp_path / run)[-1]
        drawn = load_file(last / "generators.safetensors")
        assert {name.partition("/")[0] for name in drawn} == processes
    one, two = records(tmp_path / "one"), records(tmp_path / "two")
    worst = 0.0
    for single, shared in zip(one, two, strict=True):
        assert single["loss"].keys() == shared["loss"].keys() == {"relation", "tagging"}
        worst = max(worst, *(abs(single["loss"][t] - shared["loss"][t]) for t in single["loss"]))
        assert shared["dev"] == single["dev"]
        assert shared["dev"]["posts"] == 7
        assert shared["images"] == single["images"]
    assert worst < 1e-5 / 7  # an epoch's mean hides no step, not even that of one post
    assert one[0]["loss"]["tagging"] - one[-1]["loss"]["tagging"] > 100 * worst
