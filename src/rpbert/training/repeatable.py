"""Same seed, same machine, same number of threads: the same weights, bit for bit."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.utils import deterministic


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and PyTorch."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def generators() -> dict[str, Tensor]:
    """The state of every random generator of this process, as tensors."""
    version, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    states = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor([version, *words]),
        "numpy": torch.tensor([*map(int, keys), position, has_gauss]),
        # A spare draw of each normal distribution; NaN where there is none.
        "spare": torch.tensor([math.nan if gauss is None else gauss, cached], dtype=torch.float64),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_generators(states: Mapping[str, Tensor]) -> None:
    """Put every random generator of this process where `generators` found it."""
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
    version, *words = states["python"].tolist()
    gauss, cached = states["spare"].tolist()
    random.setstate((version, tuple(words), None if math.isnan(gauss) else gauss))
    *keys, position, has_gauss = states["numpy"].tolist()
    np.random.set_state(("MT19937", np.array(keys, np.uint32), position, has_gauss, cached))


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Let PyTorch add in a fixed order on a CPU, where that costs next to nothing.

    The gradient of indexing is otherwise added up by whichever thread comes first, and sums of
    floats depend on their order. On a GPU the fixed order is slow and not had for every
    operation: there runs of one seed differ in the last bits.
    """
    before = torch.are_deterministic_algorithms_enabled()
    warn = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True)
        # Nothing here reads memory before it is written; filling it is time lost.
        deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn)
        deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
