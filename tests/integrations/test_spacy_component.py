"""The component in spaCy's own pipelines."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from rpbert import Entity, Prediction, Tagger
from tests.conftest import EVIDENCE, picture, tiny
from tests.test_inference import FINDER

spacy = pytest.importorskip("spacy")

from rpbert.integrations.spacy_component import RpBertComponent, _fill, make  # noqa: E402

TEXTS = [
    "Ada Lovelace at Lake Como",
    "RT @ Ulysses : again !",
    "",
    "  \n Acme  don't\tmiss Ada's visit…",
    "@user1Lovelace #LakeComo again!!! 👩‍👩‍👧 http://t.co/x",
]


@pytest.fixture(scope="module")
def nlp(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("spacy") / "model"
    FINDER.save_pretrained(folder)
    pipeline = spacy.blank("en")
    pipeline.add_pipe("rpbert", config={"model": str(folder)})
    return pipeline


def test_the_package_announces_its_factory() -> None:
    """spaCy finds ``rpbert`` by this entry point once the package is installed."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    (place,) = project["project"]["entry-points"]["spacy_factories"].values()
    assert place == f"{make.__module__}:{make.__name__}"


def test_documents_in_batches_get_what_predict_finds(nlp: Any) -> None:
    documents = [nlp.make_doc(text) for text in TEXTS]
    for number, doc in enumerate(documents):
        doc._.image = picture(number) if number % 2 else None
    by_hand = FINDER.predict_batch(
        [{"text": d.text, "image": d._.image} for d in documents], batch_size=2
    )
    entities = 0
    for doc, prediction in zip(nlp.pipe(documents, batch_size=2), by_hand, strict=True):
        assert doc._.image_status == prediction.image
        assert doc._.image_relation == pytest.approx(prediction.relation, abs=1e-5)
        for entity in prediction.entities:  # exactly there, or grown to the edges of its tokens
            assert any(s.start_char < entity.end and entity.start < s.end_char for s in doc.ents)
        entities += len(doc.ents)
    assert entities > 3


def test_an_entity_grows_to_the_edges_of_its_tokens(nlp: Any) -> None:
    doc = spacy.tokens.Doc(nlp.vocab, words=["LakeComo", "again"])
    inside = [Entity("Lake", "LOC", 0, 4, 0.9), Entity("Como", "PER", 4, 8, 0.8)]
    _fill(doc, Prediction("1", doc.text, inside, 0.5, "used"))
    assert [(span.text, span.label_) for span in doc.ents] == [("LakeComo", "LOC")]


def test_image_and_caption_stand_in_the_user_data_or_the_extensions(nlp: Any) -> None:
    doc = nlp.make_doc("Ada at Como")
    doc.user_data["image"] = picture(3)
    assert nlp(doc)._.image_status == "used"
    assert nlp("Ada at Como")._.image_status == "none"
    component = RpBertComponent(Tagger(tiny("rpbert", evidence=EVIDENCE["captions"]), "cpu"))
    doc = nlp.make_doc("Ada at Como")
    doc._.caption = "two dogs"
    assert component(doc)._.image_status == "used"
    assert component(nlp.make_doc("Ada at Como"))._.image_status == "none"
