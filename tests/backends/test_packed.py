"""Packed layers against PyTorch's own functions in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rpbert.backends.packed import Activation, Kit, Library, OneDnn, Window

KITS: dict[str, tuple[Kit, float]] = {
    "library": (Library(torch.float32), 1e-5),
    "library, bfloat16": (Library(torch.bfloat16), 2**-6),
}
if OneDnn.available():
    KITS["oneDNN"] = (OneDnn(torch.float32), 1e-5)
    KITS["oneDNN, bfloat16"] = (OneDnn(torch.bfloat16), 2**-6)

kits = pytest.mark.parametrize("name", KITS)
FOLLOWING = {"none": lambda x: x, "relu": torch.relu, "gelu": F.gelu}


def near(found: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    scale = float(expected.abs().max())
    torch.testing.assert_close(found.double(), expected, atol=tolerance * scale, rtol=0)


@kits
@pytest.mark.parametrize("activation", ["none", "relu", "gelu"])
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (70,)])
def test_a_linear_layer_with_what_follows_it(
    name: str, activation: Activation, shape: tuple[int, ...]
) -> None:
    kit, tolerance = KITS[name]
    weight, bias = torch.randn(24, 40), torch.randn(24)
    rows, add = torch.randn(*shape, 40), torch.randn(*shape, 24)
    for given in (bias, None):
        layer = kit.linear(weight, given, activation)
        exact = F.linear(rows.double(), weight.double(), None if given is None else given.double())
        follow = FOLLOWING[activation]
        near(layer(rows), follow(exact), tolerance)
        near(layer(rows, add=add.clone()), follow(exact + add), tolerance)


@kits
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 2), (7, 2)])
def test_a_convolution_for_one_image_and_for_several(
    name: str, relu: bool, kernel: int, stride: int
) -> None:
    """One layer is given both in turn, since each number wants its own layout."""
    kit, tolerance = KITS[name]
    convolution = nn.Conv2d(16, 32, kernel, stride, padding=kernel // 2)
    weight, bias = convolution.weight.detach(), torch.randn(32)
    layer = kit.convolution(weight, bias, Window.of(convolution), relu)
    for images in (3, 1, 2, 1):
        pixels = torch.randn(images, 16, 9, 9).to(memory_format=torch.channels_last)
        exact = F.conv2d(
            pixels.double(), weight.double(), bias.double(), stride, convolution.padding
        )
        add = torch.randn_like(exact).to(memory_format=torch.channels_last)
        dtype = torch.bfloat16 if "bfloat16" in name else torch.float32
        near(layer(pixels), exact.relu() if relu else exact, tolerance)
        total = exact + add.to(dtype).double()
        near(layer(pixels, add=add.to(dtype)), total.relu() if relu else total, tolerance)


def test_a_convolution_that_pads_otherwise_is_refused() -> None:
    with pytest.raises(ValueError, match="reflect"):
        Window.of(nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"))
