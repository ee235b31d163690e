"""The server on a port of this machine: slow clients, what is no HTTP, the end, and the demo."""

from __future__ import annotations

import http.client
import json
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
from fastapi.testclient import TestClient

import rpbert.synthetic.demo
from rpbert import Tagger
from rpbert.service.guard import Guard
from rpbert.service.server import listen
from tests.service.common import (
    JSON,
    Blocked,
    ask,
    body,
    connected,
    make_service,
    running,
    said,
    series,
)
from tests.test_cli import run
from tests.test_inference import FINDER

HEAD = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def error(connection: socket.socket) -> tuple[bytes, str]:
    """The status of what is answered at last, and the code of its error."""
    answer = said(connection)
    code: str = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"]
    return answer.split()[1], code


def test_slow_and_broken_clients_are_left_behind() -> None:
    with running(make_service(slow_client=0.3, max_body=0.5)) as url:
        silent, half_head, half_body, second, left = (connected(url) for _ in range(5))
        half_head.sendall(b"POST /v1/predict HTTP/1.1\r\nHos")
        half_body.sendall(HEAD + b"Content-Length: 100\r\n\r\n{")
        second.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        left.sendall(HEAD + b"Content-Length: 100\r\n\r\n{")
        left.close()
        answer = b""
        while not answer.endswith(b"}"):
            answer += second.recv(65536)
        second.sendall(b"GET /heal")  # within the connection, a second head that never ends
        assert ask(url, {"text": "Ada"}) == 200  # nobody waits for them
        assert [said(client) for client in (silent, half_head, second)] == [b""] * 3
        assert error(half_body) == (b"408", "slow")
        for broken in (b"\x16\x03\x01 no HTTP\r\n\r\n", b"GET / HTTP/9\r\n\r\n", b"x" * 70_000):
            connection = connected(url)
            connection.sendall(broken)
            assert said(connection).startswith(b"HTTP/1.1 400 ")


def test_who_sends_too_much_hears_why() -> None:
    large = HEAD + b"Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n"  # asks first
    chunks = HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks += 10 * (b"10000\r\n" + b"x" * 65536 + b"\r\n") + b"0\r\n\r\n"
    # Two lengths: the second request would be smuggled.
    lying = HEAD + b"Content-Length: 4\r\nContent-Length: 40\r\n\r\n{}"
    with running(make_service(max_body=0.5)) as url:
        assert ask(url, {"text": "x" * 1_900_000}) == 413
        for content, status in ((large, b"413"), (chunks, b"413"), (lying, b"400")):
            connection = connected(url)
            connection.sendall(content)
            assert said(connection).split()[1] == status


def test_who_is_refused_holds_no_memory_while_it_is_heard_out() -> None:
    service = make_service(max_body=0.01, max_bodies=0.01, slow_client=60)
    with running(service) as url, connected(url) as chunked:
        chunked.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        # The first part fits and takes the room; the second does not, and more may follow.
        for wanted in (503, 422):  # 422: the id is too long, and there was room to read it
            chunked.sendall(b"2300\r\n" + b"x" * 0x2300 + b"\r\n")
            until = time.monotonic() + 60
            while ask(url, {"text": "Ada", "id": " " * 5000}) != wanted:
                assert time.monotonic() < until


def status_of(url: str, path: str = "/healthz") -> int:
    with urlopen(url + path) as answer:
        return int(answer.status)


def test_who_does_not_read_and_who_is_one_too_many_are_left_behind() -> None:
    """200 requests for a page in one go, of which no answer is read, or a byte at a time."""
    page = b"GET /app.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with running(make_service(slow_client=0.5)) as url, ExitStack() as open_:
        lazy = [open_.enter_context(connected(url)) for _ in range(20)]
        for connection in lazy:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(200 * page)
        assert status_of(url) == 200
        until = time.monotonic() + 60
        closed: list[bool] = []
        while not all(closed) or not closed:
            assert time.monotonic() < until
            closed = [gone(connection) for connection in lazy]
        # Nor do they stop the end of the service, which `running` waits for.


def gone(connection: socket.socket) -> bool:
    """Whether the service has ended a connection, of which one byte is read."""
    try:
        connection.sendall(b"G")
        connection.recv(1)
    except ConnectionError:
        return True
    return False


def test_connections_are_limited_and_what_cannot_be_accepted_is_said_once_a_second(
    tmp_path: Path,
) -> None:
    with command_line(tmp_path / "model", "ulimit -n 150; ") as (process, url):
        with ExitStack() as open_:
            held = [open_.enter_context(connected(url)) for _ in range(300)]
            time.sleep(2)
            assert said(held[-1]).startswith(b"HTTP/1.1 503 ")
        assert status_of(url) == 200
        process.send_signal(signal.SIGTERM)
        _, end = process.communicate(timeout=60)
    assert end.count("\n") < 40


def test_nothing_is_computed_for_who_left() -> None:
    blocked = Blocked()
    gone = 'rpbert_requests_total{method="POST",path="/v1/predict",status="499"}'
    with running(blocked.service) as url, ThreadPoolExecutor(2) as pool:
        first = pool.submit(ask, url, {"text": "first"})
        blocked.wait_for(0)
        with connected(url) as leaver:
            leaver.sendall(HEAD + b'Content-Length: 16\r\n\r\n{"text": "left"}')
            blocked.wait_for(1)
            last = pool.submit(ask, url, {"text": "last"})
            blocked.wait_for(2)
        while series(urlopen(url + "/metrics").read().decode(), gone) < 1:
            time.sleep(0.01)
        blocked.go.set()
        assert [first.result(), last.result()] == [200, 200]
    assert blocked.seen == ["first", "last"]


def test_what_cannot_be_served_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    FINDER.save_pretrained("MODEL")
    taken = listen("127.0.0.1", 0)
    for model, *arguments in (
        ("MODEL", "--queue", "0"),
        ("MODEL", "--max-posts", "1000"),
        ("MODEL", "--precision", "fp8"),
        ("MODEL", "--keys", "NOWHERE"),
        ("MODEL", "--examples", "NOWHERE.jsonl"),
        ("MODEL", "--port", "99999"),
        ("MODEL", "--port", str(taken.getsockname()[1])),
        ("MODEL", "--host", "192.0.2.1"),
        ("NOWHERE",),
    ):
        code, out, err = run(capsys, "serve", model, *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert [*arguments, model][0] in err or "NOWHERE" in err
    # Of the demo before it trains for nothing.
    demo = ["demo", "--output", tmp_path / "demo", "--serve"]
    with taken:
        code, _, err = run(capsys, *demo, "--port", taken.getsockname()[1])
    assert (code, "--port" in err) == (2, True)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    for command in (["serve", tmp_path], demo):
        code, out, err = run(capsys, *command)
        assert (code, out, "pip install 'rpbert[serve]'" in err) == (2, "", True)
    assert not (tmp_path / "demo").exists()


def insist(url: str, answered: list[int]) -> None:
    """Ask again and again over one connection, until the service is gone."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    for _ in range(10_000):
        try:
            connection.request("POST", "/v1/predict", '{"text": "Ada"}', JSON)
            answer = connection.getresponse()
            found = answer.read()
        except (http.client.BadStatusLine, ConnectionError):
            return  # the connection was closed before an answer began
        assert answer.status == 200, found
        answered.append(answer.status)


@contextmanager
def command_line(folder: Path, before: str = "") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`rpbert serve` in a process of its own, and its address; killed in the end."""
    FINDER.save_pretrained(folder)
    line = shlex.join([sys.executable, "-m", "rpbert", "serve", str(folder), "--port", "0"])
    command = ["bash", "-c", f"{before}exec {line}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            yield process, process.stderr.readline().split()[0]
        finally:
            process.kill()


def test_sigterm_under_load_answers_what_was_accepted(tmp_path: Path) -> None:
    """The server's own count of what it accepted against what the clients got."""
    answered: list[int] = []
    with command_line(tmp_path / "model") as (process, url), ThreadPoolExecutor(16) as pool:
        clients = [pool.submit(insist, url, answered) for _ in range(16)]
        while len(answered) < 100:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        _, end = process.communicate(timeout=60)
    assert process.returncode == 0
    for client in clients:
        client.result()
    assert end == f"answered {len(answered):,} of {len(answered):,} requests\n"


def test_ctrl_c_twice_ends_at_once_and_without_a_traceback(tmp_path: Path) -> None:
    with command_line(tmp_path / "model") as (process, url), connected(url) as slow:
        slow.sendall(HEAD + b"Content-Length: 10\r\n\r\n")  # and never the body
        urlopen(f"{url}/healthz").close()  # whose answer comes after that was read
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None  # it waits for the body
        process.send_signal(signal.SIGINT)
        _, end = process.communicate(timeout=60)
    assert "Traceback" not in end
    assert end.startswith("answered ")


def test_the_demo_serves_the_model_it_made(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = partial(rpbert.synthetic.demo.demo, posts=30)
    given = ["demo", "--output", tmp_path / "demo", "--serve", "--port", 0]
    served: list[Any] = []

    def serve(guard: Guard, listener: socket.socket) -> None:
        with listener, TestClient(guard) as client:
            served.append(listener.getsockname())
            assert client.get("/v1/model").json()["name"] == "the demo's rpbert"
            example = client.get("/v1/examples").json()[0]
            image = client.get(example["image"]).content
            tagger = Tagger.from_pretrained(tmp_path / "demo" / "rpbert")
            expected = tagger.predict(example["text"], image=image).to_dict()
            sent = body(example["text"], image)
            assert client.post("/v1/predict", json=sent).json() == expected

    monkeypatch.setattr("rpbert.synthetic.demo.demo", demo)
    monkeypatch.setattr("rpbert.service.server.run", serve)
    code, out, err = run(capsys, *given)
    assert (code, "F1" in out) == (0, True)  # the table comes first
    ((host, port),) = served
    assert host == "127.0.0.1"  # nobody else can reach it
    assert f"http://127.0.0.1:{port} " in err
    monkeypatch.setattr("rpbert.synthetic.demo.demo", None)  # it is there, and is not made again
    code, out, err = run(capsys, *given)
    assert (code, out, len(served)) == (0, "", 2)
    assert "makes it anew" in err
