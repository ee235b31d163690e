"""The CRF against pytorch-crf in one run: likelihood with backward, and Viterbi.

Prints medians with their spread and the ratio; rounds alternate between the two libraries, so
that whatever else the machine does falls on both.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable

import torch
from torchcrf import CRF

from rpbert.modules.crf import LinearChainCRF

POSTS, WORDS, TAGS, ROUNDS, CALLS = 32, 32, 9, 15, 20


def measured(calls: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Milliseconds of a call, one figure a round and library."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(ROUNDS):
        for name, call in calls.items():
            started = time.perf_counter()
            for _ in range(CALLS):
                call()
            times[name].append(1000 * (time.perf_counter() - started) / CALLS)
    return times


def main() -> None:
    torch.manual_seed(0)
    emissions = torch.randn(POSTS, WORDS, TAGS, requires_grad=True)
    tags = torch.randint(TAGS, (POSTS, WORDS))
    mask = torch.arange(WORDS)[None] < torch.randint(8, WORDS + 1, (POSTS,))[:, None]
    mask[0] = True
    ours, theirs = LinearChainCRF(TAGS), CRF(TAGS, batch_first=True)
    jobs: dict[str, dict[str, Callable[[], object]]] = {
        "likelihood + backward": {
            "rpbert": lambda: ours.log_likelihood(emissions, tags, mask).sum().backward(),
            "pytorch-crf": lambda: theirs(emissions, tags, mask).backward(),
        },
        "Viterbi": {
            "rpbert": lambda: ours.decode(emissions, mask),
            "pytorch-crf": lambda: theirs.decode(emissions, mask),
        },
    }
    print(
        f"B={POSTS} W<={WORDS} K={TAGS}, {torch.get_num_threads()} threads, "
        f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}"
    )
    for job, calls in jobs.items():
        times = measured(calls)
        median = {name: statistics.median(found) for name, found in times.items()}
        shown = ", ".join(
            f"{name} {median[name]:.2f} ms ({min(found):.2f}-{max(found):.2f})"
            for name, found in times.items()
        )
        print(f"{job}: {shown}, ratio {median['pytorch-crf'] / median['rpbert']:.1f}")


if __name__ == "__main__":
    main()
