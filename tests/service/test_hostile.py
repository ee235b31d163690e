"""What no friend would send: none of it is a fault of the service, which goes on answering."""

from __future__ import annotations

import base64
import errno
import http.client
import io
import json
import random
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from schemathesis import Case, GenerationMode

from tests.service.common import make_service, png, running
from tests.soak import Soak
from tests.test_inference import FINDER

LIMITS = {"max_body": 1.0, "max_image": 0.5, "slow_client": 0.5}
TEXT = "RT @user1 Ada Lovelace again !"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running(make_service(**LIMITS)) as url:  # type: ignore[arg-type]
        yield url
        still_well(url)


def raw(url: str, content: bytes) -> bytes:
    """What comes back for bytes; nothing where the service closes without a word."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
        try:
            connection.sendall(content)
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
        except OSError as error:
            # Closed by the service before all was sent, or before its end was said.
            if not isinstance(error, ConnectionError) and error.errno != errno.ENOTCONN:
                raise
            return b""
    return answer


def post(url: str, path: str, body: bytes, kind: str = "application/json") -> tuple[int, bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    connection.request("POST", path, body, {"Content-Type": kind})
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def still_well(url: str) -> None:
    """It still tags, and right."""
    status, body = post(url, "/v1/predict", json.dumps({"text": TEXT}).encode())
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


# ---- what a program makes up from the document ----


def fuzz(url: str, operation: str, examples: int) -> None:
    """Requests made of the OpenAPI document, half of them against it."""
    schema = schemathesis.openapi.from_url(url + "/openapi.json")
    path, method = operation.split()
    made = schema[path][method]
    modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.one_of(*(made.as_strategy(generation_mode=mode) for mode in modes)))
    def send(case: Case[Any]) -> None:
        answer = case.call(base_url=url, timeout=60)
        assert answer.status_code < 500, answer.content[:500]
        assert b"Traceback" not in answer.content

    send()


OPERATIONS = ["/v1/predict POST", "/v1/explain POST", "/v1/model GET"]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_requests_made_of_the_document(url: str, operation: str) -> None:
    fuzz(url, operation, 15)
    still_well(url)


@pytest.mark.slow("requests made of the service's document", "300")
@pytest.mark.parametrize("operation", OPERATIONS)
def test_many_requests_made_of_the_document(url: str, operation: str) -> None:
    fuzz(url, operation, 300)
    still_well(url)


# ---- what a person makes up ----


def chunk(name: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + checksum


def png_of(width: int, height: int, data: bytes, extra: bytes = b"") -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", head), extra, chunk(b"IDAT", data), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def bombs() -> list[bytes]:
    """Small files that claim, or unpack to, far more than they are."""
    zeros = zlib.compress(bytes(50_000_000), 9)
    text = zlib.compress(b"A" * 40_000_000, 9)
    frames = [Image.new("P", (2000, 2000), i % 256) for i in range(40)]
    gif = io.BytesIO()
    frames[0].save(gif, "GIF", save_all=True, append_images=frames[1:])
    jpeg = io.BytesIO()
    Image.new("RGB", (5000, 5000)).save(jpeg, "JPEG", progressive=True, quality=1)
    scans = jpeg.getvalue()
    start = scans.rindex(b"\xff\xda")
    repeated = scans[:start] + scans[start:-2] * 20 + scans[-2:]
    return [
        png_of(2**31 - 1, 2**31 - 1, zeros),
        png_of(60_000, 60_000, zeros),
        png_of(6000, 6000, zlib.compress(bytes(6000 * 18_001), 9)),
        png_of(8, 8, zeros),
        png_of(8, 8, zlib.compress(bytes(200)), chunk(b"zTXt", b"a\0\0" + text)),
        png_of(8, 8, zlib.compress(bytes(200)), chunk(b"iCCP", b"a\0\0" + text)),
        gif.getvalue(),
        repeated[:400_000],
        b"BM"
        + struct.pack(
            "<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, 30_000, -30_000, 1, 24, 0, 0, 0, 0, 0, 0
        ),
        b"RIFF" + struct.pack("<I", 100) + b"WEBPVP8X" + bytes(90),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n" + bytes(90),
        b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    ]


def bodies(draw: random.Random) -> Iterator[tuple[str, bytes, str]]:
    """Kinds of body in turn, without end: path, content and media type."""
    paths = ("/v1/predict", "/v1/explain")
    kinds = ("application/json", "multipart/form-data; boundary=b", "text/html", "", "*/*;q=1")
    good = json.dumps({"text": TEXT, "image": base64.b64encode(png()).decode()}).encode()
    values: list[Callable[[], object]] = [
        lambda: draw.choice([None, True, 0, -1.5, "", [], {}, [[]], [None], "a", 10**30]),
        lambda: {"text": draw.choice([None, 1, [], {}, True, "\ud800", "\0", "x" * 9999])},
        lambda: {"tokens": draw.choice([1, "a", [1], [None], [[]], [""] * 500, ["\udfff"], [{}]])},
        lambda: {"text": "Ada", "id": draw.choice([[], {}, "x" * 300, -1, 1e300, "\ud800", True])},
        lambda: {"text": "Ada", "image": draw.choice([1, [], "=", "AAAA", "%%%%", "\u00e9" * 40])},
        lambda: {"text": "Ada", "image": base64.b64encode(draw.randbytes(600)).decode()},
        lambda: {"text": "Ada", "image": base64.b64encode(png()[: draw.randrange(900)]).decode()},
        lambda: {"text": "Ada", "image": base64.b64encode(damaged(draw)).decode()},
        lambda: {"text": "Ada", "image": "../" * draw.randrange(1, 9) + "etc/passwd"},
        lambda: {"text": "Ada", "image": draw.choice(["file:///etc/passwd", "http://[::1]/a"])},
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


def damaged(draw: random.Random) -> bytes:
    """An image with some of its bytes changed."""
    content = bytearray(png(size=64))
    for _ in range(draw.randrange(1, 30)):
        content[draw.randrange(len(content))] = draw.randrange(256)
    return bytes(content)


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


HEADS = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v1/examples/99999999999999999999/image HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://127.0.0.1:1/ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /v1/model HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    b"GET /v1/model HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 900 + b"\r\n",
    b"GET /v1/model HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 200_000 + b"\r\n\r\n",
    b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999999999\r\n\r\n{}",
    b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
    b"Content-Length: 2\r\n\r\n{}",
    b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\r\n\r\n",
    b"\0" * 1000,
    b"\r\n" * 1000,
    b"",
]


def attack(url: str, count: int, seed: int) -> int:
    """So many requests of all kinds; returns how many were sent."""
    draw = random.Random(seed)
    sent = 0
    for head in HEADS:
        answer = raw(url, head)
        assert not answer.startswith(b"HTTP/1.1 5"), (head[:80], answer[:300])
        assert b"root:" not in answer
        sent += 1
    for bomb in bombs():
        image = base64.b64encode(bomb).decode()
        held(*post(url, "/v1/predict", json.dumps({"text": "Ada", "image": image}).encode()))
        sent += 1
    for path, content, kind in bodies(draw):
        held(*post(url, path, content, kind))
        sent += 1
        if sent >= count:
            break
    return sent


def crawling(url: str, clients: int) -> list[threading.Thread]:
    """Clients that send a byte now and then, until they are put out."""

    def crawl(number: int) -> None:
        parts = urlsplit(url)
        head = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
        content = head + b"{" if number % 2 else head
        with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
            for byte in content[:40] if number % 2 else content + b" " * 900:
                try:
                    connection.sendall(bytes([byte]))
                except ConnectionError:
                    return
                time.sleep(0.02)

    threads = [threading.Thread(target=crawl, args=(n,), daemon=True) for n in range(clients)]
    for thread in threads:
        thread.start()
    return threads


def test_hostile_requests(url: str) -> None:
    slow = crawling(url, 8)
    assert attack(url, 130, seed=1) >= 130
    still_well(url)
    for thread in slow:
        thread.join(30)
        assert not thread.is_alive()


@pytest.mark.slow("hostile requests to the service", "2,000, 32 slow clients beside them")
def test_two_thousand_hostile_requests(url: str, soak: Soak) -> None:
    slow = crawling(url, 32)
    sent = attack(url, 2000, seed=2)
    assert sent >= 2000
    still_well(url)
    for thread in slow:
        thread.join(60)
        assert not thread.is_alive()
    soak(f"{sent:,} answered, none by 5xx; the service answers still")
