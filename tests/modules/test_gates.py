"""The gates against autograd, the softmax and the distribution they claim to draw from."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rpbert.modules.gates import (
    GATES,
    GumbelGate,
    OpenGate,
    SoftGate,
    StraightThroughGate,
)


def logits(rows: int = 64, scale: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return scale * torch.randn(rows, 2, generator=generator)


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_gate_gives_probabilities_in_float32(name: str, dtype: torch.dtype) -> None:
    gate = GATES[name]()
    for training in (True, False):
        probabilities = gate.train(training)(logits().to(dtype))
        assert probabilities.dtype == torch.float32
        assert probabilities.shape == (64, 2)
        assert (probabilities >= 0).all()
        torch.testing.assert_close(probabilities.sum(1), torch.ones(64))
        assert gate(torch.zeros(0, 2)).shape == (0, 2)


def test_straight_through_is_exactly_zero_or_one() -> None:
    x = torch.cat([logits(1000, scale=10.0), torch.zeros(1, 2)])  # a tie opens nothing
    hard = StraightThroughGate()(x)
    expected = [[float(a > b), float(b > a)] for a, b in x.tolist()]
    assert hard.tolist() == expected


def test_straight_through_has_the_gradient_of_the_softmax() -> None:
    weight = torch.randn(64, 2, generator=torch.Generator().manual_seed(1))
    x, y = logits().requires_grad_(), logits().requires_grad_()
    torch.autograd.backward((StraightThroughGate()(x) * weight).sum())
    torch.autograd.backward((torch.softmax(y, dim=1) * weight).sum())
    assert x.grad is not None
    assert y.grad is not None
    assert y.grad.abs().max() > 0.01
    torch.testing.assert_close(x.grad, y.grad)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 0.1])
def test_gumbel_in_evaluation_is_a_sharpened_softmax_without_noise(temperature: float) -> None:
    gate, x = GumbelGate().eval(), logits()
    gate.temperature.fill_(temperature)
    torch.testing.assert_close(gate(x), torch.softmax(x / temperature, dim=1))
    assert not torch.equal(gate.train()(x), gate(x))
    torch.testing.assert_close(SoftGate()(x), torch.softmax(x, dim=1))


@pytest.mark.parametrize(
    "odds",
    [(0.0, 0.0), (1.0, -0.5), (-2.0, 1.0), (1.5, 0.0, -1.0)],  # three tell g from -g
)
@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_each_column_wins_as_often_as_the_softmax_says(
    odds: tuple[float, ...], temperature: float
) -> None:
    torch.manual_seed(0)
    gate, draws = GumbelGate(), 200_000
    gate.temperature.fill_(temperature)
    sample = gate(torch.tensor(odds).expand(draws, len(odds)))
    for column, expected in enumerate(torch.softmax(torch.tensor(odds), dim=0).tolist()):
        frequency = (sample.argmax(1) == column).double().mean().item()
        standard_error = (expected * (1 - expected) / draws) ** 0.5
        assert abs(frequency - expected) < 4 * standard_error


def test_gumbel_has_finite_gradients_in_the_extremes() -> None:
    torch.manual_seed(0)
    gate = GumbelGate()
    gate.anneal(1.0)
    x = torch.tensor([[-1e4, 1e4], [1e4, -1e4], [0.0, 0.0]]).repeat(10_000, 1).requires_grad_()
    probabilities = gate(x)
    probabilities[:, 1].sum().backward()
    assert x.grad is not None
    assert probabilities.isfinite().all()
    assert x.grad.isfinite().all()


def test_annealing_runs_from_one_to_a_tenth() -> None:
    gate = GumbelGate()
    assert gate.temperature.item() == 1.0
    seen = []
    for step in range(11):
        gate.anneal(step / 10)
        seen.append(gate.temperature.item())
    assert seen == sorted(seen, reverse=True)
    # Exponential: half way is the geometric mean.
    assert [seen[i] for i in (0, 5, 10)] == pytest.approx([1.0, 0.1**0.5, 0.1])
    for progress in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="progress"):
            gate.anneal(progress)
    other = GumbelGate()  # which is saved with its τ
    other.load_state_dict(gate.state_dict())
    assert torch.equal(other.temperature, gate.temperature)


def test_the_open_gate_lets_everything_through() -> None:
    x = logits().requires_grad_()
    probabilities = OpenGate()(x)
    assert probabilities.tolist() == [[0.0, 1.0]] * 64
    assert not probabilities.requires_grad
