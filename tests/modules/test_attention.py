"""Attention: nothing to attend to, what is masked, and long posts in pieces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import BertConfig

from rpbert.modules import attention
from rpbert.modules.attention import (
    AdditiveAttention,
    CrossAttention,
    FeaturewiseAttention,
)

SHAPE = BertConfig(
    hidden_size=8, num_attention_heads=2, intermediate_size=12, hidden_dropout_prob=0.0,
    # So rarely that nothing is dropped; yet attention goes the way of training.
    attention_probs_dropout_prob=1e-9,
)  # fmt: skip
BLOCKS: dict[str, Callable[[], Any]] = {
    "additive": lambda: AdditiveAttention(query=8, key=8, hidden=6),
    "featurewise": lambda: FeaturewiseAttention(query=8, key=8),
    "cross": lambda: CrossAttention(SHAPE),
}
blocks = pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)


@blocks
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("tokens", [0, 3])
def test_attending_to_nothing_finds_nothing_and_learns(
    block: Callable[[], Any], tokens: int, training: bool
) -> None:
    """For the second post nothing is real, for the first all: each as if it were alone."""
    layer = block().train(training)
    queries = torch.randn(2, 4, 8, requires_grad=True)
    keys = torch.randn(2, tokens, 8, requires_grad=True)
    mask = torch.tensor([[True] * tokens, [False] * tokens], dtype=torch.bool)
    found = layer(queries, keys, mask)
    none = layer(queries[1:], keys[1:, :0], mask[1:, :0])
    torch.testing.assert_close(found[1:], none)
    torch.testing.assert_close(found[:1], layer(queries[:1], keys[:1], mask[:1]))
    found.sum().backward()
    for tensor in (queries.grad, keys.grad):
        assert tensor is None or torch.isfinite(tensor).all()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in layer.parameters())


@blocks
def test_what_is_not_real_changes_nothing(block: Callable[[], Any]) -> None:
    layer = block().eval()
    queries, keys = torch.randn(1, 4, 8), torch.randn(1, 5, 8)
    mask = torch.tensor([[True, True, True, False, False]])
    other = keys.clone()
    other[:, 3:] = 1e4
    torch.testing.assert_close(layer(queries, keys, mask), layer(queries, other, mask))
    torch.testing.assert_close(layer(queries, keys, mask), layer(queries, keys[:, :3], mask[:, :3]))


@pytest.mark.parametrize("kind", ["additive", "featurewise"])
def test_pieces_come_to_the_whole(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = BLOCKS[kind]()
    queries, keys = torch.randn(2, 7, 8), torch.randn(2, 5, 8)
    mask = torch.rand(2, 5) > 0.3
    whole = layer(queries, keys, mask)
    monkeypatch.setattr(attention, "PIECE", 2 * layer.of_key(keys).numel())  # two words at a time
    torch.testing.assert_close(layer(queries, keys, mask), whole)
    assert layer(queries[:, :0], keys, mask).shape == (2, 0, 8)
