"""Figures against their definitions and NumPy; operations against a count by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rpbert.benchmark.measures import counting, percentile, spread
from rpbert.benchmark.parts import COUNTED, inference, operations
from rpbert.benchmark.work import SHAPES, Work

WORK = Work("bert", "tiny", batch=2, posts=2, repeats=1)
values = st.lists(st.floats(0, 1e6), min_size=1, max_size=50)


@given(values)
def test_a_spread_is_the_median_and_both_ends(times: list[float]) -> None:
    found = spread(times)
    assert found["median"] == pytest.approx(np.median(times))
    assert (found["low"], found["high"]) == (np.min(times), np.max(times))


@given(values, st.sampled_from([0.05, 0.5, 0.9, 0.95]))
def test_a_percentile_is_the_least_value_that_its_share_does_not_exceed(
    times: list[float], share: float
) -> None:
    reaching = [value for value in times if np.mean(np.array(times) <= value) >= share]
    assert percentile(times, share) == min(reaching)


def test_products_convolutions_and_attention_are_counted() -> None:
    query = torch.randn(1, 2, 5, 4)  # of 2 heads, 5 tokens and 4 numbers
    with torch.inference_mode(), counting() as counter:
        F.scaled_dot_product_attention(query, query, query)
        nn.Linear(3, 7)(torch.randn(2, 3))
        nn.Conv2d(3, 8, 3, padding=1)(torch.randn(1, 3, 6, 6))
    attention = 2 * (2 * 2 * 5 * 5 * 4)  # scores and what they weigh: a product and a sum as two
    assert counter.get_total_flops() == attention + 2 * 2 * 3 * 7 + 2 * 8 * 6 * 6 * 3 * 9


def by_hand(first: int = 0, lstm: bool = True) -> float:
    """Operations of a post forwards: the products of BERT, of the characters' and the words' LSTM.

    Args:
        first: number of the first post.
        lstm: count that of the words.
    """
    shape = SHAPES["tiny"]
    bert, tagger = shape.encoder["shape"], shape.tagger
    wide, inner, layers = (
        bert[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers")
    )
    hidden, vector, letter = (
        tagger[key] for key in ("lstm_hidden", "word_dimension", "character_dimension")
    )
    model = WORK.model()
    collator, total = model.collator(), 0
    for post in WORK.texts(first, COUNTED):
        batch = collator([post])
        tokens, words = batch.subwords.shape[1], len(post.words)
        letters = int((batch.form_characters != 0).sum())
        linear = tokens * (4 * wide * wide + 2 * wide * inner)
        attention = 2 * tokens * tokens * wide
        read = vector + 2 * letter + wide + 2 * hidden  # by the first layer, and by the second
        reading = words * 2 * 4 * hidden * (read + 2 * hidden)
        spelling = letters * 2 * 4 * letter * (letter + letter)
        tags = words * 2 * hidden * len(model.vocabulary.tags)
        total += layers * (linear + attention) + lstm * reading + spelling + tags
    return 2 * total / COUNTED


def test_the_operations_of_a_post_are_those_counted_by_hand() -> None:
    exact, half = inference(WORK, "fp32"), inference(WORK, "bf16")
    assert exact["gflop_per_post"] == pytest.approx(by_hand() / 1e9, rel=1e-9)
    assert exact["max_difference"] < 1e-5 < half["max_difference"] < 0.1
    assert exact["latency_seconds"]["p50"] <= exact["latency_seconds"]["p95"]


def test_a_step_backwards_takes_twice_the_operations_of_a_step_forwards() -> None:
    # Each product has two of its size behind it; whether the words' LSTM is seen, its kernel says.
    low, high = (by_hand(COUNTED, lstm) / 1e9 for lstm in (False, True))
    assert 2.95 * low < operations(replace(WORK, batch=4))["tagging"] < 3.05 * high
