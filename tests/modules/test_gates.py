"""The gates against autograd, the softmax and the distribution they claim to draw from."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rpbert.modules.gates import (
    GATES,
    Gate,
    GumbelGate,
    OpenGate,
    SoftGate,
    StraightThroughGate,
)


def logits(rows: int = 64, scale: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return scale * torch.randn(rows, 2, generator=generator)


def test_the_registry_holds_the_papers_gates() -> None:
    assert {
        "soft": SoftGate,
        "straight_through": StraightThroughGate,
        "gumbel": GumbelGate,
        "none": OpenGate,
    } == GATES


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


@pytest.mark.parametrize("name", GATES)
def test_every_gate_takes_an_empty_batch(name: str) -> None:
    assert GATES[name]()(torch.zeros(0, 2)).shape == (0, 2)


def test_soft_is_the_softmax() -> None:
    x = logits().double()
    expected = x.exp() / x.exp().sum(1, keepdim=True)
    torch.testing.assert_close(SoftGate()(x), expected)


def test_straight_through_is_exactly_zero_or_one() -> None:
    x = logits(1000, scale=10.0)
    hard = StraightThroughGate()(x)
    expected = [[float(a > b), float(b > a)] for a, b in x.tolist()]
    assert hard.tolist() == expected


def test_a_tie_opens_nothing() -> None:
    assert StraightThroughGate()(torch.zeros(1, 2)).tolist() == [[0.0, 0.0]]


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
    gate = GumbelGate().eval()
    gate.temperature.fill_(temperature)
    x = logits()
    torch.testing.assert_close(gate(x), torch.softmax(x / temperature, dim=1))
    assert torch.equal(gate(x), gate(x))


def test_gumbel_in_training_is_noisy() -> None:
    gate = GumbelGate()
    assert not torch.equal(gate(logits()), gate(logits()))


def test_gumbel_becomes_one_hot_as_the_temperature_falls() -> None:
    gate = GumbelGate()
    x = logits(4000, scale=1.0)
    distances = []
    for temperature in (1.0, 0.1, 0.01, 1e-4):
        gate.temperature.fill_(temperature)
        torch.manual_seed(0)
        sample = gate(x)
        distances.append((sample - sample.round()).abs().mean().item())
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > 0.1
    assert distances[-1] < 1e-4


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
    assert len(set(seen)) == 11
    assert seen[0] == pytest.approx(1.0)
    assert seen[5] == pytest.approx(
        (1.0 * 0.1) ** 0.5
    )  # exponential: half way is the geometric mean
    assert seen[-1] == pytest.approx(0.1)


@pytest.mark.parametrize("progress", [-0.1, 1.1, float("nan")])
def test_progress_outside_training_is_refused(progress: float) -> None:
    with pytest.raises(ValueError, match="progress"):
        GumbelGate().anneal(progress)


def test_the_temperature_is_saved_with_the_weights() -> None:
    gate, other = GumbelGate(), GumbelGate()
    gate.anneal(0.7)
    other.load_state_dict(gate.state_dict())
    assert torch.equal(other.temperature, gate.temperature)
    assert other.temperature.item() != 1.0


@pytest.mark.parametrize("name", ["soft", "straight_through", "none"])
def test_other_gates_do_not_anneal(name: str) -> None:
    gate: Gate = GATES[name]()
    before = gate(logits())
    gate.anneal(1.0)
    assert torch.equal(gate(logits()), before)
    assert not gate.state_dict()


def test_the_open_gate_lets_everything_through() -> None:
    x = logits().requires_grad_()
    probabilities = OpenGate()(x)
    assert probabilities.tolist() == [[0.0, 1.0]] * 64
    assert not probabilities.requires_grad
