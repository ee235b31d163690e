"""What the service explains, against the library."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from rpbert import Tagger
from rpbert.analysis import explain
from tests.conftest import tiny
from tests.service.common import client_of, encoded, make_service, metric, png
from tests.test_inference import FINDER


@pytest.fixture(scope="module")
def client() -> Any:
    with client_of(make_service()) as client:
        yield client


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


def test_an_explained_post_counts_once() -> None:
    """What the text alone gives is worked out beside it, but is no post that was sent."""
    with client_of(make_service()) as client:
        client.post("/v1/explain", json={"text": "Ada", "image": encoded(png())})
        assert metric(client, 'rpbert_images_total{status="used"}') == 1
        assert 'rpbert_images_total{status="none"}' not in client.get("/metrics").text
    with client_of(make_service(Tagger(tiny("bert"), "cpu"))) as client:
        client.post("/v1/explain", json={"text": "Ada", "relation": 0.5})
        assert metric(client, 'rpbert_post_failures_total{code="invalid"}') == 1
