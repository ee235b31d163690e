"""Packed and 8-bit layers against transformers' networks and rounding spelt out in float64."""

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
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetModel

from rpbert.backends.int8 import LOWEST_GELU, Int8Linear, weight_steps
from rpbert.backends.kernels import onednn_available
from rpbert.backends.resnet import Int8ResNet, PackedResNet, Spread
from rpbert.evidence.networks import ResNetBlocks

pytestmark = pytest.mark.skipif(not onednn_available(), reason="this PyTorch has no oneDNN")
Matrix = NDArray[np.float64]

SHAPES: dict[str, dict[str, Any]] = {
    "basic": {"layer_type": "basic", "depths": [2, 1], "hidden_sizes": [16, 32]},
    "bottleneck": {"layer_type": "bottleneck", "depths": [2, 2], "hidden_sizes": [64, 128]},
    "halving in the first convolution": {
        "layer_type": "bottleneck", "depths": [2, 1], "hidden_sizes": [64, 96],
        "downsample_in_bottleneck": True, "downsample_in_first_stage": True,
    },
}  # fmt: skip


def settled(shape: dict[str, Any]) -> tuple[ResNetBlocks, Tensor]:
    """A network whose statistics are those of some images, and the images."""
    blocks = ResNetBlocks(ResNetModel(ResNetConfig(embedding_size=16, **shape)), 64)
    for module in blocks.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            nn.init.uniform_(module.weight, 0.3, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.3)
    pixels = torch.randn(8, 3, 64, 64).to(memory_format=torch.channels_last)
    with torch.no_grad():
        blocks.train()(pixels)
    return blocks.eval(), pixels


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_features_are_those_of_the_network_whatever_the_other_images(shape: dict[str, Any]) -> None:
    blocks, pixels = settled(shape)
    with torch.no_grad():
        expected = blocks.resnet(pixels).last_hidden_state
        packed = PackedResNet(blocks.resnet, torch.float32), 1e-5
        # One network is given several and single images in turn: each has its own layout.
        for network, tolerance in (packed, (Int8ResNet(blocks.resnet), 0.15)):
            found = network(pixels)
            assert float((found - expected).norm() / expected.norm()) < tolerance
            assert float(found.min()) >= 0
            for number, image in enumerate(pixels[:3]):
                alone = network(image[None].contiguous(memory_format=torch.channels_last))
                torch.testing.assert_close(alone[0], found[number], atol=1e-5, rtol=1e-5)


def test_the_spread_after_a_rectifier_is_that_of_samples() -> None:
    mean, std = torch.linspace(-3, 3, 7), torch.linspace(0.2, 2, 7)
    samples = (mean + std * torch.randn(400_000, 7)).relu()
    found = Spread(mean, std**2).rectified()
    torch.testing.assert_close(found.mean, samples.mean(0), atol=0.01, rtol=0.01)
    torch.testing.assert_close(found.variance, samples.var(0), atol=0.01, rtol=0.01)


def in_steps(values: Matrix, steps: int = 127) -> Matrix:
    """Each row as whole numbers of 127ths of its largest."""
    step = np.abs(values).max(-1, keepdims=True) / steps
    found: Matrix = np.round(values / step) * step
    return found


@pytest.mark.parametrize("shape", [(1,), (3, 4), (40,)])
def test_a_linear_layer_multiplies_what_was_quantized(shape: tuple[int, ...]) -> None:
    # Each output has a scale of its own, 0 included.
    weight, bias = torch.randn(24, 32) * torch.logspace(-3, 1, 24)[:, None], torch.randn(24)
    weight[5] = 0
    rows, add = torch.randn(*shape, 32) * 3, torch.randn(*shape, 24)
    rows[0] = 0  # a scale of 0 is no fault
    exact = (
        in_steps(rows.double().numpy() + 1e-300)
        @ in_steps(weight.double().numpy() + 1e-300, weight_steps()).T
    )
    expected = torch.from_numpy(exact) + bias.double()
    layer = Int8Linear(weight, bias)
    torch.testing.assert_close(layer(rows).double(), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(layer(rows, add=add).double(), expected + add, atol=1e-4, rtol=1e-4)
    alone = torch.cat([layer(row[None]) for row in rows.flatten(0, -2)])
    assert torch.equal(layer(rows).flatten(0, -2), alone)


def test_after_a_gelu_bytes_begin_at_its_lowest_value() -> None:
    weight, rows = torch.randn(24, 32), F.gelu(torch.randn(6, 32) * 4)
    values = rows.double().numpy()
    step = (values.max(-1, keepdims=True) - LOWEST_GELU) / 255
    rounded = np.round((values - LOWEST_GELU) / step) * step + LOWEST_GELU
    expected = rounded @ in_steps(weight.double().numpy(), weight_steps()).T
    found = Int8Linear(weight, None, after_gelu=True)(rows)
    torch.testing.assert_close(found.double(), torch.from_numpy(expected), atol=1e-3, rtol=1e-3)


def test_one_input_of_large_absmax_does_not_coarsen_the_others() -> None:
    weight, rows = torch.randn(64, 256), torch.randn(50, 256)
    rows[:, 7] *= 100
    plain, balanced = Int8Linear(weight, None), Int8Linear(weight, None, rows.abs().amax(0))
    error, other = ((each(rows) - rows @ weight.T).abs().mean() for each in (balanced, plain))
    assert error < other / 3


WITHOUT_VNNI = """
import torch
from rpbert.backends.int8 import Int8Linear, weight_steps
torch.manual_seed(0)
weight, rows = torch.rand(24, 64) + 0.5, torch.rand(40, 64) + 0.5
error = (Int8Linear(weight, None)(rows) / (rows @ weight.T) - 1).abs().max()
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
