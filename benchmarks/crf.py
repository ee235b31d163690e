"""The CRF against pytorch-crf: likelihood with backward, and Viterbi.

python benchmarks/crf.py [--rounds 5] [--calls 20]
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from common import in_turn, machine, options, publish, ratio, spread, start, table
from torchcrf import CRF

from rpbert.modules.crf import LinearChainCRF

POSTS, WORDS, TAGS = 32, 32, 9


def jobs() -> dict[str, list[Callable[[], object]]]:
    """The same work for both libraries, ours first."""
    torch.manual_seed(0)
    emissions = torch.randn(POSTS, WORDS, TAGS, requires_grad=True)
    tags = torch.randint(TAGS, (POSTS, WORDS))
    mask = torch.arange(WORDS)[None] < torch.randint(8, WORDS + 1, (POSTS,))[:, None]
    mask[0] = True
    ours, theirs = LinearChainCRF(TAGS), CRF(TAGS, batch_first=True)
    return {
        "likelihood + backward": [
            lambda: ours.log_likelihood(emissions, tags, mask).sum().backward(),
            lambda: theirs(emissions, tags, mask).backward(),
        ],
        "Viterbi": [lambda: ours.decode(emissions, mask), lambda: theirs.decode(emissions, mask)],
    }


def main() -> None:
    parser = options(__file__, __doc__)
    parser.add_argument("--calls", type=int, default=20, help="of a round")
    args = parser.parse_args()
    rows = []
    for job, (ours, theirs) in jobs().items():
        calls = {
            "ours": lambda ours=ours: [ours() for _ in range(args.calls)],
            "theirs": lambda theirs=theirs: [theirs() for _ in range(args.calls)],
        }
        in_turn(calls, 1)
        times = in_turn(calls, args.rounds)
        each = [[1000 * t / args.calls for t in values] for values in times.values()]
        rows.append([job, spread(each[0]), spread(each[1]), ratio(each[1], each[0])])
    lines = [
        f"{machine('pytorch-crf')}\n",
        f"B={POSTS}, W<={WORDS}, K={TAGS}: milliseconds of a call, medians of {args.rounds} rounds "
        "that take turns, lowest and highest; the ratio is the median of those of each round.\n",
        *table(["", "rpbert", "pytorch-crf", "ratio"], rows),
    ]
    publish("The CRF against pytorch-crf", lines, args.output)


if __name__ == "__main__":
    start(main)
