"""What the service refuses: what is no request, who has no key, and what is too much."""

from __future__ import annotations

import io
import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from rpbert.data.images import LoadedImage, Resampling, load_image
from rpbert.errors import InputError
from rpbert.service.limits import Keys, ServiceSettings, option_name
from rpbert.service.pages import PAGE
from tests.service.common import JSON, KEY, Blocked, client_of, encoded, make_service, metric, png

FORM = {"Content-Type": "multipart/form-data; boundary=x"}
REFUSED: list[tuple[int, str, dict[str, str], list[bytes]]] = [
    (400, "no_json", JSON, [b"{", b"", b"\xff\xfe\x00", b"[" * 100_000, b'{"text": NaN}']),
    (400, "no_json", JSON, [b"[" * 100_000 + b"]" * 100_000, b"9" * 10_000]),
    (422, "invalid", JSON, [b"5", b"null", b'"Ada"', b"{}", b'{"text": null}', b'{"text": true}']),
    (422, "invalid", JSON, [b'{"text": "Ada", "\\ud800": 1}', b'{"text": "Ada", "id": ""}']),
    (422, "invalid", JSON, [b'{"text": "Ada", "relation": 0.5}', b'{"tokens": "Ada"}']),
    (415, "media_type", {"Content-Type": "text/plain"}, [b"text"]),
    (415, "media_type", {}, [b"{}"]),
    (415, "media_type", {"Content-Type": "application/x-www-form-urlencoded"}, [b"text=Ada"]),
    (400, "malformed", FORM, [b"nothing", b"--x\r\n\r\nAda\r\n--x--"]),
    (400, "malformed", {"Content-Type": "multipart/form-data"}, [b"--x\r\n"]),
    (422, "invalid", FORM, [b""]),
    (413, "too_large", JSON, [b"x" * 2_000_000]),
]  # fmt: skip
IMAGES = ["", "éééé", "====", 5, "/etc/passwd", "file:///etc/passwd", "http://127.0.0.1/a.png"]


def test_what_is_no_request_gets_a_reason() -> None:
    images = [json.dumps({"text": "Ada", "image": image}).encode() for image in IMAGES]
    with client_of(make_service(max_body=1)) as client:
        for status, code, headers, contents in [*REFUSED, (422, "invalid", JSON, images)]:
            for content in contents:
                answer = client.post("/v1/predict", content=content, headers=headers)
                found = answer.status_code, answer.json()["error"]["code"]
                assert found == (status, code), content[:80]
                assert answer.json()["error"]["reason"]
                assert "Traceback" not in answer.text
        assert client.post("/v1/predict", json={"text": "Ada"}).status_code == 200


def test_a_refused_value_is_named(client: TestClient) -> None:
    for wrong, named in (
        ({"txet": "Ada"}, "txet"),
        ({"relation": 1.5}, "relation"),
        ({"relation": "0.5"}, "relation"),
        ({"id": 1.5}, "id"),
        ({"id": "x" * 201}, "id"),
        ({"tokens": ["Ada", 1]}, "tokens.1"),
    ):
        answer = client.post("/v1/explain", json={"text": "Ada"} | wrong)
        assert (answer.status_code, named in answer.json()["error"]["reason"]) == (422, True)


def test_forms_are_held_to_the_same(client: TestClient) -> None:
    def form(*parts: tuple[str, Any], path: str = "/v1/predict") -> Any:
        return client.post(path, files=[("text", (None, "Ada")), *parts])

    none_chosen = (
        b'--x\r\nContent-Disposition: form-data; name="text"\r\n\r\nAda\r\n'
        b'--x\r\nContent-Disposition: form-data; name="image"; filename=""\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n\r\n--x--\r\n"
    )
    answer = client.post("/v1/predict", content=none_chosen, headers=FORM)
    assert (answer.status_code, answer.json()["image"]) == (200, "none")
    assert form(("image", ("a.png", b""))).json()["image"] == "unreadable"
    for part in (
        ("image", (None, encoded(png()))),  # a text
        ("photo", ("a.png", png())),
        ("relation", (None, "0.5")),
        ("text", (None, "Ada")),
        ("tokens", (None, "Ada")),
    ):
        assert form(part).status_code == 422
    assert client.post("/v1/predict", files={"image": ("a.png", png())}).status_code == 422
    for relation, status in (("0.5", 200), ("much", 422), ("nan", 422), ("2", 422), ("-0.1", 422)):
        assert form(("relation", (None, relation)), path="/v1/explain").status_code == status


def test_what_is_not_there_and_what_is_not_allowed(client: TestClient) -> None:
    missing = ["5", "6", "-1", "x", "9" * 5000]  # the last example has no image
    paths = ["/nowhere", "/page/app.js", "/../etc/passwd"]
    for method, path, status, code in (
        *(("GET", path, 404, "not_found") for path in paths),
        *(("GET", f"/v1/examples/{number}/image", 404, "not_found") for number in missing),
        ("GET", "/v1/predict", 405, "method"),
        ("DELETE", "/v1/model", 405, "method"),
    ):
        answer = client.request(method, path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_keys() -> None:
    other = "another-key-of-this-service"
    with client_of(make_service(), Keys([KEY, other])) as client:

        def status(path: str = "/v1/model", **headers: str | bytes) -> int:
            return client.get(path, headers=headers).status_code  # type: ignore[arg-type]

        for path in ("/v1/model", "/v1/examples", "/metrics", "/v1/examples/0/image", "/nowhere"):
            assert status(path) == 401
        for path in ("/healthz", "/readyz", "/openapi.json", *PAGE):
            assert status(path) == 200
        assert status(Authorization=f"Bearer {KEY}") == 200
        assert status(Authorization=f"bearer {other}") == 200
        assert status(**{"X-API-Key": KEY}) == 200
        for wrong in ("", KEY[:-1], KEY + "x", KEY.upper(), "é" * 20):
            assert status(Authorization=f"Bearer {wrong}".encode()) == 401
        assert status(Authorization=KEY) == 401
        refused = client.post("/v1/predict", json={"text": "Ada"})
        assert refused.json()["error"]["code"] == "unauthorised"
        assert refused.headers["WWW-Authenticate"] == "Bearer"


def test_keys_come_from_a_file_or_the_environment(tmp_path: Path) -> None:
    file, second = tmp_path / "keys", "second-key-with-room"
    file.write_text(f"# of the team\n{KEY}\n\n  {second} \n")
    keys = Keys.read(file, {"RPBERT_API_KEYS": "not-read-beside-a-file"})
    both = Keys.read(None, {"RPBERT_API_KEYS": f"{KEY}, {second}"})
    for key in (KEY, second):
        assert keys.open({b"x-api-key": key.encode()})
        assert both.open({b"x-api-key": key.encode()})
    assert not keys.open({b"x-api-key": b"not-read-beside-a-file"})
    assert Keys.read(None, {}).open({})
    for content in ("", "# nothing\n", "short", "a key with blanks in it", "ключ-ключ-ключ-ключ"):
        file.write_text(content)
        with pytest.raises(InputError, match=r"keys: "):
            Keys.read(file)
    with pytest.raises(InputError, match=r"none: "):
        Keys.read(tmp_path / "none")


def test_sizes_have_limits() -> None:
    limits: Any = {"max_posts": 2, "max_text": 20, "max_image": 0.01, "max_pixels": 0.0009}
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
    text = "," * 199  # the most values that a list may hold
    post = {"id": text, "text": text, "caption": text, "tokens": [text]}
    with client_of(make_service(max_posts=3, max_text=200)) as client:
        found = client.post("/v1/predict", json=[post] * 3).json()
    assert [one["text"] for one in found] == [text] * 3


def test_no_error_is_made_of_each_value_of_a_million(client: TestClient) -> None:
    """A body of a few megabytes would else take gigabytes, and all of the service's time."""
    for content, status, named in (
        (b'{"tokens": [' + b"0," * 100_000 + b"0]}", 413, "100001"),
        (b"{" + b",".join(b'"%d":0' % i for i in range(100_000)) + b"}", 422, "100000 keys"),
        (b"[" + b"[]," * 500_000 + b"[]]", 413, "1000002"),
        (b'{"text": "' + b"," * 900_000 + b'"}', 413, "900001"),
    ):
        for path in ("/v1/predict", "/v1/explain"):
            answer = client.post(path, content=content, headers=JSON)
            assert (answer.status_code, named in answer.json()["error"]["reason"]) == (status, True)


def test_an_image_that_takes_too_much_is_not_decoded(client: TestClient) -> None:
    """A few kilobytes that claim millions of pixels, or go over them hundreds of times."""

    def ask(image: bytes) -> Any:
        return client.post("/v1/predict", json={"text": "Ada", "image": encoded(image)})

    def saved(mode: str, side: int, format: str, **options: Any) -> bytes:
        buffer = io.BytesIO()
        Image.new(mode, (side, side)).save(buffer, format, **options)
        return buffer.getvalue()

    refused = ask(saved("1", 7000, "PNG"))
    assert (refused.status_code, "7000 × 7000" in refused.json()["error"]["reason"]) == (413, True)
    bomb = ask(saved("1", 20_000, "PNG"))  # of which Pillow does not even read the header
    assert bomb.json()["image"] == "unreadable"
    image = saved("RGB", 2000, "JPEG", progressive=True, quality=1)
    assert image.count(b"\xff\xda") == 10
    assert ask(image).json()["image"] == "used"
    last = image[image.rindex(b"\xff\xda") : -2]
    refused = ask(image[:-2] + 200 * last + image[-2:])
    assert (refused.status_code, "210 scans" in refused.json()["error"]["reason"]) == (413, True)


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


def test_a_full_queue_and_a_full_memory_are_503_with_retry_after() -> None:
    """Of posts that wait, and of the bodies of all requests."""
    for limits, size, waiting in (
        ({"queue": 2, "max_posts": 2}, 0, 2),
        ({"max_body": 0.01, "max_bodies": 0.015}, 9000, 0),
    ):
        blocked = Blocked(**limits)
        body = json.dumps({"text": "Ada"}) + " " * size
        with client_of(blocked.service) as client, ThreadPoolExecutor(3) as pool:

            def ask() -> Any:
                return client.post("/v1/predict", content=body, headers=JSON)  # noqa: B023

            asked = [pool.submit(ask)]
            blocked.wait_for(0)
            asked += [pool.submit(ask) for _ in range(waiting)]
            blocked.wait_for(waiting)
            full = ask()
            assert (full.status_code, full.json()["error"]["code"]) == (503, "busy")
            assert int(full.headers["Retry-After"]) >= 1
            assert client.get("/healthz").status_code == 200
            assert metric(client, "rpbert_queue_posts") == waiting
            blocked.go.set()
            assert [one.result().status_code for one in asked] == [200] * (1 + waiting)
            assert ask().status_code == 200


def test_the_deadline_of_a_request_is_kept() -> None:
    blocked = Blocked(deadline=0.1)
    with client_of(blocked.service) as client:
        late = client.post("/v1/predict", json={"text": "Ada"})
        blocked.go.set()
        assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline")
        blocked.service.settings = ServiceSettings()
        assert client.post("/v1/predict", json={"text": "Ada"}).status_code == 200
