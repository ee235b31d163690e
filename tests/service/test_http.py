"""What the service answers, against `rpbert predict`, and what it refuses."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image
from pydantic import TypeAdapter

from rpbert import Post, Prediction
from rpbert.data.words import SPLITTERS
from rpbert.errors import InputError
from rpbert.service import schema
from rpbert.service.app import create_app
from rpbert.service.batching import Work
from rpbert.service.limits import Keys, ServiceSettings, option_name
from rpbert.service.pages import PAGE, read_examples
from tests.conftest import picture
from tests.service.common import client_of, encoded, make_service, metric, png
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
    texts = [f"RT @user{i} " + "Ada Lovelace and " * (i % 7) + f"Acme {i}" for i in range(40)]
    images = [png(i % 9) if i % 3 else None for i in range(40)]
    with client_of(make_service(batch_wait=20)) as client, ThreadPoolExecutor(16) as pool:

        def ask(text: str, image: bytes | None) -> Any:
            body = {"text": text} | ({"image": encoded(image)} if image else {})
            return client.post("/v1/predict", json=body).json()

        for found, text, image in zip(pool.map(ask, texts, images), texts, images, strict=True):
            wanted = FINDER.predict(text, image=image).to_dict()
            assert exact(found) == exact(wanted)
            assert floats(found) == pytest.approx(floats(wanted), abs=1e-5)
        assert metric(client, 'rpbert_batch_posts_sum{work="predict"}') == 40
        assert metric(client, 'rpbert_batch_posts_count{work="predict"}') < 30  # not one by one


def test_in_a_list_each_post_fails_for_itself(caplog: pytest.LogCaptureFixture) -> None:
    good = {"id": "g", "text": "Ada at Lake Como"}
    bad: list[Any] = [
        {"id": "b"}, {"text": "Ada", "image": "photo.jpg"}, {"text": "x" * 5000}, "Ada", None, [],
        {"text": "Ada", "imgae": "x"}, {"text": 5}, {"tokens": ["Ada"], "text": "something else"},
    ]  # fmt: skip
    service = make_service()
    model = service.work.run

    def brittle(posts: Sequence[Post]) -> Sequence[Any]:
        if any("break" in post.text for post in posts):
            raise RuntimeError("a secret of the inside")
        return model(posts)

    service.work = Work("predict", brittle, 8)
    with client_of(service) as client:
        answers = client.post("/v1/predict", json=[good, *bad, {"text": "break"}, good]).json()
        alone = client.post("/v1/predict", json={"text": "break"})
        assert client.post("/v1/predict", json=[]).json() == []
    expected = FINDER.predict_batch([good])[0].to_dict()
    assert [exact(answer) for answer in (answers[0], answers[-1])] == [exact(expected)] * 2
    for index, answer in enumerate(answers[1:-1], start=1):
        assert answer["id"] == str(index)
        assert set(answer["error"]) == {"code", "reason"}
    assert answers[-2]["error"]["code"] == "internal"
    assert (alone.status_code, "secret" in alone.text, "secret" in caplog.text) == (
        500,
        False,
        True,
    )


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
        (b'{"text": "Ada", "image": "/etc/passwd"}', JSON, 422, "invalid"),
        (b'{"text": "Ada", "image": "file:///etc/passwd"}', JSON, 422, "invalid"),
        (
            b'{"text": "Ada", "image": "http://127.0.0.1/a.png"}',
            JSON,
            422,
            "invalid",
        ),
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


def test_keys() -> None:
    other = "another-key-of-this-service"
    with client_of(make_service(), Keys([KEY, other])) as client:

        def status(path: str = "/v1/model", **headers: str) -> int:
            return client.get(path, headers=headers).status_code

        for path in ("/v1/model", "/v1/examples", "/metrics", "/v1/examples/0/image", "/nowhere"):
            assert status(path) == 401
        for path in ("/healthz", "/readyz", "/openapi.json", *PAGE):
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


def test_the_examples_can_be_sent_as_they_are(client: TestClient) -> None:
    examples = client.get("/v1/examples").json()
    assert len(examples) == 6
    for example in examples:
        body, wanted = {"text": example["text"]}, "none"
        if example["image"]:
            image = client.get(example["image"])
            assert image.headers["content-type"] == "image/jpeg"
            body["image"], wanted = encoded(image.content), "used"
            assert example["caption"]
        assert client.post("/v1/predict", json=body).json()["image"] == wanted


def test_examples_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "b.png").write_text("nothing to see")
    rows: list[dict[str, str]] = [{"text": "Ada", "image": f"{name}.png"} for name in "abc"]
    lines = [json.dumps({"id": str(i), **row}) for i, row in enumerate([*rows, {"text": "Como"}])]
    (tmp_path / "posts.jsonl").write_text("\n".join(lines))
    found = read_examples(tmp_path / "posts.jsonl", SPLITTERS["joined"])
    assert [(one.text, one.media) for one in found] == [
        ("Ada", "image/png"), ("Ada", ""), ("Ada", ""), ("Como", "")
    ]  # fmt: skip
    assert found[0].image == png()


def test_what_is_not_there_and_what_is_not_allowed(client: TestClient) -> None:
    images = [f"/v1/examples/{number}/image" for number in ("5", "6", "-1", "x")]  # 5 has none
    for method, path, status, code in (
        *(("GET", path, 404, "not_found") for path in ("/nowhere", "/page/app.js", *images)),
        ("GET", "/../etc/passwd", 404, "not_found"),
        ("GET", "/v1/predict", 405, "method"),
        ("DELETE", "/v1/model", 405, "method"),
    ):
        answer = client.request(method, path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_no_page_asks_another_host_or_lets_a_script_in(client: TestClient) -> None:
    for path in PAGE:
        answer = client.get(path)
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        # A link that a reader may follow is none of these.
        loads = r"<(?:script|link|img|iframe)[^>]*https?:|(?:import|fetch|url)\W{1,3}https?:"
        assert not re.search(loads, answer.text)


def test_the_document_and_the_guide_describe_every_path_and_error(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    image = "/v1/examples/{number}/image"
    v1 = {"/v1/predict", "/v1/explain", "/v1/model", "/v1/examples", image}
    assert set(paths) == v1 | {"/healthz", "/readyz", "/metrics"}
    guide = (Path(__file__).parents[2] / "docs" / "service.md").read_text("utf-8")
    assert all(path in guide for path in set(paths) - {image})
    for methods in paths.values():
        for operation in methods.values():
            assert operation["description"]
            assert all(re.search(rf"\b{status}\b", guide) for status in operation["responses"])
    shown = dict(re.findall(r"^\| `(--[a-z-]+)` \| ([\d.]*) ?\|", guide, re.MULTILINE))
    limits = {option_name(one.name): one.default for one in fields(ServiceSettings)}
    assert {key: float(value) for key, value in shown.items() if value} == limits
    assert set(shown) - set(limits) == {"--precision", "--backend", "--keys", "--examples"}


def test_answers_are_what_the_document_says(client: TestClient) -> None:
    """Each answer against the type of its operation."""
    post = {"text": "RT @user1 Ada Lovelace again !", "image": encoded(png(1))}
    model = client.get("/v1/model").json()
    assert (model["name"], model["system"], model["paper"]) == ("tiny", "rpbert", "Sun et al. 2021")
    assert model["labels"] == ["LOC", "MISC", "ORG", "PER"]
    assert model["limits"]["text_characters"] == 4000
    for kind, content in (
        (Prediction, client.post("/v1/predict", json=post).content),
        (schema.ExplanationOut, client.post("/v1/explain", json=post).content),
        (schema.ModelOut, client.get("/v1/model").content),
        (schema.FailureOut, client.post("/v1/predict", json={}).content),
    ):
        TypeAdapter(kind).validate_json(content, strict=True, extra="forbid")


def test_metrics_count_requests_and_images() -> None:
    image, broken = encoded(png()), encoded(png()[:60])
    with client_of(make_service()) as client:
        client.post("/v1/predict", json=[{"text": "Ada"}, {"text": "Ada", "image": image}])
        client.post("/v1/predict", json=[{"text": "Ada", "image": broken}, {}])
        for path in ("/made/up", "/v1/examples/0/image", "/v1/examples/1/image"):
            client.get(path)
        client.request("BREW", "/v1/model")
        request = "rpbert_requests_total{{method={},path={},status={}}}".format
        for series, count in (
            (request('"POST"', '"/v1/predict"', '"200"'), 2),
            (request('"GET"', '"other"', '"404"'), 1),
            (request('"GET"', '"/v1/examples/{number}/image"', '"200"'), 2),
            ('rpbert_images_total{status="used"}', 1),
            ('rpbert_images_total{status="none"}', 1),
            ('rpbert_images_total{status="unreadable"}', 1),
            ('rpbert_post_failures_total{code="invalid"}', 1),
            ('rpbert_request_seconds_count{path="/v1/predict"}', 2),
        ):
            assert metric(client, series) == count
        assert "BREW" not in client.get("/metrics").text


def test_probes_show_a_service_that_stops_or_is_dead() -> None:
    service = make_service()
    guard = create_app(service, Keys(()))
    with TestClient(guard) as client:
        assert client.get("/readyz").json() == {"status": "ready"}
        assert client.get("/healthz").json() == {"status": "ok"}
        guard.draining = True
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()) == (503, {"status": "stopping"})
        assert answer.headers["connection"] == "close"
        assert client.get("/healthz").status_code == 200
        service.batcher.close()
        assert client.get("/healthz").status_code == 500
