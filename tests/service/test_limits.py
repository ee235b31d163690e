"""What the service refuses: what is no request, who has no key, and what is too much."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from rpbert.config.reading import parse
from rpbert.errors import InputError
from rpbert.service.limits import ServiceSettings, opens, option_name, read_keys
from rpbert.service.pages import PAGE
from rpbert.types import TEXTS
from tests.service.common import (
    JSON,
    KEY,
    Blocked,
    body,
    client_of,
    encoded,
    make_service,
    metric,
    png,
    refusal,
)

FORM = {"Content-Type": "multipart/form-data; boundary=x"}
TEXT_PART = b'--x\r\nContent-Disposition: form-data; name="text"\r\n\r\n'
REFUSED: list[tuple[int, str, dict[str, str], list[bytes]]] = [
    (
        400,
        "no_json",
        JSON,
        [b"{", b"\xff\xfe\x00", b"[" * 100_000, b'{"text": NaN}', b"9" * 10_000],
    ),
    (422, "invalid", JSON, [b"null", b"{}", b'{"text": true}', b'{"text": "Ada", "\\ud800": 1}']),
    (422, "invalid", JSON, [b'{"text": "Ada", "relation": 0.5}', b'{"tokens": "Ada"}']),
    (422, "invalid", JSON, [b'{"text": "Ada", "image": "/etc/passwd"}', b'{"image": 5}']),
    (415, "media_type", {"Content-Type": "text/plain"}, [b"text"]),
    (400, "malformed", FORM, [b"nothing", b"--x\r\n\r\nAda\r\n--x--"]),
    (422, "invalid", FORM, [b"", TEXT_PART + b"Caf\xe9\r\n--x--"]),
    (413, "too_large", JSON, [b"x" * 2_000_000]),
]
NAMED: list[tuple[dict[str, Any], str]] = [
    ({"txet": "Ada"}, "txet"), ({"relation": 1.5}, "relation"), ({"id": 1.5}, "id"),
    ({"tokens": ["Ada", 1]}, "tokens.1"),
]  # fmt: skip
NOT_THERE = [  # the last example has no image
    ("GET", "/page/app.js", 404, "not_found"),
    ("GET", "/../etc/passwd", 404, "not_found"),
    *(("GET", f"/v1/examples/{n}/image", 404, "not_found") for n in ("5", "-1", "9" * 5000)),
    ("GET", "/v1/predict", 405, "method"),
]


def test_what_is_no_request_gets_a_reason() -> None:
    with client_of(make_service(max_body=1)) as client:
        for *expected, headers, contents in REFUSED:
            for content in contents:
                answer = client.post("/v1/predict", content=content, headers=headers)
                assert [*refusal(answer)] == expected, content[:80]
                assert answer.json()["error"]["reason"]
        for wrong, named in NAMED:
            answer = client.post("/v1/explain", json={"text": "Ada"} | wrong)
            assert (answer.status_code, named in answer.json()["error"]["reason"]) == (422, True)
        for method, path, status, code in NOT_THERE:
            assert refusal(client.request(method, path)) == (status, code)


def test_forms_are_held_to_the_same(client: TestClient) -> None:
    def form(*parts: tuple[str, Any], path: str = "/v1/predict") -> Any:
        return client.post(path, files=[("text", (None, "Ada")), *parts])

    name = b"--x\r\nContent-Disposition: form-data; name="
    none_chosen = name + b'"text"\r\n\r\nAda\r\n' + name + b'"image"; filename=""\r\n\r\n\r\n--x--'
    answer = client.post("/v1/predict", content=none_chosen, headers=FORM)
    assert (answer.status_code, answer.json()["image"]) == (200, "none")
    assert form(("image", ("a.png", b""))).json()["image"] == "unreadable"
    for part in (
        ("image", (None, encoded(png()))),  # a text
        ("photo", ("a.png", png())),
        ("relation", (None, "0.5")),
        ("text", (None, "Ada")),
    ):
        assert form(part).status_code == 422
    for relation, status in (("0.5", 200), ("much", 422), ("nan", 422), ("2", 422)):
        assert form(("relation", (None, relation)), path="/v1/explain").status_code == status


def test_keys() -> None:
    other = "another-key-of-this-service"
    wrong = [KEY, *(f"Bearer {key}" for key in ("", KEY[:-1], KEY + "x", KEY.upper(), "é" * 20))]
    with client_of(make_service(), KEY, other) as client:

        def status(path: str = "/v1/model", **headers: Any) -> int:
            return client.get(path, headers=headers).status_code

        for path in ("/v1/model", "/v1/examples", "/metrics", "/v1/examples/0/image", "/nowhere"):
            assert status(path) == 401
        for path in ("/healthz", "/readyz", "/openapi.json", *PAGE):
            assert status(path) == 200
        assert [status(Authorization=f"Bearer {key}") for key in (KEY, other)] == [200] * 2
        assert [status(Authorization=given.encode()) for given in wrong] == [401] * 6
        assert status(**{"X-API-Key": KEY}) == 200
        refused = client.post("/v1/predict", json={"text": "Ada"})
        assert refusal(refused) == (401, "unauthorised")
        assert refused.headers["WWW-Authenticate"] == "Bearer"


def test_keys_come_from_a_file_or_the_environment(tmp_path: Path) -> None:
    file, second = tmp_path / "keys", "second-key-with-room"
    file.write_text(f"# of the team\n{KEY}\n\n  {second} \n")
    keys = read_keys(file, {"RPBERT_API_KEYS": "not-read-beside-a-file"})
    both = read_keys(None, {"RPBERT_API_KEYS": f"{KEY}, {second}"})
    for key in (KEY, second):
        assert opens(keys, {b"x-api-key": key.encode()})
        assert opens(both, {b"x-api-key": key.encode()})
    assert not opens(keys, {b"x-api-key": b"not-read-beside-a-file"})
    assert opens(read_keys(None, {}), {})
    for content in ("# nothing\n", "short", "a key with blanks in it", "ключ-ключ-ключ-ключ"):
        file.write_text(content)
        with pytest.raises(InputError, match=r"keys: "):
            read_keys(file)
    with pytest.raises(InputError, match=r"none: "):
        read_keys(tmp_path / "none")


def test_sizes_have_limits() -> None:
    limits: Any = {"max_posts": 2, "max_text": 20, "max_image": 0.01, "max_pixels": 0.0009}
    bodies: list[tuple[Any, int]] = [
        ({"text": "x" * 20}, 200), ({"text": "x" * 21}, 413), ([{"text": "Ada"}] * 3, 413),
        ({"tokens": ["x"] * 10}, 200), ({"tokens": [""] * 21}, 413),
        (body("Ada", png(size=30)), 200), (body("Ada", png(size=31)), 413),
        (body("Ada", b"x" * 10_486), 413),
    ]  # fmt: skip
    with client_of(make_service(**limits)) as client:
        for sent, status in bodies:
            assert client.post("/v1/predict", json=sent).status_code == status
        parts: dict[str, Any] = {"text": (None, "Ada"), "image": ("a", b"x" * 10_486)}
        assert client.post("/v1/predict", files=parts).status_code == 413
    text = "," * 199  # the most values that a list may hold
    post = {**dict.fromkeys(("id", "text", *TEXTS), text), "tokens": [text]}
    with client_of(make_service(max_posts=3, max_text=200)) as client:
        found = client.post("/v1/predict", json=[post] * 3).json()
    assert [one["text"] for one in found] == [text] * 3
    for name, value in (("batch_size", 0), ("max_body", float("nan")), ("max_posts", 300)):
        with pytest.raises(InputError, match=f"found .*{option_name(name)} "):
            parse(ServiceSettings, {option_name(name): value}, "serve")


def test_no_error_is_made_of_each_value_of_a_million(client: TestClient) -> None:
    """A body of a few megabytes would else take gigabytes, and all of the service's time."""
    for content, status, named in (
        (b'{"tokens": [' + b"0," * 100_000 + b"0]}", 413, "100001"),
        (b"{" + b",".join(b'"%d":0' % i for i in range(100_000)) + b"}", 422, "100000 keys"),
        (b"[" + b"[]," * 500_000 + b"[]]", 413, "1000002"),
    ):
        answer = client.post("/v1/predict", content=content, headers=JSON)
        assert (answer.status_code, named in answer.json()["error"]["reason"]) == (status, True)


def test_an_image_that_takes_too_much_is_not_decoded(client: TestClient) -> None:
    """A few kilobytes that claim millions of pixels, or go over them hundreds of times."""

    def ask(image: bytes) -> Any:
        return client.post("/v1/predict", json=body("Ada", image))

    def saved(mode: str, side: int, format: str, **options: Any) -> bytes:
        buffer = io.BytesIO()
        Image.new(mode, (side, side)).save(buffer, format, **options)
        return buffer.getvalue()

    refused = ask(saved("1", 7000, "PNG"))
    assert (refused.status_code, "7000 × 7000" in refused.json()["error"]["reason"]) == (413, True)
    bomb = ask(saved("1", 20_000, "PNG"))  # of which Pillow does not even read the header
    assert bomb.json()["image"] == "unreadable"
    image = saved("RGB", 2000, "JPEG", progressive=True, quality=1)
    assert ask(image).json()["image"] == "used"
    last = image[image.rindex(b"\xff\xda") : -2]
    refused = ask(image[:-2] + 200 * last + image[-2:])
    assert (refused.status_code, "210 scans" in refused.json()["error"]["reason"]) == (413, True)


def test_a_full_queue_and_a_full_memory_are_503_with_retry_after() -> None:
    """Of posts that wait, of which a list is taken whole or not, and of the bodies of requests."""
    for limits, size, waiting in (
        ({"queue": 2, "max_posts": 2}, 0, 2),
        ({"max_body": 0.01, "max_bodies": 0.015}, 9000, 0),
    ):
        blocked = Blocked(**limits)
        content = json.dumps({"text": "Ada"}) + " " * size
        with client_of(blocked.service) as client, ThreadPoolExecutor(3) as pool:

            def ask(sent: str = content) -> Any:
                return client.post("/v1/predict", content=sent, headers=JSON)

            asked = [pool.submit(ask)]
            blocked.wait_for(0)
            for number in range(1, waiting + 1):
                asked.append(pool.submit(ask))
                blocked.wait_for(number)
                assert refusal(ask(f"[{content}, {content}]")) == (503, "busy")
            full = ask()
            assert refusal(full) == (503, "busy")
            assert int(full.headers["Retry-After"]) >= 1
            assert client.get("/healthz").status_code == 200
            assert metric(client, "rpbert_queue_posts") == waiting
            blocked.go.set()
            assert [one.result().status_code for one in asked] == [200] * (1 + waiting)


def test_the_deadline_of_a_request_is_kept() -> None:
    """The answer that comes after it is dropped."""
    blocked = Blocked(deadline=0.1)
    with client_of(blocked.service) as client:
        late = client.post("/v1/predict", json={"text": "Ada"})
        blocked.go.set()
        assert refusal(late) == (504, "deadline")
        blocked.service.settings = ServiceSettings()
        assert client.post("/v1/predict", json={"text": "Ada"}).status_code == 200


CODECS = ["punycode", "undefined", "idna", "utf-7", "utf-16", "unicode_escape", '"latin-1"']


@pytest.mark.parametrize("codec", CODECS)
def test_no_client_chooses_a_codec(client: TestClient, codec: str) -> None:
    """Some take the square of the length, and all in the event loop."""
    form = b'--x\r\nContent-Disposition: form-data; name="text"\r\n\r\n' + b"-a" * 300_000
    for kind, content in (
        ("multipart/form-data; boundary=x", form + b"\r\n--x--"),
        ("application/json", json.dumps({"text": "Ada"}).encode()),
    ):
        headers = {"Content-Type": f"{kind}; charset={codec}"}
        refused = client.post("/v1/predict", content=content, headers=headers)
        assert refusal(refused) == (415, "charset")
    text = json.dumps({"text": "Ada é"}, ensure_ascii=False)
    for charset, status in (("utf-8", 200), ("utf-16", 400), ("utf-32", 400), ("latin-1", 400)):
        headers = {"Content-Type": 'application/json; charset="UTF-8"'}
        sent = text.encode(charset)
        answer = client.post("/v1/predict", content=sent, headers=headers)
        assert answer.status_code == status


def test_images_in_other_spellings_of_base64(client: TestClient) -> None:
    image = png(3, 300)
    wrapped = base64.encodebytes(image).decode()
    safe = base64.urlsafe_b64encode(image).decode()
    assert "\n" in wrapped
    assert {"-", "_"} <= set(safe)
    expected = client.post("/v1/predict", json=body("Ada", image)).json()
    assert expected["image"] == "used"
    for text in (wrapped, wrapped.replace("\n", "\r\n"), safe, safe.rstrip("=")):
        answer = client.post("/v1/predict", json={"text": "Ada", "image": text})
        assert answer.json() == expected
    none = client.post("/v1/predict", json={"text": "Ada", "image": ""})
    assert (none.status_code, none.json()["image"]) == (200, "none")


FOREIGN: list[tuple[dict[str, str], int]] = [
    ({"Host": "rebound.example"}, 421),
    ({"Host": "localhost.rebound.example:8000"}, 421),
    ({"Host": "[::1"}, 421),
    ({"Host": "192.0.2.1"}, 421),
    ({"Sec-Fetch-Site": "cross-site"}, 403),
    ({"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:3000"}, 403),
    ({"Origin": "https://evil.example"}, 403),
    ({"Origin": "http://localhost:3000"}, 403),
    ({"Origin": "null"}, 403),
    ({"Host": "localhost:8000"}, 200),
    ({"Host": "LOCALHOST"}, 200),
    ({"Host": "[::1]:8000"}, 200),
    ({"Host": "tagger.example"}, 200),
    ({"Host": "tagger.example", "Origin": "https://page.friends.example"}, 200),
    ({"Origin": "http://localhost:8000", "Host": "localhost:8000"}, 200),
    ({"Sec-Fetch-Site": "same-origin", "Origin": "https://behind.a.proxy"}, 200),
    ({"Sec-Fetch-Site": "none"}, 200),
    ({"Sec-Fetch-Site": "cross-site", "Origin": "https://page.friends.example"}, 200),
]


def test_other_hosts_and_pages_of_other_sites_are_refused() -> None:
    hosts = ["Tagger.example", "*.friends.example"]
    with client_of(make_service(allow_host=hosts)) as client:
        for headers, status in FOREIGN:
            answer = client.post("/v1/predict", json={"text": "Ada"}, headers=headers)
            assert answer.status_code == status, headers
        assert (
            client.get("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200
        )  # a link
        assert client.get("/", headers={"Host": "rebound.example"}).status_code == 421
        for path in ("/", "/healthz", "/v1/model"):
            whole, head = client.get(path), client.head(path)
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["content-length"] == whole.headers["content-length"]


def test_only_posts_have_bodies_that_are_held() -> None:
    """Whoever has no key could else fill the room for all bodies."""
    limits: Any = {"max_body": 0.5, "max_bodies": 0.5}
    with client_of(make_service(**limits), KEY) as client:

        def endless() -> Iterator[bytes]:
            for _ in range(40):
                yield b"x" * 2**16

        for method, path, status in (
            ("POST", "/docs", 405),
            ("GET", "/healthz", 200),
            ("PUT", "/", 405),
            ("POST", "/v1/predict", 401),
        ):
            answer = client.request(method, path, content=endless())
            assert answer.status_code == status
