"""The paper's finding on controlled data: propagation moves attention to where the image adds."""

from __future__ import annotations

from pathlib import Path

import pytest

from rpbert.analysis.run import analyze
from rpbert.synthetic.controlled import make
from rpbert.synthetic.demo import POSTS, settings_of
from rpbert.training.train import train
from tests.soak import Soak

EPOCHS = 10
"""Twice the demo's: after five, `gate=none` still looks at every image alike (docs/results.md)."""


@pytest.mark.slow("S_TV with propagation against without", "3 seeds, 6,000 posts each")
def test_s_tv_falls_on_irrelevant_posts_and_rises_on_relevant_ones(
    tmp_path: Path, soak: Soak
) -> None:
    """Posts told apart by their label; Fig. 3 and "Ablation study".

    The direction holds in the mean of the seeds; in each of them propagation makes attention tell
    relevant images from irrelevant ones (docs/results.md).
    """
    changes = [changes_of(tmp_path / str(seed), seed) for seed in range(3)]
    irrelevant, relevant = zip(*changes, strict=True)
    told = {"irrelevant": irrelevant, "relevant": relevant}
    soak(", ".join(f"{k} {' '.join(f'{v:+.2f}' for v in seeds)}" for k, seeds in told.items()))
    assert sum(irrelevant) < 0 < sum(relevant)
    assert all(low < high for low, high in changes)


def changes_of(folder: Path, seed: int) -> tuple[float, float]:
    """What propagation adds to mean S_TV of irrelevant and of relevant test posts."""
    make(folder / "data", posts=POSTS, seed=seed)
    for system in ("rpbert", "none"):
        run = settings_of(system, folder / "data", seed)
        longer = run.training.model_copy(update={"epochs": EPOCHS})
        train(run.model_copy(update={"training": longer}), folder / system)
    data, against = folder / "data", str(folder / "none")
    found = analyze(str(folder / "rpbert"), data, folder / "out", against=against).summary
    rows = [r for r in found.to_dict()["means"] if (r["measure"], r["by"]) == ("s_tv", "label")]
    changes = {row["relation"]: row["change"]["mean"] for row in rows}
    return changes["irrelevant"], changes["relevant"]
