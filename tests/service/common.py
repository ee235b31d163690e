"""A service of a tiny model, in this process or on a port of this machine, and its clients."""

from __future__ import annotations

import base64
import http.client
import io
import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from fastapi.testclient import TestClient

from rpbert import Post, Tagger
from rpbert.service.app import Service, create_app
from rpbert.service.batching import Work
from rpbert.service.guard import Guard
from rpbert.service.limits import ServiceSettings, read_keys
from rpbert.service.pages import made_examples
from rpbert.service.server import Server, address, listen
from tests.conftest import picture
from tests.test_inference import FINDER

KEY = "a-key-that-nobody-guesses"
TEXT = "RT @user1 Ada Lovelace again !"
JSON = {"Content-Type": "application/json"}
examples = cache(made_examples)


def png(seed: int = 0, size: int = 40) -> bytes:
    buffer = io.BytesIO()
    picture(seed, size).save(buffer, "PNG")
    return buffer.getvalue()


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def body(text: str, image: bytes | None = None) -> dict[str, Any]:
    return {"text": text} | ({"image": encoded(image)} if image else {})


def refusal(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def make_service(tagger: Tagger = FINDER, **limits: Any) -> Service:
    return Service(tagger, "tiny", ServiceSettings(**limits), examples())


def application(service: Service, *keys: str) -> Guard:
    return create_app(service, read_keys(None, {"RPBERT_API_KEYS": " ".join(keys)}))


@contextmanager
def client_of(service: Service, *keys: str) -> Iterator[TestClient]:
    """A client of a service without a network; its errors are answers, as over one."""
    with TestClient(application(service, *keys), raise_server_exceptions=False) as client:
        yield client


@contextmanager
def running(service: Service, *keys: str) -> Iterator[str]:
    """The address of a service that listens on a free port."""
    listener = listen("127.0.0.1", 0)
    uvicorn = Server(application(service, *keys))
    thread = threading.Thread(target=uvicorn.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield address(listener)
    finally:
        uvicorn.should_exit = True
        thread.join()


def connected(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=60)


def said(connection: socket.socket) -> bytes:
    """All that the service says until it closes."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


def post(
    url: str, body: bytes, path: str = "/v1/predict", kind: str = "application/json"
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    connection.request("POST", path, body, {"Content-Type": kind})
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def ask(url: str, body: object) -> int:
    return post(url, json.dumps(body).encode())[0]


class Blocked:
    """A service whose model waits until it is let go."""

    def __init__(self, **limits: Any) -> None:
        self.service = make_service(**limits)
        self.model = self.service.work.run
        self.service.work = Work("predict", self.run, 1)
        self.entered, self.go = threading.Event(), threading.Event()
        self.seen: list[str] = []

    def run(self, posts: Sequence[Post]) -> Sequence[Any]:
        self.seen += [post.text for post in posts]
        self.entered.set()
        self.go.wait(60)
        return self.model(posts)

    def wait_for(self, posts: int) -> None:
        """Until so many posts wait behind the one in the model."""
        assert self.entered.wait(60)
        until = time.monotonic() + 60
        while len(self.service.batcher) != posts:
            assert time.monotonic() < until
            time.sleep(0.01)


def series(metrics: str, name: str) -> float:
    """What `/metrics` says of one series; 0 where it has none."""
    lines = [line for line in metrics.splitlines() if line.startswith(name)]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def metric(client: TestClient, name: str) -> float:
    return series(client.get("/metrics").text, name)
