"""8-bit layers against rounding spelt out in float64."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from rpbert.backends.int8 import LOWEST_GELU, RoundedLinear, round_weight, to_bytes, weight_steps
from rpbert.backends.packed import OneDnn

pytestmark = pytest.mark.skipif(not OneDnn.available(), reason="this PyTorch has no oneDNN")
Matrix = NDArray[np.float64]


def in_steps(values: Matrix, steps: int = 127) -> Matrix:
    """Each row as whole numbers of 127ths of its largest."""
    step = np.abs(values).max(-1, keepdims=True) / steps
    found: Matrix = np.round(values / step) * step
    return found


def test_bytes_are_the_nearest_steps() -> None:
    steps = torch.linspace(-128, 127, 999)
    expected = np.round(steps.double().numpy()) + 128
    assert (to_bytes(steps.clone()).numpy() == expected).all()
    assert to_bytes(steps.clone()).dtype == torch.uint8


def test_weights_are_rounded_by_output() -> None:
    weight = torch.randn(5, 3, 2, 2) * torch.tensor([1, 10, 0.1, 0, 1e-3]).view(-1, 1, 1, 1)
    steps, scale = round_weight(weight)
    error = (steps.float() * scale.view(-1, 1, 1, 1) - weight).abs()
    assert (error <= scale.view(-1, 1, 1, 1) * 0.5001).all()
    assert steps[[0, 1, 2, 4]].flatten(1).abs().amax(1).tolist() == [weight_steps()] * 4


@pytest.mark.parametrize("activation", ["none", "relu", "gelu"])
@pytest.mark.parametrize("shape", [(1,), (3, 4), (40,)])
def test_a_linear_layer_multiplies_what_was_rounded(
    activation: Any, shape: tuple[int, ...]
) -> None:
    weight, bias = torch.randn(24, 32), torch.randn(24)
    rows, add = torch.randn(*shape, 32) * 3, torch.randn(*shape, 24)
    exact = in_steps(rows.double().numpy()) @ in_steps(weight.double().numpy(), weight_steps()).T
    expected = torch.from_numpy(exact) + bias.double()
    follow = {"none": lambda x: x, "relu": torch.relu, "gelu": F.gelu}[activation]
    layer = RoundedLinear(weight, bias, activation)
    torch.testing.assert_close(layer(rows).double(), follow(expected), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        layer(rows, add=add).double(), follow(expected + add), atol=1e-4, rtol=1e-4
    )


def test_behind_a_gelu_bytes_reach_from_its_lowest_value() -> None:
    weight, rows = torch.randn(24, 32), F.gelu(torch.randn(6, 32) * 4)
    values = rows.double().numpy()
    step = (values.max(-1, keepdims=True) - LOWEST_GELU) / 255
    rounded = np.round((values - LOWEST_GELU) / step) * step + LOWEST_GELU
    expected = rounded @ in_steps(weight.double().numpy(), weight_steps()).T
    found = RoundedLinear(weight, None, behind_gelu=True)(rows)
    torch.testing.assert_close(found.double(), torch.from_numpy(expected), atol=1e-3, rtol=1e-3)


def test_one_input_of_large_reach_does_not_take_the_steps_of_the_others() -> None:
    weight, rows = torch.randn(64, 256), torch.randn(50, 256)
    rows[:, 7] *= 100
    exact = rows @ weight.T

    def error(layer: RoundedLinear) -> float:
        return float((layer(rows) - exact).abs().mean())

    plain = RoundedLinear(weight, None)
    balanced = RoundedLinear(weight, None, reach=rows.abs().amax(0))
    assert error(balanced) < error(plain) / 3


def test_a_row_does_not_depend_on_other_rows() -> None:
    layer = RoundedLinear(torch.randn(24, 32), torch.randn(24))
    rows = torch.randn(20, 32) * torch.logspace(-3, 3, 20)[:, None]
    alone = torch.cat([layer(row[None]) for row in rows])
    assert torch.equal(layer(rows), alone)


def test_rows_of_zeros_are_no_fault() -> None:
    bias = torch.randn(24)
    layer = RoundedLinear(torch.randn(24, 32), bias)
    torch.testing.assert_close(layer(torch.zeros(2, 32)), bias.expand(2, -1))


WITHOUT_VNNI = """
import torch
from rpbert.backends.int8 import RoundedLinear, weight_steps
torch.manual_seed(0)
weight, rows = torch.rand(24, 64) + 0.5, torch.rand(40, 64) + 0.5
error = (RoundedLinear(weight, None)(rows) / (rows @ weight.T) - 1).abs().max()
print(weight_steps(), float(error))
"""


def test_nothing_is_cut_on_a_processor_that_adds_in_16_bits() -> None:
    # Set before oneDNN is loaded; where it is no x86 processor nothing changes.
    older = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}
    command = [sys.executable, "-c", WITHOUT_VNNI]
    done = subprocess.run(command, env=older, capture_output=True, text=True, check=True)
    steps, error = done.stdout.split()
    assert int(steps) in (63, 127)
    assert float(error) < 0.02
