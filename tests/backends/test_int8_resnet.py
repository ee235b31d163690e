"""8-bit networks against the network they are made of."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rpbert.backends.int8_resnet import RoundedResNet, Spread
from rpbert.backends.packed import OneDnn
from rpbert.evidence.resnet import ResNetBlocks

pytestmark = pytest.mark.skipif(not OneDnn.available(), reason="this PyTorch has no oneDNN")

SHAPES: dict[str, dict[str, Any]] = {
    "basic": {"layer_type": "basic", "depths": [2, 1], "hidden_sizes": [16, 32]},
    "bottleneck": {"layer_type": "bottleneck", "depths": [2, 2], "hidden_sizes": [64, 128]},
}


def settled(shape: dict[str, Any]) -> tuple[ResNetBlocks, Tensor]:
    """A network whose statistics are those of some images, and the images."""
    blocks = ResNetBlocks.from_config({"embedding_size": 16, **shape}, 64)
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
def test_features_are_close_to_those_of_the_network(shape: dict[str, Any]) -> None:
    blocks, pixels = settled(shape)
    with torch.no_grad():
        expected = blocks.resnet(pixels).last_hidden_state
        found = RoundedResNet(blocks.resnet)(pixels)
    assert float((found - expected).norm() / expected.norm()) < 0.15
    assert float(found.min()) >= 0


def test_an_image_does_not_depend_on_other_images() -> None:
    blocks, pixels = settled(SHAPES["bottleneck"])
    rounded = RoundedResNet(blocks.resnet)
    with torch.no_grad():
        together = rounded(pixels)
        for number, image in enumerate(pixels):
            alone = rounded(image[None].contiguous(memory_format=torch.channels_last))
            torch.testing.assert_close(alone[0], together[number], atol=1e-5, rtol=1e-5)


def test_the_spread_behind_a_rectifier_is_that_of_samples() -> None:
    mean, deviation = torch.linspace(-3, 3, 7), torch.linspace(0.2, 2, 7)
    samples = (mean + deviation * torch.randn(400_000, 7)).relu()
    found = Spread(mean, deviation**2).rectified()
    torch.testing.assert_close(found.mean, samples.mean(0), atol=0.01, rtol=0.01)
    torch.testing.assert_close(found.variance, samples.var(0), atol=0.01, rtol=0.01)
