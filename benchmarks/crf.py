"""The CRF against pytorch-crf in one run: likelihood with backward, and Viterbi.

python benchmarks/crf.py [--rounds 15] [--calls 20]
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import torch
from common import in_turn, machine, options, publish, spread, start, table
from torchcrf import CRF

from rpbert.modules.crf import LinearChainCRF

POSTS, WORDS, TAGS = 32, 32, 9
Calls = dict[str, Callable[[], object]]


def jobs() -> dict[str, Calls]:
    """The same work for both libraries, ours first."""
    torch.manual_seed(0)
    emissions = torch.randn(POSTS, WORDS, TAGS, requires_grad=True)
    tags = torch.randint(TAGS, (POSTS, WORDS))
    mask = torch.arange(WORDS)[None] < torch.randint(8, WORDS + 1, (POSTS,))[:, None]
    mask[0] = True
    ours, theirs = LinearChainCRF(TAGS), CRF(TAGS, batch_first=True)
    return {
        "likelihood + backward": {
            "rpbert": lambda: ours.log_likelihood(emissions, tags, mask).sum().backward(),
            "pytorch-crf": lambda: theirs(emissions, tags, mask).backward(),
        },
        "Viterbi": {
            "rpbert": lambda: ours.decode(emissions, mask),
            "pytorch-crf": lambda: theirs.decode(emissions, mask),
        },
    }


def repeated(call: Callable[[], object], times: int) -> Callable[[], None]:
    """A call several times over."""

    def calls() -> None:
        for _ in range(times):
            call()

    return calls


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__file__, __doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=20, help="of a round")
    args = parser.parse_args(arguments)
    rows = []
    for job, calls in jobs().items():
        for call in calls.values():
            call()
        many = {name: repeated(call, args.calls) for name, call in calls.items()}
        times = in_turn(many, args.rounds)
        ours, theirs = ([1000 * t / args.calls for t in each] for each in times.values())
        ratio = statistics.median(t / o for o, t in zip(ours, theirs, strict=True))
        rows.append([job, spread(ours), spread(theirs), f"{ratio:.1f}"])
    lines = [
        machine("pytorch-crf"),
        "",
        f"B={POSTS}, W<={WORDS}, K={TAGS}: milliseconds of a call, medians of {args.rounds} rounds "
        "that take turns, lowest and highest; the ratio is the median of those of each round.",
        "",
        *table(["", "rpbert", "pytorch-crf", "ratio"], rows),
    ]
    publish("The CRF against pytorch-crf", lines, args.output)


if __name__ == "__main__":
    start(main)
