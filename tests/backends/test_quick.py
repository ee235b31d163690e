"""Quick layers against PyTorch's plain ones."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertSelfAttention

from rpbert.backends.packed import OneDnn
from rpbert.backends.quick import LOTS, QuickDropout, QuickLinear, quicken
from rpbert.modules.encoder import attend
from tests.conftest import made_posts, tiny


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9, 1e-9])
def test_dropout_drops_the_share_it_should_and_keeps_the_mean(p: float) -> None:
    values = torch.full((1001, 999), 3.0)
    found = QuickDropout(p).train()(values)
    share = max(p, 1 / LOTS)
    assert float((found == 0).float().mean()) == pytest.approx(share, abs=3e-3)
    assert float(found.mean()) == pytest.approx(3.0, rel=0.02)
    assert len(found.unique()) <= 2


def test_dropout_is_drawn_value_by_value() -> None:
    """Neighbours, rows and calls know nothing of one another."""
    dropout = QuickDropout(0.5).train()
    first, second = (dropout(torch.ones(400, 600)) > 0 for _ in range(2))
    pairs = [
        (first, second),
        (first[:, 1:], first[:, :-1]),
        (first[1:], first[:-1]),
        (first[:, 4:], first[:, :-4]),
    ]
    for one, other in pairs:
        assert float((one == other).float().mean()) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_gradient_goes_where_the_values_went(dtype: torch.dtype) -> None:
    values = torch.randn(7, 5, dtype=dtype, requires_grad=True)
    found = QuickDropout(0.4).train()(values)
    assert found.dtype == dtype
    gradient = torch.randn(7, 5, dtype=dtype)
    found.backward(gradient)
    scale = (found / values).detach()
    assert values.grad is not None
    torch.testing.assert_close(values.grad, gradient * scale, atol=0.02, rtol=0.02)


def test_the_same_seed_drops_the_same_values() -> None:
    dropout, values = QuickDropout(0.3).train(), torch.ones(50)
    torch.manual_seed(1)
    first = dropout(values)
    torch.manual_seed(1)
    assert torch.equal(dropout(values), first)
    assert not torch.equal(dropout(values), first)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_nothing_or_all_is_dropped(p: float) -> None:
    values = torch.randn(9)
    assert torch.equal(QuickDropout(p).train()(values), values * (1 - p))
    assert torch.equal(QuickDropout(0.5).eval()(values), values)
    assert QuickDropout(0.5).train()(values[:0]).shape == (0,)


@pytest.mark.skipif(not OneDnn.available(), reason="this PyTorch has no oneDNN")
@pytest.mark.parametrize("shape", [(5,), (2, 3), (1, 1), (0,)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_and_its_gradients(shape: tuple[int, ...], bias: bool) -> None:
    plain = nn.Linear(16, 24, bias)
    quick = QuickLinear(plain)
    assert quick.weight is plain.weight
    rows = torch.randn(*shape, 16, requires_grad=True)
    parameters = [rows, *plain.parameters()]
    expected = plain(rows)
    found = quick(rows)
    torch.testing.assert_close(found, expected)
    towards = torch.randn_like(expected)
    for one, other in zip(
        torch.autograd.grad(found, parameters, towards),
        torch.autograd.grad(expected, parameters, towards),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_a_linear_layer_follows_autocast() -> None:
    plain = nn.Linear(16, 24)
    rows = torch.randn(3, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(QuickLinear(plain)(rows), plain(rows))


def test_a_quick_system_has_the_names_parameters_and_results_of_the_plain_one() -> None:
    model = tiny("rpbert")
    batch = model.collator()(made_posts())
    expected = model.system(batch).emissions
    before = dict(model.system.named_parameters())
    quicken(model.system)
    after = dict(model.system.named_parameters())
    assert list(after) == list(before)
    assert all(after[name] is parameter for name, parameter in before.items())
    kinds = [type(module) for module in model.system.modules()]
    assert QuickDropout in kinds
    assert nn.Dropout not in kinds
    assert (nn.Linear not in kinds) == OneDnn.available()
    torch.testing.assert_close(model.system(batch).emissions, expected)


def test_attention_that_may_drop_attends_like_the_fused_one() -> None:
    """What would drop is itself out of training here, so that both ways can be compared."""
    config = BertConfig(hidden_size=16, num_attention_heads=4, attention_probs_dropout_prob=0.3)
    attention = BertSelfAttention(config).train()
    attention.dropout.eval()
    queries, context = torch.randn(3, 2, 16), torch.randn(3, 6, 16)
    mask = torch.arange(6) < torch.tensor([6, 1, 4])[:, None]
    with torch.no_grad():
        found = attend(attention, queries, context, mask)
        fused = attend(attention.eval(), queries, context, mask)
    torch.testing.assert_close(found, fused, atol=1e-5, rtol=1e-5)
    attention.train()
    assert not torch.allclose(attend(attention, queries, context, mask), fused)


def test_dropout_of_attention_keeps_its_mean() -> None:
    config = BertConfig(hidden_size=16, num_attention_heads=4, attention_probs_dropout_prob=0.2)
    attention = BertSelfAttention(config)
    quicken(attention)
    rows, mask = torch.randn(1, 5, 16), torch.ones(1, 5, dtype=torch.bool)
    with torch.no_grad():
        expected = attend(attention.eval(), rows, rows, mask)
        many = [attend(attention.train(), rows, rows, mask) for _ in range(3000)]
    error = (torch.stack(many).mean(0) - expected).abs().max()
    assert float(error) < 0.1 * float(F.relu(expected).max())
