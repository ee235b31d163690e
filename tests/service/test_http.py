"""What the service answers, against `rpbert predict` and the library."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from pydantic import TypeAdapter

from rpbert import Post, Prediction, Tagger
from rpbert.analysis import explain
from rpbert.data.words import SPLITTERS
from rpbert.service import schema
from rpbert.service.batching import Work
from rpbert.service.limits import ServiceSettings
from rpbert.service.pages import PAGE, read_examples
from tests.batch.made import assert_same
from tests.conftest import tiny
from tests.service.common import (
    JSON,
    TEXT,
    application,
    body,
    client_of,
    make_service,
    metric,
    png,
    refusal,
)
from tests.test_cli import run
from tests.test_inference import FINDER

POSTS: list[tuple[str, bytes | None]] = [
    (TEXT, png(1)),
    ("Ada at Lake Como", None),
    ("naïve Ада 👩‍🚀 at 東京 — Acme\u00a0!\n", png(3, 300)),
    ("Ulysses " * 40, png(4, 90)),
    ("", png(2)),
    ("Acme", png(3)[:90]),  # a file that breaks off
    ("half a pair \ud83d Ada", b"no image at all, and long enough to be one"),
]


def test_answers_are_the_commands(
    client: TestClient, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """One post bit for bit; a list as a file, but for the order in which floats are added."""
    FINDER.save_pretrained(tmp_path / "model")
    rows, sent = [], []
    for i, (text, image) in enumerate(POSTS):
        rows.append({"id": f"p{i}", "text": text} | ({"image": f"{i}.img"} if image else {}))
        sent.append({"id": f"p{i}", **body(text, image)})
        if image:
            (tmp_path / f"{i}.img").write_bytes(image)
    source = tmp_path / "posts.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, _ = run(capsys, "predict", tmp_path / "model", "--input", source)
    assert code == 0
    answers = client.post("/v1/predict", content=json.dumps(sent), headers=JSON).json()
    assert_same(answers, [json.loads(line) for line in out.splitlines()], 1e-6)
    images = ["used", "none", "used", "used", "used", "unreadable", "unreadable"]
    assert [answer["image"] for answer in answers] == images
    assert sum(len(answer["entities"]) for answer in answers) > 3
    for text, image in POSTS[:-1]:
        single = FINDER.predict(text, image=image).to_dict()
        assert client.post("/v1/predict", json=body(text, image)).json() == single
        if text.strip() and image:  # what the client library makes a form of
            form: dict[str, Any] = {"data": {"text": text}, "files": {"image": ("a", image)}}
            assert client.post("/v1/predict", **form).json() == single


def test_a_threshold_is_that_of_its_post(client: TestClient) -> None:
    whole = FINDER.predict(TEXT)
    least = min(entity.score for entity in whole.entities)
    thresholds = ((least + 1) / 2, least / 2)
    sent = [{"id": "0", "text": TEXT, "threshold": threshold} for threshold in thresholds]
    expected = [whole.above(threshold).to_dict() for threshold in thresholds]
    assert_same(client.post("/v1/predict", json=sent).json(), expected, 1e-6)
    assert expected[0] != expected[1] == whole.to_dict()
    looked = client.post("/v1/explain", json={"text": TEXT, "threshold": 1}).json()
    assert looked["prediction"]["entities"] == []
    assert client.post("/v1/predict", json={"text": TEXT, "threshold": 2}).status_code == 422


def test_many_clients_at_once_get_their_own_answers() -> None:
    """In whatever batches they come to lie; a sum of floats in another order may differ."""
    texts = [f"RT @user{i} " + "Ada Lovelace and " * (i % 7) + f"Acme {i}" for i in range(40)]
    images = [png(i % 9) if i % 3 else None for i in range(40)]
    with client_of(make_service(batch_wait=20)) as client, ThreadPoolExecutor(16) as pool:
        sent = map(body, texts, images)
        found = list(pool.map(lambda post: client.post("/v1/predict", json=post).json(), sent))
        alone = [FINDER.predict(*post).to_dict() for post in zip(texts, images, strict=True)]
        assert_same(found, alone, 1e-5)
        assert metric(client, 'rpbert_batch_posts_sum{work="predict"}') == 40
        assert metric(client, 'rpbert_batch_posts_count{work="predict"}') < 30  # not one by one


def test_in_a_list_each_post_fails_for_itself(caplog: pytest.LogCaptureFixture) -> None:
    good = {"id": "g", "text": "Ada at Lake Como"}
    bad: list[Any] = [{"text": "x" * 5000}, None, {"text": 5}, {"text": "break"}]
    service = make_service()
    model = service.work.run

    def brittle(posts: Sequence[Post]) -> Sequence[Any]:
        if any("break" in post.text for post in posts):
            raise RuntimeError("a secret of the inside")
        return model(posts)

    service.work = Work("predict", brittle, 8)
    with client_of(service) as client:
        first, *failed, last = client.post("/v1/predict", json=[good, *bad, good]).json()
        alone = client.post("/v1/predict", json={"text": "break"})
        assert client.post("/v1/predict", json=[]).json() == []
    assert_same([first, last], [FINDER.predict_batch([good])[0].to_dict()] * 2)
    assert [answer["id"] for answer in failed] == [str(i) for i in range(1, len(bad) + 1)]
    assert all(set(answer["error"]) == {"code", "reason"} for answer in failed)
    assert (failed[-1]["error"]["code"], alone.status_code) == ("internal", 500)
    assert "secret" not in alone.text
    assert "secret" in caplog.text


def test_an_explanation_is_that_of_the_library(client: TestClient) -> None:
    image = png(1)
    for relation in (None, 0.25):
        expected = explain(FINDER, {"text": TEXT, "image": image}, relation)
        sent = body(TEXT, image) | {"relation": relation}
        found = client.post("/v1/explain", json=sent).json()
        assert found["prediction"] == expected.prediction.to_dict()
        assert found["text_only"] == FINDER.predict(TEXT).to_dict()
        assert [word["text"] for word in found["words"]] == list(expected.post.words)
        assert all(TEXT[w["start"] : w["end"]] == w["text"] for w in found["words"])
        assert expected.attention is not None
        assert expected.heat is not None
        for key, grid in (("words", expected.attention), ("all", expected.heat)):
            shown = np.array(found["attention"][key]).flatten()
            assert shown == pytest.approx(grid.flatten(), abs=1e-6)
        assert found["s_tv"] == pytest.approx(expected.s_tv)
        assert found["s_tv_per_word"] == pytest.approx(expected.s_tv_per_word)
        parts: dict[str, Any] = {"text": (None, TEXT), "image": ("a.png", image)}
        if relation is not None:
            parts["relation"] = (None, str(relation))
        assert client.post("/v1/explain", files=parts).json() == found
    broken = client.post("/v1/explain", json=body("Ada", png()[:60])).json()
    assert broken["prediction"]["image"] == "unreadable"
    assert broken["image_reason"]
    assert client.post("/v1/explain", json=[body("Ada")]).status_code == 422


def test_a_text_only_system_never_looks_at_the_image() -> None:
    tagger = Tagger(tiny("bert"), "cpu")
    sent = body("Ada at Como", png())
    with client_of(make_service(tagger)) as client:
        answer = client.post("/v1/predict", json=sent).json()
        assert answer == tagger.predict(sent["text"]).to_dict()
        found = client.post("/v1/explain", json=sent).json()
        assert (found["attention"], found["prediction"]["image"]) == (None, "none")
        refused = client.post("/v1/explain", json=sent | {"relation": 0.5})
        assert refusal(refused) == (422, "invalid")
        assert metric(client, 'rpbert_post_failures_total{code="invalid"}') == 1
        assert client.get("/v1/model").json()["reads_images"] is False


def test_knowledge_that_is_sent_is_read() -> None:
    tagger = Tagger(tiny("rpbert", evidence={"knowledge": {}}), "cpu")
    with client_of(make_service(tagger)) as client:
        sent = {"text": "Ada at Como", "knowledge": "a man and a woman"}
        answer = client.post("/v1/predict", json=sent).json()
    assert answer == tagger.predict("Ada at Como", knowledge=sent["knowledge"]).to_dict()
    assert answer["image"] == "used"


def test_examples_are_made_or_of_a_file(client: TestClient, tmp_path: Path) -> None:
    for example in client.get("/v1/examples").json():
        image = client.get(example["image"]) if example["image"] else None
        assert image is None or image.headers["content-type"] == "image/jpeg"
        sent = body(example["text"], image.content if image else None)
        answer = client.post("/v1/predict", json=sent).json()
        assert answer["image"] == ("used" if image else "none")
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "b.png").write_text("nothing to see")
    rows = [{"id": name, "text": "Ada", "image": f"{name}.png"} for name in "abc"]
    lines = map(json.dumps, [*rows, {"id": "d", "text": "Como"}])
    (tmp_path / "posts.jsonl").write_text("\n".join(lines))
    found = read_examples(tmp_path / "posts.jsonl", SPLITTERS["joined"])
    assert [one.text for one in found] == ["Ada", "Ada", "Ada", "Como"]
    assert [one.image for one in found] == [png(), None, None, None]


def test_no_page_may_ask_another_host_or_let_a_script_in(client: TestClient) -> None:
    for path in PAGE:
        answer = client.get(path)
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_document_and_the_guide_describe_every_path_and_error(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    image = "/v1/examples/{number}/image"
    guide = (Path(__file__).parents[2] / "docs" / "service.md").read_text("utf-8")
    assert all(path in guide for path in set(paths) - {image})
    for methods in paths.values():
        for operation in methods.values():
            assert operation["description"]
            assert "FailureOut" in str(operation["responses"]["default"])
    shown = dict(re.findall(r"^\| `(--[a-z-]+)` \| ([^|]*)\|", guide, re.MULTILINE))
    limits = {f.alias: f.default for f in ServiceSettings.model_fields.values()}
    for name, default in limits.items():
        assert shown[str(name)].strip() == (f"{default:g}" if default else "")


def test_answers_are_what_the_document_says(client: TestClient) -> None:
    """Each answer against the type of its operation."""
    post = body(TEXT, png(1))
    for kind, content in (
        (Prediction, client.post("/v1/predict", json=post).content),
        (schema.ExplanationOut, client.post("/v1/explain", json=post).content),
        (schema.ModelOut, client.get("/v1/model").content),
        (schema.FailureOut, client.post("/v1/predict", json={}).content),
    ):
        TypeAdapter(kind).validate_json(content, strict=True, extra="forbid")


def test_metrics_count_requests_and_images() -> None:
    with client_of(make_service()) as client:
        # What the text alone gives is worked out beside it, but is no post that was sent.
        client.post("/v1/explain", json=body("Ada", png()))
        client.post("/v1/predict", json=[body("Ada"), body("Ada", png())])
        client.post("/v1/predict", json=[body("Ada", png()[:60]), {}])
        for path in ("/made/up", "/v1/examples/0/image", "/v1/examples/1/image"):
            client.get(path)
        client.request("BREW", "/v1/model")
        for series, count in (
            ('requests_total{method="POST",path="/v1/predict",status="200"}', 2),
            ('requests_total{method="GET",path="other",status="404"}', 1),
            ('requests_total{method="GET",path="/v1/examples/{number}/image",status="200"}', 2),
            ('images_total{status="used"}', 2),
            ('images_total{status="none"}', 1),
            ('images_total{status="unreadable"}', 1),
            ('post_failures_total{code="invalid"}', 1),
            ('request_seconds_count{path="/v1/predict"}', 2),
        ):
            assert metric(client, f"rpbert_{series}") == count
        assert "BREW" not in client.get("/metrics").text


def test_probes_show_a_service_that_stops_or_is_dead() -> None:
    service = make_service()
    guard = application(service)
    with TestClient(guard) as client:
        assert client.get("/readyz").json() == {"status": "ready"}
        assert client.get("/healthz").json() == {"status": "ok"}
        guard.app.state.draining = True
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()) == (503, {"status": "stopping"})
        assert answer.headers["connection"] == "close"
        assert client.get("/healthz").status_code == 200
        assert client.portal is not None
        client.portal.call(service.batcher.close)
        assert client.get("/healthz").status_code == 500
