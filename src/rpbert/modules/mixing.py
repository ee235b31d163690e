"""What of an encoder's layers speaks for a token: the last alone, or a weighted sum of several."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class LayerMix(nn.Module, ABC):
    """Makes one vector a token of what the last layers say.

    Attributes:
        count: how many of the last layers it reads.
    """

    count: int

    @abstractmethod
    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """The last `count` layers, the last one last. Shape: each (S, rows, H) → (S, rows, H)."""


class LastLayer(LayerMix):
    """The last layer as it is."""

    count = 1

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """Shape: (S, rows, H) → (S, rows, H)."""
        return states[-1]


class WeightedLayers(LayerMix):
    """γ Σ_l softmax(s)_l h_l over the last layers (Peters et al. 2018, "Deep contextualized word
    representations", Eq. 1); it starts as their mean.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        self.weights = nn.Parameter(torch.zeros(count))  # s
        self.scale = nn.Parameter(torch.ones(1))  # γ

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """Shape: each (S, rows, H) → (S, rows, H)."""
        shares = self.weights.softmax(0)
        return self.scale * torch.einsum("l, l s r h -> s r h", shares, torch.stack(list(states)))
