"""The service under load: dynamic batching against one post at a time, every answer checked.

For each way of batching a server of its own is started, and so many clients ask it without a
pause, each over one connection, for one post at a time. A made post in two has an image. Every
answer is held to what `Tagger.predict` said of its post beforehand.

    python benchmarks/service.py [--seconds 60] [--clients 64] [--model RUN]

Without --model the weights are random, of the shape of the demo's `rpbert`: how fast a post is
tagged does not depend on what was learnt.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import itertools
import math
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import psutil
import torch
from common import machine, options, publish, start, table

from rpbert import Post, Tagger
from rpbert.models import parse_options
from rpbert.models.saved import TaggingModel
from rpbert.synthetic.controlled import Options, make_post
from rpbert.synthetic.demo import settings_of
from rpbert.synthetic.scenes import draw

POSTS = Options(posts=256)
COLUMNS = ["", "posts/s", "p50 ms", "p95 ms", "CPU ms a post", "peak MiB", "statuses", "wrong"]
Asked = list[tuple[dict[str, Any], dict[str, Any]]]


def random_model(folder: Path) -> None:
    """A model of the demo's shape whose weights are random but for calling many words names."""
    posts = []
    for made in (make_post(number, POSTS) for number in range(2000)):
        words, tags, _ = zip(*made.tokens, strict=True)
        posts.append(Post.from_words(made.id, words, tags=tags))
    torch.manual_seed(0)
    model = TaggingModel.create(parse_options(settings_of("rpbert", folder, 0).model), posts)
    with torch.no_grad():
        model.system.tagger.to_tags.bias[0] = -0.5
    model.save(folder)


def questions(tagger: Tagger) -> Asked:
    """What is asked, and the answer to it."""
    asked: Asked = []
    for number in range(POSTS.posts):
        post = make_post(number, POSTS)
        body: dict[str, Any] = {"id": post.id, "text": post.text}
        image = None
        if number % 2 == 0:
            buffer = io.BytesIO()
            draw(post.shows, random.Random(number)).image.save(buffer, "JPEG", quality=85)
            image = buffer.getvalue()
            body["image"] = base64.b64encode(image).decode()
        expected = tagger.predict(post.text, image=image).to_dict()
        asked.append((body, {**expected, "id": post.id}))
    return asked


def same(answer: Any, expected: Any) -> bool:
    """Whether two answers agree, floats but for a sum in another order."""
    if isinstance(answer, dict) and isinstance(expected, dict):
        return answer.keys() == expected.keys() and all(
            same(answer[k], expected[k]) for k in answer
        )
    if isinstance(answer, list) and isinstance(expected, list):
        pairs = zip(answer, expected, strict=False)
        return len(answer) == len(expected) and all(same(a, b) for a, b in pairs)
    if isinstance(answer, float) and isinstance(expected, float):
        return math.isclose(answer, expected, abs_tol=1e-4)
    return bool(answer == expected)


@contextlib.contextmanager
def served(model: Path, batch_size: int) -> Iterator[tuple[str, psutil.Process]]:
    command = [sys.executable, "-m", "rpbert", "serve", str(model), "--port", "0"]
    command += ["--batch-size", str(batch_size)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        if not line.startswith("http"):
            raise SystemExit(line)
        try:
            yield line.split()[0], psutil.Process(process.pid)
        finally:
            process.terminate()
            print(process.stderr.read().strip(), file=sys.stderr)


async def load(
    url: str, asked: Asked, clients: int, seconds: float
) -> tuple[list[float], Counter[int], int]:
    """Seconds of each answer, how often each status came, and how many answers were wrong."""
    times, statuses, wrong = list[float](), Counter[int](), Counter[str]()
    until = time.monotonic() + seconds

    async def client(number: int) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=60) as session:
            for turn in itertools.count(number * 7):
                if time.monotonic() >= until:
                    return
                body, expected = asked[turn % len(asked)]
                began = time.monotonic()
                answer = await session.post("/v1/predict", json=body)
                times.append(time.monotonic() - began)
                statuses[answer.status_code] += 1
                if answer.status_code == 200 and not same(answer.json(), expected):
                    wrong["answer"] += 1

    await asyncio.gather(*(client(number) for number in range(clients)))
    return times, statuses, wrong.total()


def measured(model: Path, batch_size: int, asked: Asked, args: Any) -> tuple[float, list[str]]:
    """Posts a second, and a row of the page."""
    with served(model, batch_size) as (url, process):
        asyncio.run(load(url, asked, min(8, args.clients), 1.0))  # nothing is done first now
        before = sum(process.cpu_times()[:2])
        times, statuses, wrong = asyncio.run(load(url, asked, args.clients, args.seconds))
        cpu = 1000 * (sum(process.cpu_times()[:2]) - before) / max(1, len(times))
        status = Path(f"/proc/{process.pid}/status")  # Linux keeps the most it ever held
        held = status.read_text().partition("VmHWM:")[2] if status.exists() else ""
        peak = int(held.split()[0]) / 1024 if held else process.memory_info().rss / 2**20
    cuts = statistics.quantiles(times, n=100)
    rate = len(times) / args.seconds
    cells = [f"{rate:.1f}", f"{1000 * cuts[49]:.0f}", f"{1000 * cuts[94]:.0f}", f"{cpu:.1f}"]
    if wrong or set(statuses) - {200, 503}:
        raise SystemExit(f"{wrong} wrong answers, {dict(statuses)}")
    return rate, [*cells, f"{peak:.0f}", str(dict(statuses)), str(wrong)]


def main() -> None:
    parser = options(__file__, __doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--model", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or Path(folder) / "model"
        if args.model is None:
            random_model(model)
        tagger = Tagger.from_pretrained(model)
        asked = questions(tagger)
        size = sum(p.numel() for p in tagger.model.system.parameters())
        found = {
            way: measured(model, batch, asked, args)
            for way, batch in (("dynamic batching", 32), ("one by one", 1))
        }
    rates = [rate for rate, _ in found.values()]
    lines = [
        f"{machine('fastapi', 'uvicorn')}\n",
        f"{args.clients} clients for {args.seconds:g} s beside the service; "
        f"{args.model.name if args.model else 'random weights'}, {size:,} parameters; "
        "half of the posts with image\n",
        *table(COLUMNS, [[way, *row] for way, (_, row) in found.items()]),
        f"\nDynamic batching answers {rates[0] / rates[1]:.2f} times as many posts.",
    ]
    publish("The service under load", lines, args.output)


if __name__ == "__main__":
    start(main)
