"""Heavy layers for inference: weights cast and laid out once, and what follows them fused.

A `Kit` makes layers for one processor and one type of number. Those of oneDNN (`OneDnn`) keep the
weights in blocks as its kernels read them, and apply bias, activation and residual while the
result is still in the cache; `Library` is PyTorch as it is, for any device.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation: TypeAlias = Literal["none", "relu", "gelu"]


class Window(NamedTuple):
    """How a convolution walks over its image."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    @classmethod
    def of(cls, convolution: nn.Conv2d) -> Window:
        """The window of a convolution, which must pad with zeros."""
        padding = convolution.padding
        if isinstance(padding, str) or convolution.padding_mode != "zeros":
            raise ValueError(f"padding {padding} of mode {convolution.padding_mode}")
        stride, dilation = convolution.stride, convolution.dilation
        return cls(_pair(stride), _pair(padding), _pair(dilation), convolution.groups)


class Layer(Protocol):
    """A linear layer or a convolution, with what follows it.

    One that is made of weights gives results in its own type of number.
    """

    def __call__(self, rows: Tensor, add: Tensor | None = None) -> Tensor:
        """``activation(layer(rows) + add)``; `add` may be overwritten."""


class Kit(Protocol):
    """Makes layers from weights that change no more.

    Attributes:
        dtype: the type of number they compute in, and their results.
    """

    dtype: torch.dtype

    def linear(self, weight: Tensor, bias: Tensor | None, activation: Activation) -> nn.Module:
        """Rows (…, inputs) → (…, outputs). Shapes: (outputs, inputs), (outputs,)."""

    def convolution(self, weight: Tensor, bias: Tensor, window: Window, relu: bool) -> Layer:
        """Images (I, inputs, height, width), channels last."""

    def norm(self, norm: nn.LayerNorm) -> nn.Module:
        """Rows of `dtype` normalised, and given back in it. Shape: (…, H) → (…, H)."""


class Library:
    """Layers as PyTorch computes them, on any device."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def linear(self, weight: Tensor, bias: Tensor | None, activation: Activation) -> nn.Module:
        """See `Kit`."""
        return LibraryLinear(weight, bias, activation, self.dtype)

    def convolution(self, weight: Tensor, bias: Tensor, window: Window, relu: bool) -> Layer:
        """See `Kit`."""
        return LibraryConvolution(weight, bias, window, relu, self.dtype)

    def norm(self, norm: nn.LayerNorm) -> nn.Module:
        """See `Kit`. A GPU takes rows and weights of one type of number only."""
        return copy.deepcopy(norm).to(self.dtype)


class OneDnn:
    """Layers packed for oneDNN, on a CPU."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    @staticmethod
    def available() -> bool:
        """Whether this PyTorch has oneDNN and its packed layers."""
        packed = hasattr(torch.ops.mkldnn, "_convolution_pointwise")
        return packed and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]

    def linear(self, weight: Tensor, bias: Tensor | None, activation: Activation) -> nn.Module:
        """See `Kit`."""
        return PackedLinear(weight, bias, activation, self.dtype)

    def convolution(self, weight: Tensor, bias: Tensor, window: Window, relu: bool) -> Layer:
        """See `Kit`."""
        return PackedConvolution(weight, bias, window, relu, self.dtype)

    def norm(self, norm: nn.LayerNorm) -> nn.Module:
        """See `Kit`. A CPU takes weights in float32 whatever the rows are."""
        return norm


class LibraryLinear(nn.Module):
    """``activation(x W^T + b + add)`` with weights cast once."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None, activation: Activation, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.weight = weight.detach().to(dtype)
        self.bias = None if bias is None else bias.detach().to(dtype)
        self.activation = activation

    def forward(self, rows: Tensor, add: Tensor | None = None) -> Tensor:
        """Shapes: (…, inputs), (…, outputs) → (…, outputs), in the layer's type of number."""
        found = F.linear(rows.to(self.weight.dtype), self.weight, self.bias)
        return followed(found, add, self.activation)


class LibraryConvolution:
    """``relu(x * W + b + add)`` with weights cast once."""

    def __init__(
        self, weight: Tensor, bias: Tensor, window: Window, relu: bool, dtype: torch.dtype
    ) -> None:
        self.weight = weight.detach().to(dtype, memory_format=torch.channels_last)
        self.bias = bias.detach().to(dtype)
        self.window = window
        self.activation: Activation = "relu" if relu else "none"

    def __call__(self, rows: Tensor, add: Tensor | None = None) -> Tensor:
        """Shapes: (I, inputs, height, width) → (I, outputs, rows, columns)."""
        found = F.conv2d(rows.to(self.weight.dtype), self.weight, self.bias, *self.window)
        return followed(found, add, self.activation)


class PackedLinear(nn.Module):
    """``activation(x W^T + b + add)`` by oneDNN.

    In float32 too this is faster than `torch.nn.functional.linear`, which asks another library
    and lays its weights out anew in each call.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, activation: Activation, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.dtype = dtype
        self.activation = activation
        # Neither is a buffer: the packed layout is opaque and can be neither copied nor saved.
        self.bias = None if bias is None else bias.detach().to(dtype).contiguous()
        plain = weight.detach().to(dtype).contiguous()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(plain, None)

    def forward(self, rows: Tensor, add: Tensor | None = None) -> Tensor:
        """Shapes: (…, inputs), (…, outputs) → (…, outputs), in the layer's type of number."""
        rows, run = rows.to(self.dtype), torch.ops.mkldnn._linear_pointwise
        if add is None:
            return run(rows, self.packed, self.bias, self.activation, [], "none")  # type: ignore[no-any-return]
        found: Tensor = run.binary(rows, add.to(self.dtype), self.packed, self.bias, "add")
        return followed(found, None, self.activation)


class PackedConvolution:
    """``relu(x * W + b + add)`` by oneDNN; `add` is overwritten by the result."""

    def __init__(
        self, weight: Tensor, bias: Tensor, window: Window, relu: bool, dtype: torch.dtype
    ) -> None:
        self.dtype = dtype
        self.window = window
        self.relu = relu
        self.bias = bias.detach().to(dtype).contiguous()
        self.layouts = Layouts(weight.detach().to(dtype).contiguous(), self._laid_out)

    def __call__(self, rows: Tensor, add: Tensor | None = None) -> Tensor:
        """Shapes: (I, inputs, height, width) → (I, outputs, rows, columns)."""
        stride, padding, dilation, groups = self.window
        layer = (self.layouts.of(rows.shape), self.bias, padding, stride, dilation, groups)
        rows, after = rows.to(self.dtype), "relu" if self.relu else None
        found: Tensor
        if add is None:
            found = torch.ops.mkldnn._convolution_pointwise(rows, *layer, after or "none", [], "")
        else:
            found = torch.ops.mkldnn._convolution_pointwise_.binary(
                add, rows, *layer, "add", 1.0, after, [], ""
            )
        return found

    def _laid_out(self, weight: Tensor, shape: torch.Size) -> Tensor:
        stride, padding, dilation, groups = self.window
        reorder = torch.ops.mkldnn._reorder_convolution_weight
        laid_out: Tensor = reorder(weight, padding, stride, dilation, groups, list(shape))
        return laid_out


class Layouts:
    """The weight of a convolution, laid out for single images and for several.

    oneDNN's kernels want one order for one image and another for more, and with the wrong one
    each call sorts the weight anew, which can take longer than the convolution. Each is made when
    it is first needed.

    Args:
        weight: plain.
        lay_out: for images of a shape.
    """

    def __init__(self, weight: Tensor, lay_out: Callable[[Tensor, torch.Size], Tensor]) -> None:
        self.weight = weight
        self.lay_out = lay_out
        self._made: dict[bool, Tensor] = {}

    def of(self, shape: torch.Size) -> Tensor:
        """For images of a shape (I, inputs, height, width)."""
        single = shape[0] == 1
        if single not in self._made:
            self._made[single] = self.lay_out(self.weight, shape)
        return self._made[single]


def followed(found: Tensor, add: Tensor | None, activation: Activation) -> Tensor:
    """What comes behind a product, in place where that is possible."""
    if add is not None:
        found = found.add_(add)
    if activation == "relu":
        return found.relu_()
    return F.gelu(found) if activation == "gelu" else found


def _pair(of: tuple[int, ...]) -> tuple[int, int]:
    first, second = of
    return first, second
