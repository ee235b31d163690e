"""What the service refuses because it is too much: size, work, waiting."""

from __future__ import annotations

import io
import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from rpbert.data.images import LoadedImage, Resampling, load_image
from rpbert.errors import InputError
from rpbert.service.limits import ServiceSettings, option_name
from tests.service.common import Blocked, client_of, encoded, make_service, metric, png

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def client() -> Any:
    with client_of(make_service()) as client:
        yield client


def test_limits() -> None:
    limits: dict[str, Any] = {
        "max_posts": 2, "max_text": 20, "max_image": 0.01, "max_pixels": 0.0009
    }  # fmt: skip
    bodies: list[tuple[Any, int]] = [
        ({"text": "x" * 20}, 200),
        ({"text": "x" * 21}, 413),
        ({"tokens": ["x"] * 10}, 200),
        ({"tokens": [""] * 21}, 413),
        ([{"text": "Ada"}] * 3, 413),
        ({"text": "Ada", "image": encoded(png(size=30))}, 200),
        ({"text": "Ada", "image": encoded(png(size=31))}, 413),
        ({"text": "Ada", "image": encoded(b"x" * 10_486)}, 413),
    ]
    with client_of(make_service(**limits)) as client:
        for body, status in bodies:
            assert client.post("/v1/predict", json=body).status_code == status
        parts: dict[str, Any] = {"text": (None, "Ada"), "image": ("a", b"x" * 10_486)}
        assert client.post("/v1/predict", files=parts).status_code == 413


def test_a_bomb_is_not_decoded(client: TestClient) -> None:
    """Files of a few kilobytes that claim millions of pixels."""

    def ask(side: int) -> Any:
        buffer = io.BytesIO()
        Image.new("1", (side, side)).save(buffer, "PNG")
        image = encoded(buffer.getvalue())
        return client.post("/v1/predict", json={"text": "Ada", "image": image})

    assert ask(7000).status_code == 413
    assert "7000 × 7000 pixels" in ask(7000).json()["error"]["reason"]
    assert ask(20_000).json()["image"] == "unreadable"  # Pillow does not even read the header


@pytest.mark.parametrize(
    ("content", "status", "named"),
    [
        (b'{"tokens": [' + b"0," * 100_000 + b"0]}", 413, "100001"),
        (b"{" + b",".join(b'"%d":0' % i for i in range(100_000)) + b"}", 422, "100000 keys"),
        (b"[" + b"[]," * 500_000 + b"[]]", 413, "1000002"),
        (b'{"text": "' + b"," * 900_000 + b'"}', 413, "900001"),
    ],
    ids=["tokens", "keys", "lists", "commas"],
)
def test_no_error_is_made_of_each_value_of_a_million(
    client: TestClient, content: bytes, status: int, named: str
) -> None:
    """A body of a few megabytes would else take gigabytes, and all of the service's time."""
    for path in ("/v1/predict", "/v1/explain"):
        answer = client.post(path, content=content, headers=JSON)
        assert (answer.status_code, named in answer.json()["error"]["reason"]) == (status, True)


def test_the_largest_list_within_the_limits_is_taken() -> None:
    """Of nothing but what parts values in JSON."""
    text = "," * 199
    post = {"id": text, "text": text, "caption": text, "tokens": [text]}
    with client_of(make_service(max_posts=3, max_text=200)) as client:
        found = client.post("/v1/predict", json=[post] * 3).json()
    assert [one["text"] for one in found] == [text] * 3


def test_work_has_a_limit_too(client: TestClient) -> None:
    """A JPEG of a few kilobytes that goes over its pixels hundreds of times."""
    buffer = io.BytesIO()
    Image.new("RGB", (2000, 2000)).save(buffer, "JPEG", progressive=True, quality=1)
    image = buffer.getvalue()
    assert image.count(b"\xff\xda") == 10
    body = {"text": "Ada", "image": encoded(image)}
    assert client.post("/v1/predict", json=body).json()["image"] == "used"
    last = image[image.rindex(b"\xff\xda") : -2]
    body["image"] = encoded(image[:-2] + 200 * last + image[-2:])
    refused = client.post("/v1/predict", json=body)
    assert refused.status_code == 413
    assert "in 210 scans" in refused.json()["error"]["reason"]


def test_reading_many_images_keeps_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []

    def slow(content: bytes, size: int, resampling: Resampling) -> LoadedImage:
        read.append(content)
        time.sleep(0.05)
        return load_image(content, size, resampling)

    monkeypatch.setattr("rpbert.service.intake.load_image", slow)
    with client_of(make_service(deadline=0.3)) as client:
        posts = [{"text": "Ada", "image": encoded(png(i))} for i in range(60)]
        late = client.post("/v1/predict", json=posts)
        assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline")
        time.sleep(0.2)
        assert len(read) < 20  # the thread gave up as well


def test_a_limit_that_cannot_be_is_named() -> None:
    wrong = {"batch_size": 0, "deadline": 0, "max_body": math.nan, "max_text": -1, "max_posts": 300}
    for name, value in [*wrong.items(), ("max_body", 500)]:
        with pytest.raises(InputError, match=f"^{option_name(name)}: "):
            ServiceSettings(**{name: value})  # type: ignore[arg-type]


def test_a_full_queue_is_503_with_retry_after() -> None:
    blocked = Blocked(queue=2, max_posts=2)
    with client_of(blocked.service) as client, ThreadPoolExecutor(3) as pool:

        def ask(_: int) -> int:
            return client.post("/v1/predict", json={"text": "Ada"}).status_code

        first = pool.submit(ask, 0)
        blocked.wait_for(0)
        waiting = [pool.submit(ask, i) for i in range(2)]
        blocked.wait_for(2)
        full = client.post("/v1/predict", json={"text": "Ada"})
        assert (full.status_code, full.json()["error"]["code"]) == (503, "busy")
        assert int(full.headers["Retry-After"]) >= 1
        assert client.get("/healthz").status_code == 200
        assert metric(client, "rpbert_queue_posts") == 2
        blocked.go.set()
        assert [one.result() for one in (first, *waiting)] == [200] * 3


def test_bodies_have_one_budget() -> None:
    blocked = Blocked(max_body=0.01, max_bodies=0.015)
    body = json.dumps({"text": "Ada", "id": "x", "tokens": ["Ada"]}) + " " * 9000
    with client_of(blocked.service) as client, ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/v1/predict", content=body, headers=JSON)
        blocked.wait_for(0)
        refused = client.post("/v1/predict", content=body, headers=JSON)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "busy")
        blocked.go.set()
        assert first.result().status_code == 200
        assert client.post("/v1/predict", content=body, headers=JSON).status_code == 200


def test_the_deadline_of_a_request_is_kept() -> None:
    blocked = Blocked(deadline=0.1)
    with client_of(blocked.service) as client:
        late = client.post("/v1/predict", json={"text": "Ada"})
        blocked.go.set()
        assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline")
        blocked.service.settings = ServiceSettings()
        assert client.post("/v1/predict", json={"text": "Ada"}).status_code == 200
