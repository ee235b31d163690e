"""The work of the paper: BERT-base, ResNet-152, soft gate, biLSTM(256) and CRF on JPEG files.

    python benchmarks/published_work.py [--batch 8] [--posts 64] [--repeats 5] [--device cuda]

What `rpbert benchmark` measures, its ratios to the code that the paper's authors published, and
the whole result as JSON beside the page, which `rpbert benchmark --compare` reads.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from common import options, publish, start, table

from rpbert.benchmark.report import render
from rpbert.benchmark.whole import Plan, run
from rpbert.benchmark.work import Size, Work

PUBLISHED = {"inference": 2.90, "training": 0.71}
"""Posts a second of the published code on Twitter-2017 with its images: batches of 8, float32,
2 cores with AVX-512 and bfloat16."""
BESIDE = (
    f"Published code: {PUBLISHED['inference']} posts/s in inference, {PUBLISHED['training']} in "
    "training, 8.0 GiB, measured by itself on another day."
)


def ratios(found: Mapping[str, Any]) -> list[list[str]]:
    """Inference and training in Task#2, precision by precision."""
    rates = {
        f"inference, {name}": ("inference", row["posts_per_second"], row["peak_gib"])
        for name, row in found["inference"].items()
    } | {
        f"training, {name}": ("training", row["posts_per_second"]["tagging"], row["peak_gib"])
        for name, row in found["training"].items()
    }
    return [
        [name, f"{rate['median']:.2f}", f"{rate['median'] / PUBLISHED[part]:.2f}", f"{peak:.2f}"]
        for name, (part, rate, peak) in rates.items()
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__file__, __doc__)
    parser.add_argument("--size", choices=get_args(Size), default="published")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--posts", type=int, default=64, help="tagged in a repeat")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--moments", choices=("task", "shared"), default="task")
    args = parser.parse_args(arguments)
    work = Work("rpbert", args.size, args.batch, args.posts, args.repeats, device=args.device)
    plan = Plan(work, ("fp32", "bf16", "int8"), moments=args.moments, growth=False)
    if args.device == "cuda":
        plan = Plan(work, ("fp32", "bf16"), moments=args.moments, growth=False)
    found = run(plan, lambda line: print(line, file=sys.stderr))
    lines = [
        "Random weights, made posts with a drawn JPEG each (some 600 pixels a side, quality 75 to "
        "92, none twice); decoding is part of inference. Training is a step of one task.",
        "",
        *("```", render(found), "```"),
    ]
    if args.size == "published":
        head = ["Task#2", "posts/s", "× published code", "peak GiB"]
        lines += ["", *table(head, ratios(found)), "", BESIDE]
    publish("The work of the paper", lines, args.output)
    content = json.dumps(found, indent=1, ensure_ascii=False)
    args.output.with_suffix(".json").write_text(content + "\n", "utf-8")


if __name__ == "__main__":
    start(main)
