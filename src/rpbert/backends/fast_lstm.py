"""A bidirectional LSTM over posts of different lengths, for inference on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FastBiLstm(nn.Module):
    """What an ``nn.LSTM`` of both directions makes of packed sequences, without packing them.

    PyTorch has a fused kernel for sequences that are not packed. Forwards, what follows the end
    of a post does not reach it; backwards, each post is turned around by itself, so that padding
    follows its beginning.

    Args:
        lstm: bidirectional, posts first; later changes to its weights are not seen.
        dtype: of weights and states.
    """

    def __init__(self, lstm: nn.LSTM, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.directions = nn.ModuleList()
        for layer in range(lstm.num_layers):
            for suffix in ("", "_reverse"):
                width = getattr(lstm, f"weight_ih_l{layer}").shape[1]
                single = nn.LSTM(width, lstm.hidden_size, batch_first=True)
                for name, parameter in single.named_parameters():
                    parameter.data = getattr(lstm, name.replace("l0", f"l{layer}") + suffix).to(
                        dtype, copy=True
                    )
                self.directions.append(single.eval())

    def forward(self, words: Tensor, lengths: Tensor) -> Tensor:
        """States of both directions, meaningless on padding.

        Shapes: (B, W, D), (B,) → (B, W, 2 · hidden), float32.
        """
        place = torch.arange(words.shape[1], device=words.device)
        turned = (lengths[:, None] - 1 - place).where(place < lengths[:, None], place)  # (B, W)
        hidden = words.to(self.dtype)
        for forwards, backwards in zip(self.directions[::2], self.directions[1::2], strict=True):
            ahead = forwards(hidden)[0]
            back = _taken(backwards(_taken(hidden, turned))[0], turned)
            hidden = torch.cat([ahead, back], dim=-1)
        return hidden.float()


def _taken(rows: Tensor, order: Tensor) -> Tensor:
    """The rows of each post in another order. Shapes: (B, W, D), (B, W) → (B, W, D)."""
    return rows.gather(1, order[:, :, None].expand_as(rows))
