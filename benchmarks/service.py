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
import json
import math
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import torch
from common import machine, options, publish, start

from rpbert import Post, Tagger
from rpbert.models import parse_options
from rpbert.models.saved import TaggingModel
from rpbert.synthetic.controlled import MadePost, Options, make_post
from rpbert.synthetic.demo import settings_of
from rpbert.synthetic.scenes import draw
from rpbert.types import Prediction

POSTS = 256
WAYS = {"dynamic batching": 32, "one by one": 1}
COLUMNS = (
    *("posts/s", "p50 ms", "p95 ms", "CPU ms a post", "peak MiB"),
    *("answers", "503", "other errors", "lost", "wrong"),
)
CLOSE = 1e-4  # a sum of floats in another order


@dataclass(frozen=True)
class Asked:
    """A post as bytes on the wire, after its id, and what its answer must be."""

    body: str
    expected: Prediction


@dataclass
class Load:
    """What the clients saw."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lost: int = 0
    took: float = 0.0


def made_post(index: int) -> MadePost:
    return make_post(index, Options(posts=POSTS))


def image_of(index: int, post: MadePost) -> bytes | None:
    if index % 2:
        return None
    buffer = io.BytesIO()
    draw(post.shows, random.Random(index)).image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def new_model(folder: Path) -> None:
    """A model of the demo's shape whose weights are random but for calling many words names."""
    posts = []
    for made in map(made_post, range(2000)):
        words, tags = zip(*((token.word, token.tag) for token in made.tokens), strict=True)
        posts.append(Post.from_words(made.id, words, tags=tags))
    torch.manual_seed(0)
    options = parse_options(settings_of("rpbert", folder, 0).model)
    model = TaggingModel.create(options, posts)
    with torch.no_grad():
        model.system.tagger.to_tags.bias[0] = -0.5
    model.save(folder)


def questions(tagger: Tagger) -> list[Asked]:
    asked = []
    for index in range(POSTS):
        post = made_post(index)
        image = image_of(index, post)
        values: dict[str, Any] = {"text": post.text}
        if image is not None:
            values["image"] = base64.b64encode(image).decode()
        asked.append(Asked(json.dumps(values)[1:], tagger.predict(post.text, image=image)))
    return asked


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


async def client(url: str, number: int, asked: list[Asked], until: float, load: Load) -> None:
    """Asks again and again over one connection, and checks each answer against its post."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    turns = itertools.count(number * 7)
    while time.monotonic() < until:
        turn = next(turns)
        question, id = asked[turn % len(asked)], f"{number}/{turn}"
        body = f'{{"id": "{id}", {question.body}'.encode()
        head = f"POST /v1/predict HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        started = time.monotonic()
        try:
            writer.write(head.encode() + body)
            answer_head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = answer_head.lower().partition("content-length: ")[2].partition("\r")[0]
            answer = json.loads(await reader.readexactly(int(length)))
        except (OSError, EOFError, ValueError):
            load.lost += 1
            break
        load.seconds.append(time.monotonic() - started)
        status = int(answer_head.split(" ", 2)[1])
        load.statuses[status] += 1
        if status == 200 and not same(answer, id, question.expected):
            load.wrong.append(f"{answer} is not {question.expected}")
    writer.close()


def same(answer: dict[str, Any], id: str, expected: Prediction) -> bool:
    """Whether an answer is that of its post: all but the floats to the letter."""
    wanted = expected.to_dict()
    found = [answer["relation"], *(e.pop("score") for e in answer["entities"])]
    floats = [wanted["relation"], *(e.pop("score") for e in wanted["entities"])]
    for values in (answer, wanted):
        values.pop("relation")
    if answer != {**wanted, "id": id} or len(found) != len(floats):
        return False
    return all(math.isclose(a, b, abs_tol=CLOSE) for a, b in zip(found, floats, strict=True))


async def loaded(url: str, asked: list[Asked], clients: int, seconds: float) -> Load:
    load = Load()
    started = time.monotonic()
    until = started + seconds
    await asyncio.gather(*(client(url, n, asked, until, load) for n in range(clients)))
    load.took = time.monotonic() - started
    return load


def measured(model: Path, batch_size: int, asked: list[Asked], args: Any) -> tuple[Load, str]:
    with served(model, batch_size) as (url, process):
        asyncio.run(loaded(url, asked, min(8, args.clients), 1.0))  # nothing is done first now
        before = sum(process.cpu_times()[:2])
        load = asyncio.run(loaded(url, asked, args.clients, args.seconds))
        cpu = 1000 * (sum(process.cpu_times()[:2]) - before) / max(1, len(load.seconds))
        # Linux keeps the most that a process ever held; elsewhere what it holds now must do.
        memory = process.memory_info()
        peak = getattr(memory, "peak_wset", 0) or peak_of(process.pid) or memory.rss
    ordered = sorted(load.seconds)
    cuts = statistics.quantiles(ordered, n=100) if len(ordered) > 1 else [0.0] * 99
    other = sum(count for status, count in load.statuses.items() if status not in (200, 503))
    row = f"{len(ordered) / load.took:.1f} | {1000 * cuts[49]:.0f} | {1000 * cuts[94]:.0f} | "
    row += (
        f"{cpu:.1f} | {peak / 2**20:.0f} | {len(ordered):,} | {load.statuses[503]:,} | {other} | "
    )
    return load, row + f"{load.lost} | {len(load.wrong)}"


def peak_of(process: int) -> int:
    """The most memory that a process ever held, in bytes; 0 where the system does not tell."""
    try:
        status = Path(f"/proc/{process}/status").read_text("utf-8")
    except OSError:
        return 0
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def main() -> None:
    parser = options(__file__, __doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--model", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or Path(folder) / "model"
        if args.model is None:
            new_model(model)
        tagger = Tagger.from_pretrained(model)
        asked = questions(tagger)
        size = sum(p.numel() for p in tagger.model.system.parameters())
        lines = [
            machine("fastapi", "uvicorn"),
            "",
            f"{args.clients} clients for {args.seconds:g} s beside the service; "
            f"{args.model.name if args.model else 'random weights'}, {size:,} parameters; "
            "half of the posts with image",
            "",
            f"| | {' | '.join(COLUMNS)} |",
            "|---" * (len(COLUMNS) + 1) + "|",
        ]
        loads = {}
        for way, batch_size in WAYS.items():
            loads[way], row = measured(model, batch_size, asked, args)
            lines.append(f"| {way} | {row} |")
    rates = [len(load.seconds) / load.took for load in loads.values()]
    lines += ["", f"Dynamic batching answers {rates[0] / rates[1]:.2f} times as many posts."]
    publish("The service under load", lines, args.output)
    for load in loads.values():
        for line in load.wrong[:3]:
            print(line, file=sys.stderr)
        if load.wrong or load.lost or set(load.statuses) - {200, 503}:
            raise SystemExit(1)


if __name__ == "__main__":
    start(main)
