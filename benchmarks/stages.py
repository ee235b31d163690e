"""Each stage of tagging by itself on one core, and what that makes of many posts on many GPUs.

    python benchmarks/stages.py [--posts 1e8] [--gpus 1 8 64] [--tflops 300] [--page docs/scale.md]

Made posts stand for tweets and photos drawn from noise for their images, 1,200 × 900 as JPEG.
The model has the published shapes, BERT-base and ResNet-152, with random weights. No GPU is
measured: its share is reckoned from the counted operations of a post and `--tflops`, what a GPU is
taken to sustain.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import pickle
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import machine, options, publish, start
from PIL import Image, ImageFilter
from torch.utils.flop_counter import FlopCounterMode

from rpbert import Post, Tagger
from rpbert.batch import Shard
from rpbert.batch.finished import Source
from rpbert.batch.output import FORMATS, opened
from rpbert.data.images import load_image
from rpbert.data.labels import strict_spans
from rpbert.data.readers import read_shard
from rpbert.inference import Decoded, prediction_of
from rpbert.models import parse_options
from rpbert.models.saved import TaggingModel
from rpbert.synthetic.controlled import Options, make_post
from rpbert.types import Batch, Prediction

ROUNDS, POSTS, BATCH, PHOTOS, ANSWERS = 5, 256, 32, 32, 4096
HASH, DECODE = "hash of the input (tar)", "decode and shrink an image"
PACK, PASS = "pack (sub-words, characters, pixels)", "to another process and back (Ray)"
BEGIN, END = "<!-- benchmarks/stages.py: begin -->", "<!-- benchmarks/stages.py: end -->"


@dataclass(frozen=True)
class Stage:
    """A stage on one core.

    Attributes:
        rate: posts a second, median of the rounds.
        low: the slowest round.
        high: the fastest.
    """

    name: str
    rate: float
    low: float
    high: float


@dataclass(frozen=True)
class Sizes:
    """Bytes of a post on its way, and operations of the model for it."""

    image: float
    row: float
    batch: float
    json_row: float
    parquet_row: float
    weights: float
    gflop: float


def photo(seed: int) -> bytes:
    """Noise of many scales, which takes a JPEG about as many bytes as a photo does."""
    draw = np.random.default_rng(seed)
    layers = np.zeros((900, 1200, 3))
    for scale in (2, 8, 32, 128):
        small = draw.integers(0, 256, (900 // scale + 1, 1200 // scale + 1, 3), dtype=np.uint8)
        layers += np.asarray(Image.fromarray(small).resize((1200, 900), Image.Resampling.BICUBIC))
    image = Image.fromarray((layers / 4).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def made(count: int) -> list[Post]:
    """Posts with tags, as the controlled data has them."""
    options = Options(posts=count)
    posts = []
    for number in range(count):
        words, tags, _ = zip(*make_post(number, options).tokens, strict=True)
        posts.append(Post.from_words(str(number), words, tags=tags))
    return posts


def timed(name: str, work: Callable[[], int]) -> Stage:
    """Posts a second of a stage; `work` says how many it took."""
    work()
    rates = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        count = work()
        rates.append(count / (time.perf_counter() - started))
    return Stage(name, statistics.median(rates), min(rates), max(rates))


def write_shards(folder: Path, posts: list[Post], photos: list[bytes]) -> dict[str, Path]:
    """The same posts as JSON lines without images, and as Parquet and tar with them."""
    import tarfile

    import pyarrow as pa
    import pyarrow.parquet as pq

    paths = {kind: folder / f"posts.{kind}" for kind in ("jsonl", "parquet", "tar")}
    rows = [{"id": post.id, "text": post.text} for post in posts]
    paths["jsonl"].write_text("".join(json.dumps(row) + "\n" for row in rows))
    images = [photos[i % PHOTOS] for i in range(len(posts))]
    with_images = [{**row, "image": image} for row, image in zip(rows, images, strict=True)]
    pq.write_table(pa.Table.from_pylist(with_images), paths["parquet"])
    with tarfile.open(paths["tar"], "w") as tar:
        for row in with_images:
            for suffix, content in ((".jpg", row["image"]), (".txt", row["text"].encode())):
                info = tarfile.TarInfo(row["id"] + suffix)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return paths


def measure(folder: Path, model_posts: int) -> tuple[list[Stage], Sizes]:
    """All stages, and the sizes between them."""
    posts, photos = made(POSTS), [photo(seed) for seed in range(PHOTOS)]
    paths = write_shards(folder, posts, photos)
    settings = {"encoder": {"shape": {}}, "evidence": {"blocks": {"shape": "resnet-152"}}}
    options = {"system": "rpbert", "tagger": {"lstm_hidden": 1024}, **settings}
    tagger = Tagger(TaggingModel.create(parse_options(options), posts), "cpu")
    shown = [post.with_(tags=None, image=photos[int(post.id) % PHOTOS]) for post in posts]
    batch = _packed(shown, tagger)
    cores = torch.get_num_threads()
    torch.set_num_threads(1)
    stages = reading(paths, photos, tagger) + packing(shown, photos, tagger)
    torch.set_num_threads(cores)
    decode = tagger.decoder.decode
    stages.append(timed("model, fp32, all cores", lambda: len(decode(shown[:model_posts], BATCH))))
    torch.set_num_threads(1)
    stages.append(timed("read tags and scores (CRF)", _read_tags(tagger, batch)))
    written, bytes_of_row = writing(folder)
    tagger.save_pretrained(folder / "model")
    return stages + written, Sizes(
        image=statistics.mean(map(len, photos)),
        row=paths["jsonl"].stat().st_size / POSTS,
        batch=len(pickle.dumps(batch)) / BATCH,
        json_row=bytes_of_row["jsonl"],
        parquet_row=bytes_of_row["parquet"],
        weights=(folder / "model" / "model.safetensors").stat().st_size,
        gflop=_gflop(tagger.model, batch),
    )


def reading(paths: dict[str, Path], photos: list[bytes], tagger: Tagger) -> list[Stage]:
    """From the disk to decoded images."""

    def read(kind: str) -> Callable[[], int]:
        return lambda: sum(1 for _ in read_shard(paths[kind], tagger.splitter))

    def images() -> int:
        return len([load_image(photo) for photo in photos])

    stages = [timed(HASH, lambda: bool(Source.of(paths["tar"])) * POSTS)]
    stages += [timed(f"read {kind}", read(kind)) for kind in paths]
    return [*stages, timed(DECODE, images)]


def packing(shown: list[Post], photos: list[bytes], tagger: Tagger) -> list[Stage]:
    """From posts with decoded images to a batch, here and in another process."""
    collator = tagger.decoder.collator
    decoded = [Image.fromarray(np.asarray(load_image(photo).pixels)) for photo in photos]
    small = [post.with_(image=decoded[int(post.id) % PHOTOS]) for post in shown]
    batch = _packed(shown, tagger)

    def pack() -> int:
        for first in range(0, POSTS, BATCH):
            collator(small[first : first + BATCH])
        return POSTS

    return [timed(PACK, pack), timed(PASS, lambda: len(pickle.loads(pickle.dumps(batch))))]


def _packed(shown: list[Post], tagger: Tagger) -> Batch:
    """A batch as readers hand it over, its posts without the encoded images."""
    batch = tagger.decoder.collator(shown[:BATCH])
    return replace(batch, posts=tuple(post.with_(image=None) for post in batch.posts))


def writing(folder: Path) -> tuple[list[Stage], dict[str, float]]:
    """From predictions to the disk, and the bytes of one."""
    predictions = [_answer(post) for post in made(ANSWERS)]
    stages, sizes = [], {}
    for format in FORMATS:
        shard = Shard(folder / "posts.tar", folder / f"answers.{format}")

        def write(shard: Shard = shard, format: Any = format) -> int:
            with opened(shard, format) as output:
                for prediction in predictions:
                    output.add(prediction)
            return ANSWERS

        stages.append(timed(f"write {format}", write))
        sizes[format] = shard.output.stat().st_size / ANSWERS
    return stages, sizes


def _answer(post: Post) -> Prediction:
    """A prediction of the size that a trained model's has: what the gold says, with scores."""
    tags = post.tags or ()
    scores = tuple(0.9 + 0.01 * math.sin(len(post.text) + i) for i in range(len(tags)))
    decoded = Decoded(tags, scores[: len(strict_spans(tags))], scores[0], "used")
    return prediction_of(post, decoded)


def _read_tags(tagger: Tagger, batch: Any) -> Callable[[], int]:
    with torch.inference_mode():
        output = tagger.decoder.system(batch)
    return lambda: len(tagger.decoder.read(batch, output))


def _gflop(model: TaggingModel, batch: Any) -> float:
    """Operations of a post, a product and a sum as two, by PyTorch's counter."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model.system.eval()(batch)
    return counter.get_total_flops() / 1e9 / len(batch)


def reckoned(
    stages: list[Stage], sizes: Sizes, posts: float, gpus: list[int], tflops: float
) -> list[dict[str, Any]]:
    """What so many posts with an image each need on so many GPUs."""
    rate = {stage.name: stage.rate for stage in stages}
    gpu = 1000 * tflops / sizes.gflop  # posts/s
    cpu = 1 / sum(1 / rate[name] for name in (HASH, "read tar", DECODE, PACK, PASS))
    return [
        {
            "GPUs": count,
            "posts/s": count * gpu,
            "hours": posts / (count * gpu) / 3600,
            "cores to feed them": count * gpu / cpu,
            "input GB/s": count * gpu * (sizes.image + sizes.row) / 1e9,
            "packed GB/s": count * gpu * sizes.batch / 1e9,
            "cores to write": count * gpu / rate["write jsonl"],
        }
        for count in gpus
    ]


def stored(sizes: Sizes, posts: float) -> dict[str, float]:
    """Gigabytes of everything that is kept."""
    return {
        "texts": posts * sizes.row / 1e9,
        "images": posts * sizes.image / 1e9,
        "predictions as JSON lines": posts * sizes.json_row / 1e9,
        "predictions as Parquet": posts * sizes.parquet_row / 1e9,
        "model": sizes.weights / 1e9,
        "a checkpoint (weights, two moments of each task)": 5 * sizes.weights / 1e9,
    }


def report(stages: list[Stage], sizes: Sizes, given: argparse.Namespace) -> str:
    """The page's tables."""
    busy = f"load {os.getloadavg()[0]:.1f} when it ended"
    lines = [
        f"{machine('pillow', 'pyarrow')} One core a stage, the model on all; {busy}.",
        "\n| stage | posts/s | slowest to fastest of five rounds |\n|---|---:|---:|",
    ]
    lines += [f"| {s.name} | {s.rate:,.1f} | {s.low:,.1f} to {s.high:,.1f} |" for s in stages]
    lines += [
        f"\nA post: text {sizes.row:,.0f} bytes, image {sizes.image / 1000:,.0f} KB, packed "
        f"{sizes.batch / 1000:,.0f} KB, prediction {sizes.json_row:,.0f} bytes as JSON and "
        f"{sizes.parquet_row:,.0f} as Parquet; {sizes.gflop:,.1f} GFLOP of products and "
        "convolutions.",
        f"\n{given.posts:,.0f} posts with an image each, {given.tflops:,.0f} TFLOP/s a GPU:\n",
    ]
    table = reckoned(stages, sizes, given.posts, given.gpus, given.tflops)
    lines.append(f"| {' | '.join(table[0])} |\n|{'---:|' * len(table[0])}")
    for row in table:
        shown = [f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in row.values()]
        lines.append(f"| {' | '.join(shown)} |")
    lines.append("\n| stored | GB |\n|---|---:|")
    lines += [f"| {name} | {v:,.1f} |" for name, v in stored(sizes, given.posts).items()]
    return "\n".join(lines)


def main() -> None:
    parser = options(__file__, __doc__)
    parser.add_argument("--posts", type=float, default=1e8)
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--tflops", type=float, default=300, help="what a GPU is taken to sustain")
    parser.add_argument("--model-posts", type=int, default=BATCH, help="posts through the model")
    parser.add_argument("--page", type=Path, help="write the tables between the marks of a page")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stages, sizes = measure(Path(folder), given.model_posts)
    if given.json:
        table = reckoned(stages, sizes, given.posts, given.gpus, given.tflops)
        content = {"stages": [asdict(stage) for stage in stages], "sizes": asdict(sizes)}
        kept = stored(sizes, given.posts)
        print(json.dumps({**content, "reckoned": table, "stored GB": kept}, indent=1))
        return
    tables = report(stages, sizes, given)
    publish("Stages of tagging", tables.splitlines(), given.output)
    if given.page is not None:
        before, _, rest = given.page.read_text("utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        given.page.write_text(f"{before}{BEGIN}\n{tables}\n{END}{after}", "utf-8")


if __name__ == "__main__":
    start(main)
