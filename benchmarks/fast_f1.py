"""What speed costs a trained model: F1 and posts/s of each precision, plain and fast.

    python benchmarks/fast_f1.py MODEL DATA [--split test] [--posts N] [--rounds 5]

MODEL is a folder that `rpbert train` wrote, DATA a data folder. `plain` is the system as it was
trained, layer by layer; the others are what `rpbert predict --precision` computes. F1 is seqeval's
strict IOB2. Before each round every system is built afresh and warmed up on a batch.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from common import machine, options, publish, spread, start, table

from rpbert import Post, Tagger
from rpbert.config.run import Precision
from rpbert.data.readers import open_data
from rpbert.data.words import SPLITTERS
from rpbert.evaluation.scoring import TagScores, score_tags
from rpbert.inference import Decoded, Decoder, model_folder
from rpbert.models.saved import TaggingModel

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8")
Decode: TypeAlias = Callable[[Sequence[Post], int], list[Decoded]]


def systems(model: TaggingModel) -> dict[str, Decode]:
    """Each way of computing, on a CPU."""
    ways: dict[str, Decode] = {"fp32, plain": Decoder(model, model.collator()).decode}
    for name in PRECISIONS:
        ways[f"{name}, fast"] = Tagger(model, "cpu", name, "kernels").decoder.decode
    return ways


def measured(
    model: TaggingModel, posts: Sequence[Post], rounds: int, batch: int
) -> tuple[dict[str, TagScores], dict[str, list[float]]]:
    """Scores, and posts a second round by round."""
    gold = [post.tags or () for post in posts]
    scores: dict[str, TagScores] = {}
    rates: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, decode in systems(model).items():
            decode(posts[:batch], batch)
            started = time.perf_counter()
            answers = decode(posts, batch)
            rates.setdefault(name, []).append(len(posts) / (time.perf_counter() - started))
            scores[name] = score_tags(gold, [answer.tags for answer in answers])
    return scores, rates


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__file__, __doc__)
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--split", default="test")
    parser.add_argument("--posts", type=int, help="the first ones; else all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32)
    args = parser.parse_args(arguments)
    model = TaggingModel.load(model_folder(args.model))
    source = open_data(args.data, SPLITTERS[model.vocabulary.marks])
    posts = list(source.read(args.split))[: args.posts]
    scores, rates = measured(model, posts, args.rounds, args.batch)
    plain = next(iter(rates))
    rows = []
    for name, each in rates.items():
        f1 = 100 * scores[name].strict.f1
        lost = f1 - 100 * scores[plain].strict.f1
        pairs = zip(each, rates[plain], strict=True)
        ratio = statistics.median(ours / theirs for ours, theirs in pairs)
        rows.append([name, f"{f1:.2f}", f"{lost:+.2f}", spread(each, 1), f"{ratio:.2f}"])
    support = scores[plain].strict.overall.gold
    parameters = sum(parameter.numel() for parameter in model.system.parameters())
    lines = [
        machine(),
        "",
        f"`{model.options.system}` of {parameters / 1e6:.1f} million parameters, {len(posts):,} "
        f"posts of {args.data.name}/{args.split} with {support:,} entities, batches of "
        f"{args.batch}; medians of {args.rounds} rounds that take turns, lowest and highest.",
        "",
        *table(["system", "F1", "against plain", "posts/s", "× plain"], rows),
    ]
    publish("F1 of the fast paths", lines, args.output)


if __name__ == "__main__":
    start(main)
