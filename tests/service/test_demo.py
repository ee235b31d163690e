"""`rpbert demo --serve`: from nothing to the page with one command."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

import rpbert.synthetic.demo
from rpbert import Tagger
from rpbert.service.guard import Guard
from tests.service.common import encoded
from tests.test_cli import run


def test_the_demo_serves_the_model_it_made(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[Any] = []

    def small(folder: Path, seed: int, **given: Any) -> Any:
        return demo(folder, seed, posts=30, **given)

    def serve(guard: Guard, listener: socket.socket) -> None:
        with listener, TestClient(guard) as client:
            served.append(listener.getsockname())
            assert client.get("/v1/model").json()["name"] == "the demo's rpbert"
            example = client.get("/v1/examples").json()[0]
            image = client.get(example["image"]).content
            body = {"text": example["text"], "image": encoded(image)}
            tagger = Tagger.from_pretrained(tmp_path / "demo" / "rpbert")
            expected = tagger.predict(example["text"], image=image).to_dict()
            assert client.post("/v1/predict", json=body).json() == expected

    demo = rpbert.synthetic.demo.demo
    monkeypatch.setattr("rpbert.synthetic.demo.demo", small)
    monkeypatch.setattr("rpbert.service.server.run", serve)
    code, out, err = run(capsys, "demo", "--output", tmp_path / "demo", "--serve", "--port", 0)
    assert code == 0
    assert "F1" in out  # the table comes first
    ((host, port),) = served
    assert host == "127.0.0.1"  # nobody else can reach it
    assert f"http://127.0.0.1:{port} " in err

    monkeypatch.setattr("rpbert.synthetic.demo.demo", None)  # it is there, and is not made again
    code, out, err = run(capsys, "demo", "--output", tmp_path / "demo", "--serve", "--port", 0)
    assert (code, out, len(served)) == (0, "", 2)
    assert "makes it anew" in err


def test_a_port_that_is_taken_is_told_before_the_training(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = run(capsys, "demo", "--output", tmp_path, "--serve", "--port", port)
    assert (code, "--port" in err, list(tmp_path.iterdir())) == (2, True, [])
