"""The paired bootstrap against a plain loop, and where its answer is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rpbert.evaluation.bootstrap import paired_bootstrap, ratios

Outcomes = np.ndarray[Any, Any]


def f1_outcomes(runs: int, posts: int, seed: int, right: float) -> Outcomes:
    """Made counts of gold, predicted and correct entities as numerators and denominators."""
    draw = np.random.default_rng(seed)
    gold = np.random.default_rng(0).integers(0, 4, posts)  # the same posts for all systems
    correct = draw.binomial(np.tile(gold, (runs, 1)), right)
    predicted = correct + draw.integers(0, 2, (runs, posts))
    return np.stack([2 * correct, gold + predicted], axis=-1).astype(float)


def looped_f1(outcomes: Outcomes, posts: list[int]) -> float:
    """Mean over runs of F1 over the posts drawn."""
    scores = []
    for run in outcomes:
        top = sum(run[post][0] for post in posts)
        bottom = sum(run[post][1] for post in posts)
        scores.append(top / bottom if bottom else 0.0)
    return sum(scores) / len(scores)


def test_ratios_are_a_plain_loop() -> None:
    outcomes = f1_outcomes(3, 20, 1, 0.7)
    drawn = [[0, 0, 5, 19], [3], []]
    weights = np.array([np.bincount(posts, minlength=20) for posts in drawn[:2]] + [[0] * 20])
    expected = [looped_f1(outcomes, posts) for posts in drawn]
    np.testing.assert_allclose(ratios(outcomes, weights), expected)


def test_p_is_a_plain_loop() -> None:
    first, second = f1_outcomes(2, 30, 1, 0.7), f1_outcomes(2, 30, 2, 0.6)
    every = list(range(30))
    observed = looped_f1(first, every) - looped_f1(second, every)
    draw = np.random.default_rng(7)
    beyond = 0
    for posts in draw.integers(30, size=(150, 30)).tolist():
        difference = looped_f1(first, posts) - looped_f1(second, posts)
        beyond += abs(difference - observed) >= abs(observed)
    assert paired_bootstrap(first, second, 150, seed=7) == pytest.approx((beyond + 1) / 151)


def test_the_same_system_twice_differs_by_chance_and_a_far_better_one_does_not() -> None:
    none, same = np.zeros((1, 0, 2)), f1_outcomes(3, 50, 1, 0.7)
    assert paired_bootstrap(none, none) == paired_bootstrap(same, same) == 1.0
    worse = same.copy()
    worse[:, :, 0] /= 3
    assert paired_bootstrap(same, worse, 500) == pytest.approx(1 / 501)
    assert paired_bootstrap(worse, same, 500) == pytest.approx(1 / 501)
