"""The gates against autograd, the softmax and the distribution they claim to draw from."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rpbert.modules.gates import (
    GATES,
    GumbelGate,
    OracleGate,
    Propagation,
    SoftGate,
    StraightThroughGate,
)
from rpbert.types import PostImage, VisualTokens


def logits(rows: int = 64, scale: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return scale * torch.randn(rows, 2, generator=generator)


@pytest.mark.parametrize("name", sorted(GATES.keys() - {"oracle"}))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("training", [True, False])
def test_every_gate_gives_probabilities_in_float32(
    name: str, dtype: torch.dtype, training: bool
) -> None:
    gate = GATES[name]().train(training)
    for shape in ((64, 2), (8, 8, 2), (0, 2)):
        probabilities = gate(logits()[: shape[0] * 8].to(dtype).reshape(shape))
        assert probabilities.dtype == torch.float32
        assert probabilities.shape == shape
        assert (probabilities >= 0).all()
        torch.testing.assert_close(probabilities.sum(-1), torch.ones(shape[:-1]))


def test_straight_through_is_one_hot_with_the_gradient_of_the_softmax() -> None:
    ties = torch.zeros(1, 2)  # a tie opens nothing
    x = torch.cat([logits(1000), ties]).requires_grad_()
    y = x.detach().clone().requires_grad_()
    weight = torch.randn(x.shape)
    hard = StraightThroughGate()(x)
    assert hard.tolist() == [[float(a > b), float(b > a)] for a, b in x.tolist()]
    found, expected = (
        torch.autograd.grad((gated * weight).sum(), given)[0]
        for gated, given in ((hard, x), (y.softmax(1), y))
    )
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(found, expected)


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
    seen = [gate.temperature.item()]
    for progress in (0, 0.5, 1):
        gate.anneal(progress)
        seen.append(gate.temperature.item())
    # Exponential: half way is the geometric mean.
    assert seen == pytest.approx([1.0, 1.0, 0.1**0.5, 0.1])
    for progress in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="progress"):
            gate.anneal(progress)
    other = GumbelGate()  # which is saved with its τ
    other.load_state_dict(gate.state_dict())
    assert torch.equal(other.temperature, gate.temperature)
    gate.START = 4.0  # the last one is END wherever it starts
    gate.anneal(1.0)
    assert gate.temperature.item() == pytest.approx(0.1)


def test_the_oracle_gives_what_the_labels_say() -> None:
    images = [PostImage(relation=relation) for relation in (0.0, 0.25, 1.0, None)]
    assert OracleGate()(images).tolist() == [[1.0, 0.0], [0.75, 0.25], [0.0, 1.0], [0.0, 1.0]]


def test_what_r_lets_through_and_when_its_gradient_passes() -> None:
    r = torch.tensor([[0.0, 0.4], [0.5, 1.0]], requires_grad=True)
    image = VisualTokens(torch.rand(2, 2, 3, 5), torch.ones(2, 2, 3).bool(), torch.rand(2, 2, 3, 4))
    scaled = Propagation("before_norm", floor=0.2)(image, r)
    torch.testing.assert_close(scaled.values, (0.2 + 0.8 * r)[:, :, None, None] * image.values)
    every = r[:, :, None].expand(2, 2, 3)
    assert torch.equal(Propagation("input")(image, r).scale, every)
    assert Propagation()(image, r).scale.requires_grad
    closing = Propagation()(image, r)  # Eq. 3
    assert torch.equal(closing.weight, every)
    assert torch.equal(closing.scale, every)
    for start, progress in ((0, None), (0, 0), (0.5, None), (0.5, 0.4), (0.5, 0.5), (1, 1)):
        propagation = Propagation(gradient_from=start)
        if progress is not None:
            propagation.anneal(progress)
        passes = start < 1 and (progress or 0) >= start
        assert propagation(image, r).scale.requires_grad == passes, (start, progress)
