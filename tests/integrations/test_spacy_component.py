"""The component in spaCy's own pipelines."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from rpbert import Tagger
from tests.conftest import EVIDENCE, picture, tiny
from tests.test_inference import FINDER

spacy = pytest.importorskip("spacy")

from rpbert.integrations.spacy_component import RpBertComponent, make  # noqa: E402

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
    expected = [(p.image, None if p.relation is None else round(p.relation, 5)) for p in by_hand]
    found = list(nlp.pipe(documents, batch_size=2))
    assert [(d._.image_status, round(d._.image_relation, 5)) for d in found] == expected
    entities = 0
    for doc, prediction in zip(found, by_hand, strict=True):
        aligned = {(span.start_char, span.end_char, span.label_) for span in doc.ents}
        for entity in prediction.entities:
            # Exactly there, or grown to the edges of its tokens, where another may have won.
            around = [
                s for s in doc.ents if s.start_char < entity.end and entity.start < s.end_char
            ]
            assert around
            starts = {token.idx for token in doc}
            ends = {token.idx + len(token) for token in doc}
            if entity.start in starts and entity.end in ends and len(around) == 1:
                assert (entity.start, entity.end, entity.label) in aligned
        entities += len(doc.ents)
    assert entities > 3


def test_an_entity_grows_to_the_edges_of_its_tokens(nlp: Any) -> None:
    from rpbert import Entity, Prediction
    from rpbert.integrations.spacy_component import _fill

    doc = spacy.tokens.Doc(nlp.vocab, words=["LakeComo", "again"])
    inside = [Entity("Lake", "LOC", 0, 4, 0.9), Entity("Comoagain"[:4], "PER", 4, 8, 0.8)]
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


def test_words_given_by_the_caller_stay_its_tokens(nlp: Any) -> None:
    words = ["RT", "@", "user1", "Ada", "Lovelace", "again"]
    doc = RpBertComponent(FINDER)(spacy.tokens.Doc(nlp.vocab, words=words))
    assert [token.text for token in doc] == words
    assert doc._.image_relation == 0.0
