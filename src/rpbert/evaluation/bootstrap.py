"""The paired bootstrap: could two systems differ so much by chance of the test posts alone?
Efron and Tibshirani 1993. An Introduction to the Bootstrap. Chapman and Hall. Berg-Kirkpatrick et
al. 2012. An Empirical Investigation of Statistical Significance in NLP. In EMNLP, 995-1005."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000


def ratios(outcomes: NDArray[np.float64], weights: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean over the runs, and over k ratios, of Σ numerator / Σ denominator, for each weighting of
    the posts. F1 is such a ratio, of 2 · correct to gold + predicted, and so is a mean.
    Shape: (runs, posts, 2 k), (weightings, posts) → (weightings,)."""
    sums = np.einsum("wp,rpk->wrk", weights.astype(np.float64), outcomes, optimize=True)
    top, bottom = sums[:, :, ::2], sums[:, :, 1::2]
    shares = np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)
    return np.asarray(shares.mean(axis=(1, 2)))


def paired_bootstrap(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> float:
    """p-value, two-sided: how often a resample moves the difference by more than its size.
    Posts are drawn with replacement, the same ones for both systems and all their runs. The
    observed difference counts as one of the resamples, so that p is never 0.
    Shape: (runs, posts, 2 k) each."""
    posts = first.shape[1]
    if not posts:
        return 1.0
    whole = np.ones((1, posts), dtype=np.int64)
    observed = (ratios(first, whole) - ratios(second, whole))[0]
    draw = np.random.default_rng(seed)
    at_least = 0
    for start in range(0, resamples, 200):  # in chunks, which bounds the memory
        drawn = draw.integers(posts, size=(min(200, resamples - start), posts))
        weights = np.stack([np.bincount(row, minlength=posts) for row in drawn])
        moved = np.abs(ratios(first, weights) - ratios(second, weights) - observed)
        # Sums in another order may differ in their last bits.
        at_least += int((moved >= abs(observed) - 1e-12).sum())
    return (at_least + 1) / (resamples + 1)
