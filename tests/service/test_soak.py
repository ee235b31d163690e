"""Good clients beside hostile ones and such that do not read; memory over many requests."""

from __future__ import annotations

import http.client
import json
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest

from tests.batch.made import assert_same
from tests.service.common import body, connected, png, post
from tests.service.test_server import command_line
from tests.soak import Soak
from tests.test_inference import FINDER

FORM = b'--x\r\nContent-Disposition: form-data; name="text"\r\n\r\n' + b"-a" * 400_000
CODEC = "multipart/form-data; boundary=x; charset={}"
HOSTILE: list[tuple[str, str, bytes, dict[str, str], int]] = [
    ("POST", "/v1/predict", FORM, {"Content-Type": CODEC.format("punycode")}, 415),
    ("POST", "/v1/predict", FORM, {"Content-Type": CODEC.format("undefined")}, 415),
    ("POST", "/docs", b"x" * 2**20, {}, 405),
    ("GET", "/healthz", b"x" * 2**20, {}, 200),
    ("POST", "/v1/predict", b'{"text": "Ada"}', {"Origin": "https://evil.example"}, 403),
    ("POST", "/v1/predict", b'{"text": "Ada"}', {"Host": "rebound.example"}, 421),
]
SIZE = "1,000 hostile requests, 200 slow readers, 20 good clients"
BESIDE = pytest.mark.slow("good clients beside hostile ones", SIZE)
MANY = pytest.mark.slow("memory of the service", "10,000 posts and images")


def asked(url: str, given: dict[str, Any]) -> tuple[float, Any]:
    """The seconds to an answer, and the answer."""
    started = time.monotonic()
    status, answer = post(url, json.dumps(given).encode())
    assert status == 200, answer
    return time.monotonic() - started, json.loads(answer)


def attack(url: str, number: int) -> bool:
    """Whether a hostile request was answered as it should."""
    method, path, content, headers, status = HOSTILE[number % len(HOSTILE)]
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    try:
        connection.request(method, path, content, headers)
        return connection.getresponse().status == status
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("attacks", "readers", "good", "requests"),
    [
        (12, 10, 4, 60),
        pytest.param(1000, 200, 20, 60, marks=BESIDE),
        pytest.param(12, 10, 4, 10_000, marks=MANY),
    ],
)
def test_good_clients_are_served_and_memory_stays(
    attacks: int, readers: int, good: int, requests: int, soak: Soak, tmp_path: Path
) -> None:
    given = [(f"RT @user{i} Ada at Acme", png(i) if i % 2 else None) for i in range(40)]
    posts = [body(*one) for one in given]
    expected = [FINDER.predict(*one).to_dict() for one in given]
    with command_line(tmp_path / "model") as (process, url), ExitStack() as held:
        for _ in range(readers):
            reader = held.enter_context(connected(url))
            reader.sendall(50 * b"GET /app.js HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with ThreadPoolExecutor(good + 4) as pool:
            over = threading.Event()
            asking = [pool.submit(repeated, url, posts, over) for _ in range(good)]
            hostile = [pool.submit(attack, url, number) for number in range(attacks)]
            right = [one.result() for one in hostile]
            over.set()
            assert all(right)
            answers = [answer for one in asking for answer in one.result()]
        wanted = [expected[i] for i, *_ in answers]
        assert_same([answer for *_, answer in answers], wanted, 1e-5)
        slowest = max(seconds for _, seconds, _ in answers)
        assert slowest < 30
        sizes = grown(process.pid, url, requests)
        slope = float(np.polyfit(np.arange(len(sizes)), sizes, 1)[0]) * 1000 / (requests / 40)
        assert requests < 1000 or slope < 1
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=90)
        assert process.returncode == 0
    soak(
        f"{len(answers):,} good answers beside them, all right, the slowest {slowest:.1f} s; then "
        f"{slope:+.2f} MB per 1,000 requests, {sizes[0]:.0f} MB in the middle, {sizes[-1]:.0f} at "
        "the end"
    )


def repeated(url: str, posts: list[dict[str, Any]], over: threading.Event) -> list[Any]:
    """Ask on until it is over: the number of the post, the seconds, the answer."""
    found: list[Any] = []
    while not found or not over.is_set():
        i = len(found) % len(posts)
        found.append((i, *asked(url, posts[i])))
    return found


def grown(process: int, url: str, requests: int) -> list[float]:
    """Megabytes of the service at 20 points of the second half of distinct posts."""
    sizes = []
    with ThreadPoolExecutor(4) as pool:
        for done in range(0, requests, every := max(1, requests // 40)):
            numbers = range(done, done + every)
            batch = [body(f"Word{n} of {n * 7919} at Acme", png(n)) for n in numbers]
            list(pool.map(lambda one: asked(url, one), batch))
            sizes.append(psutil.Process(process).memory_info().rss / 1e6)
    return sizes[len(sizes) // 2 :]
