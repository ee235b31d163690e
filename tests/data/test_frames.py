"""pandas in, pandas out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rpbert import InputError, Tagger
from tests.conftest import EVIDENCE, picture, tiny
from tests.test_inference import FINDER

pd = pytest.importorskip("pandas")


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "a.png"
    picture(1).save(path)
    return path


def strip(entity: dict[str, Any]) -> dict[str, Any]:
    """An entity whose score is rounded: a batch of other posts may change its last digits."""
    return {**entity, "score": round(entity["score"], 4)}


def test_index_columns_and_rows_stay_and_the_predictions_stand_beside(photo: Path) -> None:
    images = [str(photo), None, "no.jpg", picture(2), float("nan")]
    texts = ["Ada Lovelace at Lake Como", "Acme", "RT @ Ulysses : hm", "", "Ada again !"]
    frame = pd.DataFrame(
        {"text": texts, "image": images, "likes": [3, 1, 4, 1, 5], 7: list("abcde")},
        index=["x", "y", "y", "z", 9],
    )
    before = frame.copy()
    found = FINDER.predict_frame(frame, batch_size=2)
    pd.testing.assert_frame_equal(frame, before)
    pd.testing.assert_frame_equal(found[list(frame.columns)], before)
    assert list(found.columns) == [*frame.columns, "entities", "relation", "image_status"]
    assert list(found["image_status"]) == ["used", "none", "missing", "used", "none"]
    images[4] = None
    posts = [{"text": t, "image": i} for t, i in zip(texts, images, strict=True)]
    for row, one in zip(found.itertuples(index=False), FINDER.predict_batch(posts), strict=True):
        expected = one.to_dict()
        assert [strip(e) for e in row.entities] == [strip(e) for e in expected["entities"]]
        assert row.relation == pytest.approx(expected["relation"], abs=1e-6)
    assert any(found["entities"])


def test_tokens_are_taken_in_any_kind_of_list() -> None:
    import numpy as np

    tokens = [["Ada", "at", "Como"], ("Acme",), np.array(["Lake", "Como"], dtype=object)]
    found = FINDER.predict_frame(pd.DataFrame({"id": [7, 8, 9], "tokens": tokens}))
    by_hand = FINDER.predict_batch([{"tokens": list(words)} for words in tokens])
    for entities, one in zip(found["entities"], by_hand, strict=True):
        assert list(map(strip, entities)) == list(map(strip, one.to_dict()["entities"]))


def test_captions_are_read_by_a_model_of_captions() -> None:
    tagger = Tagger(tiny("rpbert", evidence=EVIDENCE["captions"]), "cpu")
    frame = pd.DataFrame({"text": ["Ada", "Ada"], "caption": ["two dogs", None]})
    assert list(tagger.predict_frame(frame)["image_status"]) == ["used", "none"]


def test_an_empty_frame_and_a_model_without_a_gate() -> None:
    blind = Tagger(tiny("bert"), "cpu")
    empty = blind.predict_frame(pd.DataFrame({"text": []}))
    assert (len(empty), "entities" in empty) == (0, True)
    assert blind.predict_frame(pd.DataFrame({"text": ["Ada"]}))["relation"].isna().all()


def test_gold_columns_are_never_overwritten() -> None:
    frame = pd.DataFrame({"text": ["Ada"], "relation": [1]})
    with pytest.raises(InputError, match="prefix="):
        FINDER.predict_frame(frame)
    found = FINDER.predict_frame(frame, prefix="predicted_")
    assert list(found["relation"]) == [1]
    assert "predicted_relation" in found


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"words": ["Ada"]}, "a column 'text' or 'tokens'"),
        ({"text": ["Ada", None]}, "frame, row 1"),
        ({"text": ["Ada", 3]}, "frame, row 1"),
    ],
)
def test_what_is_no_post_is_named_by_its_row(
    columns: dict[str, list[object]], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        FINDER.predict_frame(pd.DataFrame(columns))
