"""The work of the paper: BERT-base, ResNet-152, soft gate, biLSTM(256) and CRF on JPEG files.

    python benchmarks/published_work.py [--rounds 5] [--device cuda]

What `rpbert benchmark` measures, its ratios to the code that the paper's authors published, and
the whole result as JSON beside the page.
"""

from __future__ import annotations

import json
import sys

from common import options, publish, start, table

from rpbert.benchmark import Work, run
from rpbert.cli.show import benchmark_table
from rpbert.config.run import Precision

PUBLISHED = {"inference": 2.90, "training": 0.71}
"""Posts a second of the published code on Twitter-2017 with its images: batches of 8, float32,
2 cores with AVX-512 and bfloat16."""


def main() -> None:
    parser = options(__file__, __doc__)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--posts", type=int, default=64, help="tagged in a repeat")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--moments", choices=("task", "shared"), default="task")
    args = parser.parse_args()
    work = Work("rpbert", "published", args.batch, args.posts, args.rounds, device=args.device)
    precisions: list[Precision] = ["fp32", "bf16", *(["int8"] if args.device == "cpu" else [])]
    found = run(
        work, precisions, lambda line: print(line, file=sys.stderr), moments=args.moments,
        growth=False,
    )  # fmt: skip
    rows = []
    for part, published in PUBLISHED.items():
        for name, row in found[part].items():
            rates = row["posts_per_second"]
            rate = rates.get("tagging", rates)["median"]
            cells = [f"{rate:.2f}", f"{rate / published:.2f}", f"{row['peak_gib']:.2f}"]
            rows.append([f"{part}, {name}", *cells])
    lines = [
        "Random weights, made posts with a drawn JPEG each (some 600 pixels a side, quality 75 to "
        "92, none twice); decoding is part of inference. Training is a step of one task.\n",
        *("```", *benchmark_table(found), "```\n"),
        *table(["Task#2", "posts/s", "× published code", "peak GiB"], rows),
        f"\nPublished code: {PUBLISHED['inference']} posts/s in inference, "
        f"{PUBLISHED['training']} in training, 8.0 GiB, measured by itself on another day.",
    ]
    publish("The work of the paper", lines, args.output)
    content = json.dumps(found, indent=1, ensure_ascii=False)
    args.output.with_suffix(".json").write_text(content + "\n", "utf-8")


if __name__ == "__main__":
    start(main)
