"""Lists of different lengths as one tensor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rpbert.data.vocabulary import PADDING


def pad(rows: Sequence[Sequence[int]], width: int | None = None, filler: int = PADDING) -> Tensor:
    """Rows of different lengths as one tensor. Shape: (rows, longest)."""
    if width is None:
        width = max(map(len, rows), default=0)
    padded = np.full((len(rows), width), filler, dtype=np.int64)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return torch.from_numpy(padded)
