"""What no friend would send: none of it is a fault of the service, which goes on answering."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode

from tests.hostile import bombs, images
from tests.service.common import connected, make_service, post, running, said
from tests.service.posts import TEXT, encoded, png
from tests.soak import Soak
from tests.test_inference import FINDER

DOCUMENT = pytest.mark.slow("requests made of the service's document", "300")
MANY = pytest.mark.slow("hostile requests to the service", "2,000, 32 slow clients beside them")
QUIET = settings(
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
LIMITS = {"max_body": 1.0, "max_image": 0.5, "slow_client": 0.5}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running(make_service(**LIMITS)) as url:  # type: ignore[arg-type]
        yield url
        still_well(url)


def raw(url: str, content: bytes) -> bytes:
    """What comes back for bytes; nothing where the service closes without a word."""
    with connected(url) as connection:
        try:
            connection.sendall(content)
            connection.shutdown(socket.SHUT_WR)
            return said(connection)
        except TimeoutError:
            raise
        except OSError:  # closed by the service before all was sent, or before its end was said
            return b""


def still_well(url: str) -> None:
    """It still tags, and right."""
    status, body = post(url, json.dumps({"text": TEXT}).encode())
    assert (status, json.loads(body)) == (200, FINDER.predict(TEXT).to_dict())


def held(status: int, body: bytes) -> None:
    """An answer, or JSON with a reason and no stack."""
    assert status < 500, body[:500]
    if status >= 400:
        error = json.loads(body)["error"]
        assert error["code"]
        assert error["reason"]
    assert b"Traceback" not in body
    assert b'File \\"' not in body


@pytest.mark.parametrize("operation", ["/v1/predict POST", "/v1/explain POST", "/v1/model GET"])
@pytest.mark.parametrize("count", [15, pytest.param(300, marks=DOCUMENT)])
def test_requests_made_of_the_document(url: str, count: int, operation: str) -> None:
    """Requests made of the OpenAPI document, half of them against it."""
    path, method = operation.split()
    made = schemathesis.openapi.from_url(url + "/openapi.json")[path][method]
    modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)

    @settings(QUIET, max_examples=count)
    @given(st.one_of(*(made.as_strategy(generation_mode=mode) for mode in modes)))
    def send(case: Case[Any]) -> None:
        answer = case.call(base_url=url, timeout=60)
        assert answer.status_code < 500, answer.content[:500]
        assert b"Traceback" not in answer.content

    send()
    still_well(url)


def bodies(draw: random.Random) -> Iterator[tuple[str, bytes, str]]:
    """Kinds of body in turn, without end: path, content and media type."""
    paths = ("/v1/predict", "/v1/explain")
    kinds = ("application/json", "multipart/form-data; boundary=b", "text/html", "", "*/*;q=1")
    good = json.dumps({"text": TEXT, "image": encoded(png())}).encode()
    damaged = images(100_000)
    values: list[Callable[[], object]] = [
        lambda: draw.choice([None, True, 0, -1.5, "", [], {}, [[]], [None], "a", 10**30]),
        lambda: {"text": draw.choice([None, 1, [], {}, True, "\ud800", "\0", "x" * 9999])},
        lambda: {"tokens": draw.choice([[None], [[]], [""] * 500, ["\udfff"], [{}]])},
        lambda: {"text": "Ada", "id": draw.choice([[], {}, "x" * 300, -1, 1e300, "\ud800", True])},
        lambda: {"text": "Ada", "image": draw.choice([1, [], "=", "AAAA", "%%%%", "\u00e9" * 40])},
        lambda: {"text": "Ada", "image": encoded(draw.randbytes(600))},
        lambda: {"text": "Ada", "image": encoded(png()[: draw.randrange(900)])},
        lambda: {"text": "Ada", "image": encoded(next(damaged))},
        lambda: {"text": "Ada", "image": draw.choice(["../" * 9 + "etc/passwd", "http://[::1]/a"])},
        lambda: {"text": "Ada", "relation": draw.choice([2, -1, "1", None, [], 1e400, True])},
        lambda: {"text": "Ada", draw.choice(["__proto__", "", "\ud800", "self", "image "]): 1},
        lambda: [{"text": "Ada"}] * draw.randrange(60, 70),
        lambda: {"text": "".join(chr(draw.randrange(1, 0xD800)) for _ in range(400))},
        lambda: {"text": "\u202e\u0301\u200d\ufe0f" * 200},
        lambda: {"text": " ".join("a" * draw.randrange(1, 9) for _ in range(700))},
    ]
    while True:
        yield draw.choice(paths), json.dumps(draw.choice(values)()).encode(), kinds[0]
        yield draw.choice(paths), draw.randbytes(draw.randrange(2000)), draw.choice(kinds)
        at = draw.randrange(len(good))
        yield draw.choice(paths), good[:at] + draw.randbytes(1) + good[at + 1 :], kinds[0]
        yield draw.choice(paths), good[:at], kinds[0]
        yield draw.choice(paths), form(draw), kinds[1]
        depth = draw.choice([100, 5000, 200_000])
        yield draw.choice(paths), b'{"a":' * depth + b"1" + b"}" * depth, kinds[0]
        yield draw.choice(paths), b"[" + b"1," * draw.randrange(200_000) + b"1]", kinds[0]
        yield draw.choice(paths), b"x" * draw.choice([1_048_577, 3_000_000]), draw.choice(kinds)


def form(draw: random.Random) -> bytes:
    """A form of parts that fit or do not."""
    parts = []
    for _ in range(draw.randrange(6)):
        name = draw.choice(["text", "image", "id", "relation", "tokens", 'a"b', "\u00e9", ""])
        file = draw.choice(["", '; filename="a.png"', '; filename=""', "; filename*=UTF-8''%00"])
        head = f'Content-Disposition: form-data; name="{name}"{file}'
        head += draw.choice(["", "\r\nContent-Type: text/plain; charset=utf-99", "\r\nX: y"])
        content = draw.choice([b"Ada", b"", draw.randbytes(50), png(), b"\0" * 300, b"nan"])
        parts.append(b"--b\r\n" + head.encode() + b"\r\n\r\n" + content + b"\r\n")
    return b"".join(parts) + draw.choice([b"--b--\r\n", b"--b", b"", b"--c--"])


GET, POST, HOST = b"GET /v1/model HTTP/1.1\r\n", b"POST /v1/predict HTTP/1.1\r\n", b"Host: x\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
HEADS = [
    b"GET / HTTP/1.1\r\n\r\n", b"\0" * 1000, b"\r\n" * 1000, b"",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    *(
        line + b" HTTP/1.1\r\nHost: x\r\n\r\n" for line in (
            b"GET /../../etc/passwd", b"GET /%2e%2e/%2e%2e/etc/passwd", b"CONNECT 127.0.0.1:1",
            b"GET /v1/examples/99999999999999999999/image", b"GET http://127.0.0.1:1/", b"TRACE /",
            b"OPTIONS *",
        )
    ),
    *(
        GET + HOST + lines + b"\r\n" for lines in (
            b"Upgrade: websocket\r\nConnection: Upgrade\r\n", b"A: b\r\n" * 900,
            b"A: " + b"b" * 200_000 + b"\r\n", b"Authorization: Bearer \xff\xfe\r\n",
        )
    ),
    *(
        POST + HOST + lines for lines in (
            b"Content-Length: -1\r\n\r\n", b"Content-Length: 9999999999999999\r\n\r\n{}",
            CHUNKED + b"\r\nzz\r\n", CHUNKED + b"Content-Length: 2\r\n\r\n{}",
        )
    ),
]  # fmt: skip


def crawl(url: str, number: int) -> None:
    """A client that sends a byte now and then, until it is put out."""
    content = POST + HOST + b"Content-Length: 1000\r\n\r\n" + b" " * 900
    with connected(url) as connection, suppress(ConnectionError):
        for byte in content[: 40 if number % 2 else None]:
            connection.sendall(bytes([byte]))
            time.sleep(0.02)


@pytest.mark.parametrize(("count", "clients"), [(130, 8), pytest.param(2_000, 32, marks=MANY)])
def test_hostile_requests(url: str, soak: Soak, count: int, clients: int) -> None:
    slow = [threading.Thread(target=crawl, args=(url, n), daemon=True) for n in range(clients)]
    for thread in slow:
        thread.start()
    for head in HEADS:
        answer = raw(url, head)
        assert not answer.startswith(b"HTTP/1.1 5"), (head[:80], answer[:300])
        assert b"root:" not in answer
    made = bombs()
    for bomb in made.values():
        held(*post(url, json.dumps({"text": "Ada", "image": encoded(bomb())}).encode()))
    draw = random.Random(clients)
    for path, content, kind in islice(bodies(draw), count - len(HEADS) - len(made)):
        held(*post(url, content, path, kind))
    still_well(url)
    for thread in slow:
        thread.join(60)
        assert not thread.is_alive()
    soak(f"{count:,} answered, none by 5xx; the service answers still")
