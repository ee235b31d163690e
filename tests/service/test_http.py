"""What the service answers, against `rpbert predict`, and what it refuses."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from rpbert import Post, Tagger
from rpbert.analysis import explain
from rpbert.data.images import LoadedImage, load_image
from rpbert.data.words import SPLITTERS
from rpbert.errors import InputError
from rpbert.service import openapi, schema
from rpbert.service.app import PAGE, create_app
from rpbert.service.batching import Work
from rpbert.service.examples import read_examples
from rpbert.service.keys import Keys
from rpbert.service.settings import ServiceSettings
from tests.conftest import picture, tiny
from tests.service.common import Blocked, client_of, encoded, make_service, png
from tests.test_cli import run
from tests.test_inference import FINDER

KEY = "a-key-that-nobody-guesses"
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def client() -> Any:
    with client_of(make_service()) as client:
        yield client


def jpeg(turn: int = 1) -> bytes:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = turn
    picture(3, 300).crop((0, 0, 300, 200)).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def transparent() -> bytes:
    buffer = io.BytesIO()
    image = picture(4, 90).convert("RGBA")
    image.putalpha(image.getchannel("R"))
    image.save(buffer, "WEBP", lossless=True)
    return buffer.getvalue()


POSTS: list[tuple[str, bytes | None]] = [
    ("RT @user1 Ada Lovelace again !", png(1)),
    ("Ada at Lake Como", None),
    ("naïve Ада 👩‍🚀 at 東京 — Acme\u00a0!\n", jpeg(6)),
    ("Ulysses " * 40, transparent()),
    ("", png(2)),
    ("Acme", png(3)[:90]),  # a file that breaks off
    ("half a pair \ud83d Ada", b"no image at all, and long enough to be one"),
]


def exact(answer: dict[str, Any]) -> dict[str, Any]:
    """All of a prediction but its floats."""
    entities = [{k: e[k] for k in e if k != "score"} for e in answer["entities"]]
    return {**answer, "entities": entities, "relation": None}


def floats(answer: dict[str, Any]) -> list[float]:
    return [answer["relation"], *(entity["score"] for entity in answer["entities"])]


def test_answers_are_those_of_the_command(
    client: TestClient, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """One post bit for bit; a list as a file, but for the order in which floats are added."""
    FINDER.save_pretrained(tmp_path / "model")
    rows = []
    for i, (text, image) in enumerate(POSTS):
        rows.append({"id": f"p{i}", "text": text})
        if image is not None:
            (tmp_path / f"{i}.img").write_bytes(image)
            rows[-1]["image"] = f"{i}.img"
    source = tmp_path / "posts.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, _ = run(capsys, "predict", tmp_path / "model", "--input", source)
    assert code == 0
    sent = [
        {"id": row["id"], "text": text} | ({"image": encoded(image)} if image else {})
        for row, (text, image) in zip(rows, POSTS, strict=True)
    ]
    answers = client.post("/v1/predict", content=json.dumps(sent), headers=JSON).json()
    expected = [json.loads(line) for line in out.splitlines()]
    assert [exact(answer) for answer in answers] == [exact(answer) for answer in expected]
    for answer, line in zip(answers, expected, strict=True):
        assert floats(answer) == pytest.approx(floats(line), abs=1e-6)
    assert [answer["image"] for answer in answers] == (
        ["used", "none", "used", "used", "used", "unreadable", "unreadable"]
    )
    assert sum(len(answer["entities"]) for answer in answers) > 3
    for (text, image), post in zip(POSTS[:-1], sent, strict=False):
        single = FINDER.predict(text, image=image).to_dict()
        alone = client.post("/v1/predict", json={k: post[k] for k in post if k != "id"})
        assert alone.json() == single
        form = client.post(
            "/v1/predict", data={"text": text}, files={"image": ("a", image)} if image else None
        )
        if text.strip() and image:  # what the client library makes a form of
            assert form.json() == single


def test_many_clients_at_once_get_their_own_answers() -> None:
    """In whatever batches they come to lie; a sum of floats in another order may differ."""
    texts = [f"RT @user{i} " + "Ada Lovelace and " * (i % 7) + f"Acme {i}" for i in range(60)]
    images = [png(i % 9) if i % 3 else None for i in range(60)]
    expected = [FINDER.predict(t, image=i) for t, i in zip(texts, images, strict=True)]
    service = make_service(batch_wait=20)
    with client_of(service) as client, ThreadPoolExecutor(16) as pool:

        def ask(i: int) -> Any:
            image = images[i]
            body = {"text": texts[i]} | ({"image": encoded(image)} if image else {})
            return client.post("/v1/predict", json=body).json()

        for found, wanted in zip(pool.map(ask, range(60)), expected, strict=True):
            assert [(e["label"], e["start"], e["end"]) for e in found["entities"]] == [
                (e.label, e.start, e.end) for e in wanted.entities
            ]
            assert (found["text"], found["image"]) == (wanted.text, wanted.image)
            assert found["relation"] == pytest.approx(wanted.relation, abs=1e-5)
            assert [e["score"] for e in found["entities"]] == pytest.approx(
                [e.score for e in wanted.entities], abs=1e-5
            )
        batches = metric(client, 'rpbert_batch_posts_count{work="predict"}')
        posts = metric(client, 'rpbert_batch_posts_sum{work="predict"}')
    assert posts == 60
    assert batches < 40  # they did go together


def metric(client: TestClient, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    (value,) = (line.rsplit(" ", 1)[1] for line in lines if line.startswith(name))
    return float(value)


def test_in_a_list_each_post_fails_for_itself(client: TestClient) -> None:
    good = {"id": "g", "text": "Ada at Lake Como"}
    bad: list[Any] = [
        {"id": "b"},
        {"text": "Ada", "image": "photo.jpg"},
        {"text": "x" * 5000},
        {"text": "Ada", "imgae": "x"},
        "Ada",
        None,
        [],
        {"text": 5},
        {"tokens": ["Ada"], "text": "something else"},
    ]
    answers = client.post("/v1/predict", json=[good, *bad, good]).json()
    expected = FINDER.predict_batch([good])[0].to_dict()
    for answer in (answers[0], answers[-1]):
        assert {**answer, "entities": []} == {**expected, "entities": []}
        assert len(answer["entities"]) == len(expected["entities"])
    for index, answer in enumerate(answers[1:-1], start=1):
        assert answer["id"] == str(index)
        assert set(answer["error"]) == {"code", "reason"}
    assert client.post("/v1/predict", json=[]).json() == []


def test_a_post_that_breaks_the_model_fails_alone(caplog: pytest.LogCaptureFixture) -> None:
    service = make_service()
    model = service.predict.run

    def brittle(posts: Sequence[Post]) -> Sequence[Any]:
        if any("break" in post.text for post in posts):
            raise RuntimeError("a secret of the inside")
        return model(posts)

    service.predict = Work("predict", brittle, 8)
    with client_of(service) as client:
        answers = client.post("/v1/predict", json=[{"text": "Ada"}, {"text": "break"}]).json()
        assert answers[0]["text"] == "Ada"
        assert answers[1]["error"]["code"] == "internal"
        alone = client.post("/v1/predict", json={"text": "break"})
        assert alone.status_code == 500
        assert "secret" not in alone.text
        assert "secret" in caplog.text


def test_a_path_or_an_address_is_never_followed(client: TestClient, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(png())
    for image in (
        str(file),
        "/etc/passwd",
        "file:///etc/passwd",
        "http://127.0.0.1/a.png",
        "a.png",
    ):
        answer = client.post("/v1/predict", json={"text": "Ada", "image": image})
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid")
        as_field = client.post("/v1/predict", data={"text": "Ada", "image": image})
        assert as_field.status_code in (415, 422)  # a form without file is no multipart


FORM = {"Content-Type": "multipart/form-data; boundary=x"}


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        (b"{", JSON, 400, "no_json"),
        (b"", JSON, 400, "no_json"),
        (b"\xff\xfe\x00", JSON, 400, "no_json"),
        (b"[" * 100_000, JSON, 400, "no_json"),
        (b"[" * 100_000 + b"]" * 100_000, JSON, 400, "no_json"),
        (b'{"text": NaN}', JSON, 400, "no_json"),
        (b"9" * 10_000, JSON, 400, "no_json"),
        (b"5", JSON, 422, "invalid"),
        (b"null", JSON, 422, "invalid"),
        (b'"Ada"', JSON, 422, "invalid"),
        (b"{}", JSON, 422, "invalid"),
        (b'{"text": null}', JSON, 422, "invalid"),
        (b'{"text": true}', JSON, 422, "invalid"),
        (b'{"text": "Ada", "id": ""}', JSON, 422, "invalid"),
        (b'{"text": "Ada", "id": 1.5}', JSON, 422, "invalid"),
        (b'{"text": "Ada", "\\ud800": 1}', JSON, 422, "invalid"),
        (b'{"text": "Ada", "image": ""}', JSON, 422, "invalid"),
        (b'{"text": "Ada", "image": "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"}', JSON, 422, "invalid"),
        (b'{"text": "Ada", "image": "====" }', JSON, 422, "invalid"),
        (b'{"text": "Ada", "image": 5}', JSON, 422, "invalid"),
        (b'{"text": "Ada", "relation": 0.5}', JSON, 422, "invalid"),
        (b'{"tokens": "Ada"}', JSON, 422, "invalid"),
        (b'{"tokens": ["Ada", 1]}', JSON, 422, "invalid"),
        (b"text", {"Content-Type": "text/plain"}, 415, "media_type"),
        (b"{}", {}, 415, "media_type"),
        (b"text=Ada", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "media_type"),
        (b"nothing", FORM, 400, "malformed"),
        (b"", FORM, 422, "invalid"),
        (b"--x\r\n\r\nAda\r\n--x--", FORM, 400, "malformed"),
        (b"--x\r\n", {"Content-Type": "multipart/form-data"}, 400, "malformed"),
        (b"x" * 2_000_000, JSON, 413, "too_large"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_no_request_gets_a_reason(
    client: TestClient, content: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    with client_of(make_service(max_body=1)) as small:
        answer = small.post("/v1/predict", content=content, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.json()["error"]["reason"]
    assert "Traceback" not in answer.text
    assert client.post("/v1/predict", json={"text": "Ada"}).status_code == 200


def test_forms_are_held_to_the_same(client: TestClient) -> None:
    def form(**parts: Any) -> Any:
        return client.post("/v1/predict", files=parts)

    assert form(text=(None, "Ada")).status_code == 200
    none_chosen = (
        b'--x\r\nContent-Disposition: form-data; name="text"\r\n\r\nAda\r\n'
        b'--x\r\nContent-Disposition: form-data; name="image"; filename=""\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n\r\n--x--\r\n"
    )
    answer = client.post("/v1/predict", content=none_chosen, headers=FORM)
    assert answer.json()["image"] == "none"
    assert form(text=(None, "Ada"), image=("a.png", b"")).json()["image"] == "unreadable"
    assert form(text=(None, "Ada"), image=(None, encoded(png()))).status_code == 422
    assert form(text=(None, "Ada"), photo=("a.png", png())).status_code == 422
    assert form(text=(None, "Ada"), relation=(None, "0.5")).status_code == 422
    assert form(image=("a.png", png())).status_code == 422
    twice = client.post("/v1/predict", files=[("text", (None, "Ada")), ("text", (None, "Ada"))])
    assert twice.status_code == 422
    for relation in ("much", "nan", "2", "-0.1"):
        answer = client.post(
            "/v1/explain", files={"text": (None, "Ada"), "relation": (None, relation)}
        )
        assert answer.status_code == 422


def test_limits() -> None:
    limits: dict[str, Any] = {
        "max_posts": 2,
        "max_text": 20,
        "max_image": 0.01,
        "max_pixels": 0.0009,
    }
    with client_of(make_service(**limits)) as client:

        def ask(body: Any) -> tuple[int, str]:
            answer = client.post("/v1/predict", json=body)
            return answer.status_code, answer.json().get("error", {}).get("reason", "")

        assert ask({"text": "x" * 20}) == (200, "")
        assert ask({"text": "x" * 21}) == (413, "text: 21 characters; at most 20")
        assert ask({"tokens": ["x"] * 10}) == (200, "")
        assert ask({"tokens": [""] * 21})[0] == 413
        assert ask([{"text": "Ada"}] * 3) == (413, "posts: 3; at most 2 in a request")
        assert ask({"text": "Ada", "image": encoded(png(size=30))}) == (200, "")
        found = ask({"text": "Ada", "image": encoded(png(size=31))})
        assert found == (413, "image: 31 × 31 pixels in 1 scans; at most 0.0009 million pixels")
        assert ask({"text": "Ada", "image": encoded(b"x" * 10_486)})[0] == 413
        form = client.post(
            "/v1/predict", files={"text": (None, "Ada"), "image": ("a", b"x" * 10_486)}
        )
        assert form.status_code == 413


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
    ("content", "status", "said"),
    [
        (b'{"tokens": [' + b"0," * 100_000 + b"0]}", 413, "text: 100001 characters"),
        (b"{" + b",".join(b'"%d":0' % i for i in range(100_000)) + b"}", 422, "found 100000 keys"),
        (b"[" + b"[]," * 500_000 + b"[]]", 413, "body: 1000002 values"),
        (b'{"text": "' + b"," * 900_000 + b'"}', 413, "body: 900001 values"),
    ],
    ids=["tokens", "keys", "lists", "commas"],
)
def test_no_error_is_made_of_each_value_of_a_million(
    client: TestClient, content: bytes, status: int, said: str
) -> None:
    """A body of a few megabytes would else take gigabytes, and all of the service's time."""
    for path in ("/v1/predict", "/v1/explain"):
        answer = client.post(path, content=content, headers=JSON)
        assert (answer.status_code, said in answer.json()["error"]["reason"]) == (status, True)


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

    def slow(content: bytes, size: int) -> LoadedImage:
        read.append(content)
        time.sleep(0.05)
        return load_image(content, size)

    monkeypatch.setattr("rpbert.service.intake.load_image", slow)
    with client_of(make_service(deadline=0.3)) as client:
        posts = [{"text": "Ada", "image": encoded(png(i))} for i in range(60)]
        late = client.post("/v1/predict", json=posts)
        assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline")
        time.sleep(0.2)
        assert len(read) < 20  # the thread gave up as well


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        ({"batch_size": 0}, "--batch-size"),
        ({"deadline": 0}, "--deadline"),
        ({"max_body": float("nan")}, "--max-body"),
        ({"max_text": -1}, "--max-text"),
        ({"max_posts": 300}, "--max-posts"),
        ({"max_body": 500}, "--max-body"),
    ],
)
def test_a_limit_that_cannot_be_is_named(changes: dict[str, Any], option: str) -> None:
    with pytest.raises(ValueError, match=f"^{option}: found"):
        ServiceSettings(**changes)


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


def test_keys() -> None:
    other = "another-key-of-this-service"
    with client_of(make_service(), Keys([KEY, other])) as client:

        def status(path: str = "/v1/model", **headers: str) -> int:
            return client.get(path, headers=headers).status_code

        for path in ("/v1/model", "/v1/examples", "/metrics", "/v1/examples/0/image", "/nowhere"):
            assert status(path) == 401
        for path in ("/healthz", "/readyz", "/docs", "/openapi.json", *PAGE):
            assert status(path) == 200
        assert status(Authorization=f"Bearer {KEY}") == 200
        assert status(Authorization=f"bearer {other}") == 200
        assert status(**{"X-API-Key": KEY}) == 200
        for wrong in ("", KEY[:-1], KEY + "x", KEY.upper(), "é" * 20):
            assert status(Authorization=f"Bearer {wrong}".encode()) == 401  # type: ignore[arg-type]
        assert status(Authorization=KEY) == 401
        refused = client.post("/v1/predict", json={"text": "Ada"})
        assert refused.json()["error"]["code"] == "unauthorised"
        assert refused.headers["WWW-Authenticate"] == "Bearer"


def test_keys_come_from_a_file_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# of the team\n{KEY}\n\n  second-key-with-room \n")
    keys = Keys.read(file, {"RPBERT_API_KEYS": "not-read-beside-a-file"})
    headers = {key: {b"x-api-key": key.encode()} for key in (KEY, "second-key-with-room")}
    assert all(keys.open(one) for one in headers.values())
    assert not keys.open({b"x-api-key": b"not-read-beside-a-file"})
    both = Keys.read(None, {"RPBERT_API_KEYS": f"{KEY}, second-key-with-room"})
    assert all(both.open(one) for one in headers.values())
    assert Keys.read(None, {}).open({})
    for content in ("", "# nothing\n", "short", "a key with blanks in it", "ключ-ключ-ключ-ключ"):
        file.write_text(content)
        with pytest.raises(InputError, match="keys: found"):
            Keys.read(file)
    with pytest.raises(InputError, match="no readable file"):
        Keys.read(tmp_path / "none")


def test_an_explanation_is_that_of_the_library(client: TestClient) -> None:
    text, image = "RT @user1 Ada Lovelace again !", png(1)
    for relation in (None, 0.0, 0.25, 1.0):
        body = {"text": text, "image": encoded(image)}
        expected = explain(FINDER, {"text": text, "image": image}, relation)
        found = client.post("/v1/explain", json=body | {"relation": relation}).json()
        assert found["prediction"] == expected.prediction.to_dict()
        assert found["text_only"] == FINDER.predict(text).to_dict()
        assert [word["text"] for word in found["words"]] == list(expected.post.words)
        assert all(text[w["start"] : w["end"]] == w["text"] for w in found["words"])
        assert expected.attention is not None
        assert expected.heat is not None
        words = expected.attention.flatten().tolist()
        shown = [v for word in found["attention"]["words"] for row in word for v in row]
        assert shown == pytest.approx(words, abs=1e-6)
        heat = [v for row in found["attention"]["all"] for v in row]
        assert heat == pytest.approx(expected.heat.flatten().tolist(), abs=1e-6)
        assert found["s_tv"] == pytest.approx(expected.s_tv)
        assert found["s_tv_per_word"] == pytest.approx(expected.s_tv_per_word)
        parts: dict[str, Any] = {"text": (None, text), "image": ("a.png", image)}
        if relation is not None:
            parts["relation"] = (None, str(relation))
        assert client.post("/v1/explain", files=parts).json() == found


def test_an_explanation_without_an_image(client: TestClient) -> None:
    found = client.post("/v1/explain", json={"text": "Ada at Como"}).json()
    assert found["prediction"] == FINDER.predict("Ada at Como").to_dict()
    assert (found["text_only"], found["attention"], found["s_tv"]) == (None, None, None)
    broken = client.post("/v1/explain", json={"text": "Ada", "image": encoded(png()[:60])}).json()
    assert broken["prediction"]["image"] == "unreadable"
    assert broken["image_reason"]
    assert client.post("/v1/explain", json=[{"text": "Ada"}]).status_code == 422


@pytest.mark.parametrize("system", ["bert", "bilstm_crf"])
def test_a_text_only_system_never_looks_at_the_image(system: str) -> None:
    tagger = Tagger(tiny(system), "cpu")
    with client_of(make_service(tagger)) as client:
        body = {"text": "Ada at Como", "image": encoded(png())}
        assert (
            client.post("/v1/predict", json=body).json() == tagger.predict(body["text"]).to_dict()
        )
        found = client.post("/v1/explain", json=body).json()
        assert (found["attention"], found["prediction"]["image"]) == (None, "none")
        refused = client.post("/v1/explain", json=body | {"relation": 0.5})
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "invalid")
        assert client.get("/v1/model").json()["reads_images"] is False


def test_the_model_is_described(client: TestClient) -> None:
    model = client.get("/v1/model").json()
    assert (model["name"], model["system"], model["paper"]) == ("tiny", "rpbert", "Sun et al. 2021")
    assert model["labels"] == ["LOC", "MISC", "ORG", "PER"]
    assert model["parameters"] == sum(p.numel() for p in FINDER.model.system.parameters())
    assert model["limits"]["text_characters"] == 4000


def test_the_examples_can_be_sent_as_they_are(client: TestClient) -> None:
    examples = client.get("/v1/examples").json()
    assert len(examples) == 6
    for example in examples:
        body = {"text": example["text"]}
        if example["image"]:
            image = client.get(example["image"])
            assert image.headers["content-type"] == "image/jpeg"
            assert Image.open(io.BytesIO(image.content)).format == "JPEG"
            body["image"] = encoded(image.content)
            assert example["caption"]
        wanted = "used" if example["image"] else "none"
        assert client.post("/v1/predict", json=body).json()["image"] == wanted
    for number in ("5", "6", "-1", "x"):  # the last example has no image
        missing = client.get(f"/v1/examples/{number}/image")
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")


def test_examples_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "b.png").write_text("nothing to see")
    rows = [{"text": "Ada", "image": f"{name}.png", "caption": "a picture"} for name in "abc"]
    lines = [json.dumps({"id": str(i), **row}) for i, row in enumerate([*rows, {"text": "Como"}])]
    (tmp_path / "posts.jsonl").write_text("\n".join(lines))
    found = read_examples(tmp_path / "posts.jsonl", SPLITTERS["joined"])
    assert [one.text for one in found] == ["Ada", "Ada", "Ada", "Como"]
    assert [one.media for one in found] == ["image/png", "", "", ""]
    assert found[0].image == png()


def test_what_is_not_there_and_what_is_not_allowed(client: TestClient) -> None:
    for method, path, status, code in (
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/page/app.js", 404, "not_found"),
        ("GET", "/../etc/passwd", 404, "not_found"),
        ("GET", "/v1/predict", 405, "method"),
        ("DELETE", "/v1/model", 405, "method"),
    ):
        answer = client.request(method, path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_no_page_asks_another_host_or_lets_a_script_in(client: TestClient) -> None:
    for path in (*PAGE, "/docs"):
        answer = client.get(path)
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        # A link that a reader may follow is none of these.
        loads = r"<(?:script|link|img|iframe)[^>]*https?:|(?:import|fetch|url)\W{1,3}https?:"
        assert not re.search(loads, answer.text)
    assert "<script" not in client.get("/docs").text


def test_the_document_describes_every_path(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) == openapi.PATHS - {"/docs", "/openapi.json"}
    docs = client.get("/docs").text
    assert all(path in docs for path in document["paths"])
    for anchor in re.findall(r'href="#(\w+)"', docs):
        assert f'id="{anchor}"' in docs


def test_answers_are_what_the_document_says(client: TestClient) -> None:
    """Each answer against its own pydantic model."""
    post = {"text": "RT @user1 Ada Lovelace again !", "image": encoded(png(1))}
    strict = {"strict": True, "extra": "forbid"}
    single = client.post("/v1/predict", json=post).content
    schema.PredictionOut.model_validate_json(single, **strict)  # type: ignore[arg-type]
    explained = client.post("/v1/explain", json=post).content
    schema.ExplanationOut.model_validate_json(explained, **strict)  # type: ignore[arg-type]
    model = client.get("/v1/model").content
    schema.ModelOut.model_validate_json(model, **strict)  # type: ignore[arg-type]
    failure = client.post("/v1/predict", json={}).content
    schema.FailureOut.model_validate_json(failure, **strict)  # type: ignore[arg-type]


def test_metrics_count_requests_and_images() -> None:
    with client_of(make_service()) as client:
        client.post("/v1/predict", json=[{"text": "Ada"}, {"text": "Ada", "image": encoded(png())}])
        client.post("/v1/predict", json=[{"text": "Ada", "image": encoded(png()[:60])}, {}])
        client.get("/made/up")
        client.request("BREW", "/v1/model")
        predict = 'rpbert_requests_total{method="POST",path="/v1/predict",status="200"}'
        assert metric(client, predict) == 2
        other = 'rpbert_requests_total{method="GET",path="other",status="404"}'
        assert metric(client, other) == 1
        for status, count in (("used", 1), ("none", 1), ("unreadable", 1)):
            assert metric(client, f'rpbert_images_total{{status="{status}"}}') == count
        assert metric(client, 'rpbert_post_failures_total{code="invalid"}') == 1
        assert metric(client, 'rpbert_request_seconds_count{path="/v1/predict"}') == 2
        assert 'method="BREW"' not in client.get("/metrics").text
        client.get("/v1/examples/0/image")
        client.get("/v1/examples/1/image")
        example = 'rpbert_requests_total{method="GET",path="/v1/examples/{number}/image"'
        assert metric(client, example) == 2


def test_an_explained_post_counts_once() -> None:
    """What the text alone gives is worked out beside it, but is no post that was sent."""
    with client_of(make_service()) as client:
        client.post("/v1/explain", json={"text": "Ada", "image": encoded(png())})
        assert metric(client, 'rpbert_images_total{status="used"}') == 1
        assert 'rpbert_images_total{status="none"}' not in client.get("/metrics").text
    with client_of(make_service(Tagger(tiny("bert"), "cpu"))) as client:
        client.post("/v1/explain", json={"text": "Ada", "relation": 0.5})
        assert metric(client, 'rpbert_post_failures_total{code="invalid"}') == 1


def test_stopping_shows_in_readyz() -> None:
    guard = create_app(make_service(), Keys(()))
    with TestClient(guard) as client:
        assert client.get("/readyz").json() == {"status": "ready"}
        guard.draining = True
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()) == (503, {"status": "stopping"})
        assert answer.headers["connection"] == "close"
        assert client.get("/healthz").status_code == 200


def test_a_dead_model_thread_shows_in_healthz() -> None:
    service = make_service()
    with client_of(service) as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        service.batcher.close()
        assert client.get("/healthz").status_code == 500
