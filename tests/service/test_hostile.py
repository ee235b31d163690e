"""What no friend would send: none of it is a fault of the service, which goes on answering."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode

from tests.hostile import SYNTAX, bombs, mutated
from tests.service.common import TEXT, connected, encoded, make_service, png, post, running, said
from tests.test_inference import FINDER

DOCUMENT = pytest.mark.slow("requests made of the service's document", "300")
QUIET = settings(
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running(make_service(max_body=1.0, max_image=0.5, slow_client=0.5)) as url:
        yield url


def still_well(url: str) -> None:
    """It still tags, and right."""
    status, body = post(url, json.dumps({"text": TEXT}).encode())
    assert (status, json.loads(body)) == (200, FINDER.predict(TEXT).to_dict())


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


POST, HOST = b"POST /v1/predict HTTP/1.1\r\n", b"Host: localhost\r\n"
GET, CHUNKED = b"GET /v1/model HTTP/1.1\r\n" + HOST, b"Transfer-Encoding: chunked\r\n"
HEADS = [
    b"\0" * 1000,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    GET + b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    GET + b"A: " + b"b" * 200_000 + b"\r\n\r\n",
    GET + b"Authorization: Bearer \xff\xfe\r\n\r\n",
    POST + HOST + b"Content-Length: -1\r\n\r\n",
    POST + HOST + b"Content-Length: 9999999999999999\r\n\r\n{}",
    POST + HOST + CHUNKED + b"\r\nzz\r\n",
    POST + HOST + CHUNKED + b"Content-Length: 2\r\n\r\n{}",
]
FORM = b"--b\r\nContent-Disposition: form-data; name="
JSON_BODY = json.dumps({"text": TEXT, "image": encoded(png()), "id": "a"}).encode()
FORM_BODY = FORM + b'"text"\r\n\r\nAda\r\n' + FORM + b'"image"; filename="a.png"\r\n\r\n' + png()
BODIES = [
    (JSON_BODY, "application/json"),
    (FORM_BODY + b"\r\n--b--\r\n", "multipart/form-data; boundary=b"),
]


def raw(url: str, content: bytes) -> bytes:
    """What comes back for bytes; nothing where the service closes without a word."""
    with connected(url) as connection:
        try:
            connection.sendall(content)
            connection.shutdown(socket.SHUT_WR)
            return said(connection)
        except ConnectionError:  # closed by the service before all was sent
            return b""


def test_hostile_requests(url: str) -> None:
    for head in HEADS:
        answer = raw(url, head)
        assert not answer.startswith(b"HTTP/1.1 5"), (head[:80], answer[:300])
        assert b"root:" not in answer
    draw = random.Random(0)
    sent = [json.dumps({"text": "Ada", "image": encoded(bomb())}) for bomb in bombs().values()]
    asked = [(content.encode(), BODIES[0][1]) for content in sent]
    asked += [(mutated(content, draw, SYNTAX), kind) for content, kind in BODIES * 50]
    for content, kind in asked:
        status, body = post(url, content, draw.choice(["/v1/predict", "/v1/explain"]), kind)
        assert status < 500, body[:500]
        assert status < 400 or all(json.loads(body)["error"].values())
        assert b"Traceback" not in body
    still_well(url)
