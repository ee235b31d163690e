"""Running figures against those of NumPy over all values at once."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpbert.analysis.statistics import Correlation, Mean, Sample, shares

numbers = st.floats(-1e3, 1e3)


@given(st.lists(numbers, max_size=30))
def test_mean_and_its_error(values: list[float]) -> None:
    running = Mean()
    for value in values:
        running.add(value)
    assert running.count == len(values)
    assert running.mean == pytest.approx(np.mean(values) if values else 0.0, abs=1e-6)
    if len(values) < 2:
        assert running.error is None
    else:
        expected = np.std(values, ddof=1) / np.sqrt(len(values))
        assert running.error == pytest.approx(expected, abs=1e-6)


def test_correlation() -> None:
    draw = np.random.default_rng(0)
    x = draw.normal(5, 2, 400)
    y = 0.3 * x + draw.normal(0, 1, 400)
    running = Correlation()
    assert running.value is None
    for pair in zip(x.tolist(), y.tolist(), strict=True):
        running.add(*pair)
    assert running.value == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-12)


def test_a_correlation_with_a_constant_is_none() -> None:
    running = Correlation()
    for x in (1.0, 2.0, 3.0):
        running.add(x, 4.0)
    assert running.value is None


def test_a_sample_is_uniform_bounded_in_order_and_lazy() -> None:
    drawn: Counter[int] = Counter()
    of_sample: Counter[int] = Counter()
    made = 0
    for seed in range(3000):
        sample: Sample[int] = Sample(3, seed)
        for number in range(12):

            def make(number: int = number) -> int:
                nonlocal made
                made += 1
                return number

            sample.offer(make)
        kept = sample.items()
        assert (len(kept), kept) == (3, sorted(kept))
        drawn.update(kept)
        (one,) = sample.items(1)
        assert one in kept
        of_sample[one] += 1
    # Each of 12 is kept with probability 1/4: 750 times of 3000, standard deviation 24.
    assert all(abs(drawn[number] - 750) < 5 * 24 for number in range(12))
    # And alone with probability 1/12: 250 times, standard deviation 15.
    assert all(abs(of_sample[number] - 250) < 5 * 15 for number in range(12))
    assert made < 3000 * 9


def test_a_small_stream_is_kept_whole() -> None:
    sample: Sample[str] = Sample(5)
    for letter in "abc":
        sample.offer(lambda letter=letter: letter)  # type: ignore[misc]
    assert (sample.items(), sample.offered) == (["a", "b", "c"], 3)


@given(
    st.dictionaries(st.sampled_from("abcde"), st.integers(0, 40), min_size=1), st.integers(0, 60)
)
def test_shares_are_fair(offered: dict[str, int], room: int) -> None:
    taken = shares(offered, room)
    assert sum(taken.values()) == min(room, sum(offered.values()))
    for kind, count in taken.items():
        assert count <= offered[kind]
        # None that could have more lags behind another by more than one.
        if count < offered[kind]:
            assert max(taken.values()) <= count + 1
