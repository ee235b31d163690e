"""A copy of a system for inference on a CPU, its heavy parts rebuilt for oneDNN; by name only.
A ResNet has its normalization folded into packed convolutions. In int8 BERT and all other large
linear layers are computed in 8-bit integers as well. Results are float32 between the parts."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import chain

import torch
from torch import Tensor, nn

from rpbert.backends.int8 import Int8Linear, int8_layers
from rpbert.backends.resnet import Int8ResNet, PackedResNet
from rpbert.config.run import Precision
from rpbert.errors import InputError
from rpbert.evidence.networks import ResNetBlocks
from rpbert.models.tagger import System
from rpbert.modules.encoder import BertEncoder, EncoderInput, TextImageEncoder

FEW = 16  # a linear layer of fewer outputs costs little and decides something: it stays as it is
AT_A_TIME = 4  # images whose feature maps stay in a processor's cache from one layer to the next


def onednn_available() -> bool:
    """Whether this PyTorch has oneDNN and its packed layers."""
    packed = hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    return packed and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


def with_kernels(system: System, precision: Precision, device: torch.device) -> System:
    """A copy that shares the parameters of what is not rebuilt; gate and CRF keep float32.
    Raises InputError: the device is no CPU with oneDNN."""
    if device.type != "cpu" or not onednn_available():
        found = f"kernels or int8 on {device.type}"
        raise InputError("backend", found, "a CPU with oneDNN, or fp32 or bf16 by torch")
    int8, dtype = precision == "int8", torch.bfloat16 if precision == "bf16" else torch.float32

    def rebuilt(module: nn.Module) -> nn.Module:
        if isinstance(module, ResNetBlocks) and module.resnet.config.hidden_act == "relu":
            resnet = Int8ResNet(module.resnet) if int8 else PackedResNet(module.resnet, dtype)
            return KernelBlocks(module, resnet)
        if int8 and isinstance(module, BertEncoder):
            return Int8Encoder(module)
        if int8 and type(module) is nn.Linear and module.out_features >= FEW:
            return Int8Linear(module.weight, module.bias)
        if not isinstance(module, TextImageEncoder):  # any other family stays as it is
            for name, child in module.named_children():
                setattr(module, name, rebuilt(child))
        return module

    shared = {id(tensor): tensor for tensor in chain(system.parameters(), system.buffers())}
    twin = copy.deepcopy(system, shared).eval()
    with torch.no_grad():
        rebuilt(twin)
    return twin.eval()


class KernelBlocks(nn.Module):
    """`ResNetBlocks` by another network that computes the same features, channels last.
    Shapes: (I, 3, height, width) → (I, d_v, rows, columns)."""

    def __init__(self, blocks: ResNetBlocks, features: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.tokens, self.width = blocks.tokens, blocks.width
        self.features = features

    def forward(self, pixels: Tensor) -> Tensor:
        """Shapes: (I, 3, image_size, image_size) → (I, V, d_v), float32."""
        if not len(pixels):
            return pixels.new_zeros(0, self.tokens, self.width)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        maps = [self.features(images) for images in torch.split(pixels, AT_A_TIME)]
        return torch.cat(maps).float().permute(0, 2, 3, 1).flatten(1, 2)


class Int8Encoder(BertEncoder):
    """A `BertEncoder` whose layers are computed in 8-bit integers."""

    def __init__(self, encoder: BertEncoder) -> None:
        nn.Module.__init__(self)  # its other parts are those of `encoder`
        self.bert, self.image_type = encoder.bert, encoder.image_type
        self.width, self.input_width = encoder.width, encoder.input_width
        self.max_length = encoder.max_length
        self.int8_layers = nn.ModuleList(int8_layers(encoder))

    @property
    def blocks(self) -> nn.ModuleList:
        """The 8-bit layers."""
        return self.int8_layers

    def compute(self, layer: nn.Module, rows: int, read: EncoderInput) -> Tensor:
        """See `BertEncoder.compute`."""
        found: Tensor = layer(read.hidden[:, :rows], read.hidden, read.keys)
        return found
