"""What speed costs a trained model: F1 and posts/s of each precision, plain and by the kernels.

    python benchmarks/fast_f1.py MODEL DATA [--split test] [--posts N] [--rounds 5]

MODEL is a folder that `rpbert train` wrote, DATA a data folder. F1 is seqeval's strict IOB2.
Before each round every system is built afresh and warmed up on a batch.
"""

from __future__ import annotations

from pathlib import Path

from common import machine, options, publish, ratio, spread, start, table

from rpbert import Tagger
from rpbert.benchmark import seconds
from rpbert.config.run import Backend, Precision
from rpbert.data.readers import open_data
from rpbert.data.words import SPLITTERS
from rpbert.evaluation.scoring import TagScores, score_tags
from rpbert.models.saved import TaggingModel
from rpbert.storage.published import model_folder

PLAIN = "fp32, torch"
WAYS: dict[str, tuple[Precision, Backend]] = {
    PLAIN: ("fp32", "torch"),
    "bf16, torch": ("bf16", "torch"),
    "fp32, kernels": ("fp32", "kernels"),
    "bf16, kernels": ("bf16", "kernels"),
    "int8, kernels": ("int8", "kernels"),
}


def main() -> None:
    parser = options(__file__, __doc__)
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--split", default="test")
    parser.add_argument("--posts", type=int, help="the first ones; else all")
    parser.add_argument("--batch", type=int, default=32)
    args = parser.parse_args()
    model = TaggingModel.load(model_folder(args.model))
    source = open_data(args.data, SPLITTERS[model.vocabulary.marks])
    posts = list(source.read(args.split))[: args.posts]
    gold = [post.tags or () for post in posts]
    scores: dict[str, TagScores] = {}
    rates: dict[str, list[float]] = {}
    for _ in range(args.rounds):
        for name, (precision, backend) in WAYS.items():
            decode = Tagger(model, "cpu", precision, backend).decoder.decode
            decode(posts[: args.batch], args.batch)
            rates.setdefault(name, []).append(len(posts) / seconds(decode, posts, args.batch))
            scores[name] = score_tags(gold, [a.tags for a in decode(posts, args.batch)])
    rows = []
    for name, each in rates.items():
        f1, plain = 100 * scores[name].strict.f1, 100 * scores[PLAIN].strict.f1
        speed = [spread(each, 1), ratio(each, rates[PLAIN])]
        rows.append([name, f"{f1:.2f}", f"{f1 - plain:+.2f}", *speed])
    parameters = sum(parameter.numel() for parameter in model.system.parameters())
    support = scores[PLAIN].strict.support
    lines = [
        f"{machine()}\n",
        f"`{model.options.system}` of {parameters / 1e6:.1f} million parameters, {len(posts):,} "
        f"posts of {args.data.name}/{args.split} with {support:,} entities, "
        f"batches of {args.batch}; medians of {args.rounds} rounds, lowest and highest.\n",
        *table(["system", "F1", "against plain", "posts/s", "× plain"], rows),
    ]
    publish("F1 of the fast paths", lines, args.output)


if __name__ == "__main__":
    start(main)
