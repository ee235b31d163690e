"""pandas in, pandas out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rpbert import InputError, Tagger
from tests.conftest import EVIDENCE, picture, tiny
from tests.test_inference import FINDER

pd = pytest.importorskip("pandas")


def rounded(rows: Iterable[list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
    """Entities whose scores are rounded: a batch of other posts may change the last digits."""
    return [[{**entity, "score": round(entity["score"], 4)} for entity in row] for row in rows]


def expected(posts: list[Any]) -> list[list[dict[str, Any]]]:
    return rounded(one.to_dict()["entities"] for one in FINDER.predict_batch(posts))


def test_index_columns_and_rows_stay_and_the_predictions_stand_beside(tmp_path: Path) -> None:
    picture(1).save(tmp_path / "a.png")
    images = [str(tmp_path / "a.png"), None, "no.jpg", picture(2), float("nan")]
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
    assert rounded(found["entities"]) == expected(posts)
    relations = [one.relation for one in FINDER.predict_batch(posts)]
    assert list(found["relation"]) == pytest.approx(relations, abs=1e-6)
    assert any(found["entities"])


def test_tokens_are_taken_in_any_kind_of_list() -> None:
    tokens = [["Ada", "at", "Como"], ("Acme",), np.array(["Lake", "Como"], dtype=object)]
    found = FINDER.predict_frame(pd.DataFrame({"id": [7, 8, 9], "tokens": tokens}))
    assert rounded(found["entities"]) == expected([{"tokens": [*words]} for words in tokens])


def test_captions_an_empty_frame_and_a_model_without_a_gate() -> None:
    reading = Tagger(tiny("rpbert", evidence=EVIDENCE["captions"]), "cpu")
    frame = pd.DataFrame({"text": ["Ada", "Ada"], "caption": ["two dogs", None]})
    assert list(reading.predict_frame(frame)["image_status"]) == ["used", "none"]
    blind = Tagger(tiny("bert"), "cpu")
    empty = blind.predict_frame(pd.DataFrame({"text": []}))
    assert (len(empty), "entities" in empty) == (0, True)
    assert blind.predict_frame(pd.DataFrame({"text": ["Ada"]}))["relation"].isna().all()


def test_what_is_no_post_is_named_by_its_row_and_no_column_is_overwritten() -> None:
    frame = pd.DataFrame({"text": ["Ada"], "relation": [1]})
    for wrong, found in (
        (pd.DataFrame({"words": ["Ada"]}), "'words'"),
        (pd.DataFrame({"text": ["Ada", None]}), "frame, row 1"),
        (frame, "'relation'"),
    ):
        with pytest.raises(InputError, match=found):
            FINDER.predict_frame(wrong)
    added = FINDER.predict_frame(frame, prefix="predicted_")
    assert list(added["relation"]) == [1]
    assert "predicted_relation" in added
