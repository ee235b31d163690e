"""A kind of evidence is one file and one line of `KINDS`: toy ones, the length of each caption, a
text, and a grid."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import create_model

from rpbert.analysis.attention import explain
from rpbert.evidence import EvidenceSettings
from rpbert.evidence.base import Evidence, KindSettings, Reader, whole_image
from rpbert.evidence.texts import TextSettings
from rpbert.inference import Tagger
from rpbert.models import parse_options
from rpbert.models.saved import TaggingModel
from rpbert.types import EvidenceInput, VisualTokens
from tests.conftest import BOTH, TAGGER, made_posts


class Lengths(Evidence):
    width = 1

    def encode(self, found: EvidenceInput) -> VisualTokens:
        return VisualTokens(found.values, found.mask, whole_image(found.mask))

    def reader(self, reading: Any) -> Reader:
        return LengthReader()


class Grid(Lengths):
    columns = 3

    def encode(self, found: EvidenceInput) -> VisualTokens:
        mask = found.mask.expand(-1, 6)
        return VisualTokens(found.values.expand(-1, 6, -1), mask, whole_image(mask))


class LengthReader(Reader):
    made_from = "caption"

    def load(self, wanted: Any) -> dict[Any, Any]:
        return {key: len(key) for key in wanted}

    def pack(self, pieces: Any) -> tuple[torch.Tensor, torch.Tensor, None]:
        values = torch.tensor(pieces).float().view(-1, 1, 1)
        return values, values[..., 0] > 0, None


class LengthSettings(KindSettings):
    source = "caption"

    def build(self, key: str, table: Any) -> Evidence:
        return Lengths()


class GridSettings(LengthSettings):
    def build(self, key: str, table: Any) -> Evidence:
        return Grid()


class Notes(TextSettings):
    source = "image_text"


def test_a_text_and_a_grid_are_known_by_what_they_say_of_themselves() -> None:
    kinds: Any = create_model(
        "More",
        __base__=EvidenceSettings,
        notes=(Notes | None, None),
        grid=(GridSettings | None, None),
    )
    options: Any = parse_options({"system": "rpbert", "tagger": TAGGER, **BOTH})
    posts = [post.with_(image_text="zebra quagga") for post in made_posts()]

    def tagger(kind: str) -> Tagger:
        chosen = options.model_copy(update={"evidence": kinds.model_validate(kind)})
        return Tagger(TaggingModel.create(chosen, posts), "cpu")

    noting = tagger("notes")
    assert "zebra" in noting.model.vocabulary.words
    pieces = explain(noting, posts[0]).pieces
    assert pieces is not None
    assert "".join(pieces).replace("##", "") == "zebraquagga"
    attention = explain(tagger("grid"), posts[0]).attention
    assert attention is not None
    assert attention.shape[1:] == (2, 3)


def test_a_new_kind_needs_nothing_else() -> None:
    kinds: Any = create_model(
        "WithLengths", __base__=EvidenceSettings, lengths=(LengthSettings | None, None)
    )
    options: Any = parse_options({"system": "rpbert", "tagger": TAGGER, **BOTH})
    posts = [*made_posts(), made_posts(1)[0].with_(caption=None, image=None)]
    for given, count in (("lengths", 1), ({"blocks": options.evidence.blocks, "lengths": None}, 2)):
        chosen = options.model_copy(update={"evidence": kinds.model_validate(given)})
        tagger = Tagger(TaggingModel.create(chosen, posts), "cpu")
        found = tagger.predict_batch(posts)
        assert [p.image for p in found] == ["used"] * 8 + ["none"]
        assert {source.evidence for p in found for source in p.sources} == (
            {"blocks", "lengths"} if count == 2 else set()
        )
