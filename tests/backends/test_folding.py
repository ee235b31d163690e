"""Folded networks against transformers' ResNet, forwards and backwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from rpbert.backends.folding import FoldedResNet
from rpbert.backends.packed import Kit, Library, OneDnn
from rpbert.evidence.resnet import ResNetBlocks, frozen_statistics

SHAPES: dict[str, dict[str, Any]] = {
    "basic": {"layer_type": "basic", "depths": [2, 1], "hidden_sizes": [16, 32]},
    "bottleneck": {"layer_type": "bottleneck", "depths": [1, 2], "hidden_sizes": [64, 128]},
    "halving in the first convolution": {
        "layer_type": "bottleneck",
        "depths": [2, 1],
        "hidden_sizes": [64, 96],
        "downsample_in_bottleneck": True,
        "downsample_in_first_stage": True,
    },
}
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def network(shape: dict[str, Any]) -> ResNetBlocks:
    """A network whose normalisation does something in every channel."""
    blocks = ResNetBlocks.from_config({"embedding_size": 16, **shape}, 48, frozen_statistics)
    for module in blocks.resnet.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            for values in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(values, 0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return blocks


@shapes
@pytest.mark.parametrize("images", [1, 3])
def test_a_folded_network_computes_the_same_features(shape: dict[str, Any], images: int) -> None:
    blocks = network(shape).eval()
    pixels = torch.randn(images, 3, 48, 48).to(memory_format=torch.channels_last)
    with torch.no_grad():
        expected = blocks.resnet(pixels).last_hidden_state
        kits: list[Kit] = [Library(torch.float32)]
        if OneDnn.available():
            kits.append(OneDnn(torch.float32))
        for kit in kits:
            found = FoldedResNet.packed(blocks.resnet, kit)(pixels)
            scale = float(expected.abs().max())
            torch.testing.assert_close(found, expected, atol=1e-5 * scale, rtol=0)


@shapes
def test_training_folds_without_changing_any_gradient(shape: dict[str, Any]) -> None:
    """Against the same network, of which PyTorch normalises by the running statistics."""
    blocks = network(shape).train()
    pixels = torch.randn(2, 3, 48, 48).to(memory_format=torch.channels_last)

    def gradients(features: torch.Tensor) -> dict[str, torch.Tensor]:
        names, parameters = zip(*blocks.named_parameters(), strict=True)
        # A different gradient for every feature.
        return dict(zip(names, torch.autograd.grad(features.sin().sum(), parameters), strict=True))

    plain = blocks.resnet(pixels).last_hidden_state
    folded = blocks.features(pixels)
    torch.testing.assert_close(folded, plain, atol=1e-4, rtol=1e-4)
    expected, found = gradients(plain), gradients(folded)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(
            found[name], gradient, atol=1e-4 * float(gradient.abs().max()), rtol=1e-3, msg=name
        )


def test_what_learns_its_statistics_is_not_folded() -> None:
    blocks = ResNetBlocks.from_config({"embedding_size": 16, **SHAPES["basic"]}, 48).train()
    pixels = torch.randn(4, 3, 48, 48)
    before = [b.clone() for n, b in blocks.named_buffers() if n.endswith("running_mean")]
    blocks(pixels)
    after = [b for n, b in blocks.named_buffers() if n.endswith("running_mean")]
    assert not any(torch.equal(a, b) for a, b in zip(after, before, strict=True))


def test_only_a_network_of_rectifiers_is_folded() -> None:
    silent = ResNetBlocks.from_config(
        {"embedding_size": 16, "hidden_act": "gelu", **SHAPES["basic"]}, 48, frozen_statistics
    )
    assert not FoldedResNet.takes(silent.resnet)
    pixels = torch.randn(1, 3, 48, 48)
    torch.testing.assert_close(
        silent.train().features(pixels), silent.resnet(pixels).last_hidden_state
    )
