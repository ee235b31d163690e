"""Where a region lies in its image, in the forms that vision-and-language BERTs read.
A box is ``x0, y0, x1, y1`` as shares of the image's width and height."""

from __future__ import annotations

import torch
from torch import Tensor

from rpbert.modules.attention import mean_token
from rpbert.types import VisualTokens

COORDINATE_WIDTH = 256  # wavelengths of each coordinate in `waves`, as VL-BERT was published


def with_area(boxes: Tensor) -> Tensor:
    """``(x0, y0, x1, y1, area)`` (Lu et al. 2019, ViLBERT, section 2.2; Li et al. 2020,
    Unicoder-VL). Shape: (…, 4) → (…, 5)."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    return torch.stack([x0, y0, x1, y1, (x1 - x0) * (y1 - y0)], dim=-1)


def with_sides(boxes: Tensor) -> Tensor:
    """``(x0, y0, x1, y1, width, height, width · height)`` (Chen et al. 2020, UNITER, section 3.1).
    Shape: (…, 4) → (…, 7)."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    width, height = x1 - x0, y1 - y0
    return torch.stack([x0, y0, x1, y1, width, height, width * height], dim=-1)


def waves(boxes: Tensor, width: int = COORDINATE_WIDTH) -> Tensor:
    """Sines and cosines of a box's centre and sides at many wavelengths.
    For each c of (x centre, y centre, width, height), in hundredths of the image:
    ``sin(c / 1000^(k / width))`` for k = 0 … width - 1, then the cosines (Su et al. 2020, VL-BERT,
    section 3.2, with the wavelengths of the authors' code). Shape: (…, 4) → (…, 8 · width)."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    percent = 100 * torch.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], dim=-1)
    k = torch.arange(width, device=boxes.device, dtype=boxes.dtype)
    angles = percent[..., None] / 1000 ** (k / width)  # (…, 4, width)
    return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(-2)


def with_whole_image(image: VisualTokens) -> VisualTokens:
    """Puts the mean of an image's regions first, in a box of all of it; nothing without an image.
    Shape: (S, V, d_v) → (S, 1 + V, d_v)."""
    mean = mean_token(image)[:, None]
    everything = image.boxes.new_tensor([0.0, 0.0, 1.0, 1.0]).expand(mean.shape[0], 1, 4)
    return VisualTokens(
        torch.cat([mean, image.values], dim=1),
        torch.cat([image.mask.any(1, keepdim=True), image.mask], dim=1),
        torch.cat([everything, image.boxes], dim=1),
    )


def somewhere(mask: Tensor) -> Tensor:
    """The mask with everything real where nothing was, so that no softmax gives NaN.
    Shape: (S, V) → (S, V)."""
    return mask | ~mask.any(1, keepdim=True)
