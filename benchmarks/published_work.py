"""The work of the paper, BERT-base, ResNet-152, soft gate, biLSTM(256) and CRF, by each backend.

    python benchmarks/published_work.py [--against GITDIR] [--posts 16] [--rounds 5]

Random weights, made posts with a drawn JPEG each, tagged in batches of 8; decoding the images is
part of it. GITDIR is a clone of Multimodal-NER/RpBERT, whose program of 2022 then takes turns, with
the ResNet of that of 2021 and without flair's word vectors: BERT's alone go into its biLSTM.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from common import WAYS, in_turn, machine, options, publish, ratio, spread, start, table

from rpbert import Post, Tagger
from rpbert.backends.engines import export
from rpbert.benchmark import Work
from rpbert.data.images import Preprocessing, load_image, normalise_batch

PUBLISHED = "published code"
BATCH = 8


class Published:
    """What the paper's authors published."""

    def __init__(self, folder: str, work: Work) -> None:
        sys.path.append(str(Path(__file__).parents[1] / "scripts"))
        import parity
        import torchcrf
        from transformers import BertConfig, BertModel

        code, model = parity.Commit(folder, "4849840"), work.model()
        resnet = parity.Commit(folder, "f18e8e1")("rpbert.resnet_model")
        module, self.data = code("model.model"), code("data.dataset")
        module.CRF = torchcrf.CRF  # not the mock that the script has in its place
        encoder = BertModel(BertConfig(vocab_size=len(model.tokenizer or ())))
        network = resnet.ResNet(resnet.Bottleneck, [3, 8, 36, 3])
        parts = model.tokenizer, encoder, 768, network, 2048, None
        self.model = module.MyModel(torch.device("cpu"), *parts, True, True, True).eval()

    def __call__(self, posts: Sequence[Post]) -> Any:
        with torch.no_grad():
            for first in range(0, len(posts), BATCH):
                self.model.ner_forward([self.pair(post) for post in posts[first : first + BATCH]])

    def pair(self, post: Post) -> Any:
        usual = Preprocessing()
        pixels = load_image(post.image, usual.size, usual.resampling).pixels
        assert pixels is not None
        image, words = self.data.MyImage(""), [self.data.MyToken(w, 0) for w in post.words]
        image.data = normalise_batch([pixels], usual)[0]
        return self.data.MyPair(self.data.MySentence(words), image)


def main() -> None:
    parser = options(__file__, __doc__)
    parser.add_argument("--against", metavar="GITDIR")
    parser.add_argument("--posts", type=int, default=16, help="tagged in a round")
    args = parser.parse_args()
    work = Work(posts=args.posts, batch=BATCH, repeats=args.rounds + 1)
    calls: dict[str, Callable[[list[Post]], object]] = {}
    if args.against:
        calls[PUBLISHED] = Published(args.against, work)
    differences = {}
    with tempfile.TemporaryDirectory() as folder:
        model = work.model()
        model.save(Path(folder, "torch"))
        for name, backend in WAYS.items():
            if backend != "torch":
                scaling = work.given(0, 32) if "int8" in name else ()
                found = export(model, backend, Path(folder, name), work.given(0, BATCH), scaling)
                differences[name] = max(found.values())
            tagger = Tagger.from_pretrained(Path(folder, name), "cpu", backend=backend)
            calls[name] = lambda posts, tagger=tagger: tagger.predict_batch(posts, BATCH)
        warm, *runs = work.runs()
        in_turn({name: lambda call=call: call(warm) for name, call in calls.items()}, 1)
        rates: dict[str, list[float]] = {name: [] for name in calls}
        for run in runs:
            turn = {name: lambda c=call, run=run: c(run) for name, call in calls.items()}
            for name, times in in_turn(turn, 1).items():
                rates[name].append(len(run) / times[0])
    first = next(iter(rates))
    rows = [[name, spread(each), ratio(each, rates[first])] for name, each in rates.items()]
    gaps = ", ".join(f"{gap:.0e} by {name}" for name, gap in differences.items())
    lines = [
        f"{machine('openvino', 'onnxruntime')}\n",
        f"{len(runs)} rounds of {args.posts} posts in turns, batches of {BATCH}, float32 unless "
        f"int8 is said; medians, lowest and highest; the ratio is the median of those of each "
        f"round. Largest difference of any output from PyTorch: {gaps}.\n",
        *table(["", "posts/s", f"x {first}"], rows),
    ]
    publish("The work of the paper", lines, args.output)


if __name__ == "__main__":
    start(main)
