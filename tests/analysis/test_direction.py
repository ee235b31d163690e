"""The paper's finding on controlled data: propagation moves attention to where the image adds."""

from __future__ import annotations

from pathlib import Path

import pytest

from rpbert.analysis.run import analyze
from rpbert.data.controlled import make
from rpbert.demo import POSTS, settings_of
from rpbert.training import train
from tests.soak import Soak


@pytest.mark.slow("S_TV with propagation against without", "3 seeds, 6,000 posts each")
def test_s_tv_falls_on_irrelevant_posts_and_rises_on_relevant_ones(
    tmp_path: Path, soak: Soak
) -> None:
    """In the mean of each seed, posts told apart by r as in "Ablation study"."""
    changes: dict[str, list[float]] = {"irrelevant": [], "relevant": []}
    for seed in range(3):
        folder = tmp_path / str(seed)
        make(folder / "data", posts=POSTS, seed=seed)
        for system in ("rpbert", "none"):
            train(settings_of(system, folder / "data", seed), folder / system)
        found = analyze(
            str(folder / "rpbert"), folder / "data", folder / "out", against=str(folder / "none")
        )
        for row in found.summary.to_dict()["means"]:
            if (row["measure"], row["by"]) == ("s_tv", "r"):
                changes[row["relation"]].append(row["change"]["mean"])
    soak(", ".join(f"{name} {' '.join(f'{v:+.2f}' for v in c)}" for name, c in changes.items()))
    assert len(changes["irrelevant"]) == len(changes["relevant"]) == 3
    assert max(changes["irrelevant"]) < 0
    assert min(changes["relevant"]) > 0
