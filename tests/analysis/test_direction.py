"""The paper's finding on controlled data: propagation moves attention to where the image adds."""

from __future__ import annotations

from pathlib import Path

import pytest

from rpbert.analysis.run import analyze
from rpbert.config import RunSettings
from rpbert.data.controlled import make
from rpbert.demo import POSTS, settings_of
from rpbert.training import train
from tests.soak import Soak

EPOCHS = 10
"""Twice the demo's: after five, `gate=none` still looks at every image alike (docs/results.md)."""


def settings(system: str, data: Path, seed: int) -> RunSettings:
    """The demo's, trained for longer."""
    run = settings_of(system, data, seed)
    return run.model_copy(update={"training": run.training.model_copy(update={"epochs": EPOCHS})})


@pytest.mark.slow("S_TV with propagation against without", "3 seeds, 6,000 posts each")
def test_s_tv_falls_on_irrelevant_posts_and_rises_on_relevant_ones(
    tmp_path: Path, soak: Soak
) -> None:
    """In the mean of each seed, posts told apart by their label; Fig. 3 and "Ablation study"."""
    changes: dict[str, list[float]] = {"irrelevant": [], "relevant": []}
    for seed in range(3):
        folder = tmp_path / str(seed)
        make(folder / "data", posts=POSTS, seed=seed)
        for system in ("rpbert", "none"):
            train(settings(system, folder / "data", seed), folder / system)
        found = analyze(
            str(folder / "rpbert"), folder / "data", folder / "out", against=str(folder / "none")
        )
        for row in found.summary.to_dict()["means"]:
            if (row["measure"], row["by"]) == ("s_tv", "label"):
                none, soft = row["models"][1]["mean"], row["models"][0]["mean"]
                print(f"seed {seed}, {row['relation']}: {none:.2f} → {soft:.2f}")
                changes[row["relation"]].append(row["change"]["mean"])
    soak(", ".join(f"{name} {' '.join(f'{v:+.2f}' for v in c)}" for name, c in changes.items()))
    assert len(changes["irrelevant"]) == len(changes["relevant"]) == 3
    assert max(changes["irrelevant"]) < 0
    assert min(changes["relevant"]) > 0
