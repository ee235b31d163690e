"""Several kinds of evidence of one post, each weighed by its own r."""

from __future__ import annotations

import pytest
import torch

from rpbert.config.run import DataSettings
from rpbert.errors import InputError
from rpbert.evidence.base import Evidence
from rpbert.inference import Tagger
from rpbert.models import SYSTEMS
from rpbert.models.rpbert import RpBert
from rpbert.models.saved import TaggingModel
from rpbert.training.relation_sources import relation_posts
from rpbert.types import Post
from tests.conftest import BLOCKS, COMBINED, NO_EVIDENCE, made_posts, tiny

ONLY = {
    "blocks": {"caption": None, "regions": None, "image_text": None},
    "regions": {"image": None, "caption": None, "image_text": None},
    "captions": {"image": None, "regions": None, "image_text": None},
}
"""What a post lacks that has one kind alone."""


def combined() -> tuple[TaggingModel, RpBert]:
    model = tiny("rpbert", evidence=COMBINED)
    assert isinstance(model.system, RpBert)
    return model, model.system


def posts_of_every_kind() -> list[Post]:
    """All kinds, each kind alone, and none."""
    post = made_posts()[0]
    return [post, *(post.with_(**lacks) for lacks in ONLY.values()), post.with_(**NO_EVIDENCE)]


def test_r_of_a_kind_is_that_of_the_post_with_this_kind_alone() -> None:
    model, system = combined()
    posts = posts_of_every_kind()
    with torch.no_grad():
        output = system(model.collator()(posts))
    scores = output.source_scores
    assert scores is not None
    assert scores.shape == (5, 3)
    expected = torch.zeros(5, 3)
    for kind in range(3):
        with torch.no_grad():
            alone = system(model.collator()([posts[1 + kind]])).relation_score
        expected[0, kind] = expected[1 + kind, kind] = alone[0]
    torch.testing.assert_close(scores, expected)
    assert len(set(scores[0].tolist())) == 3
    torch.testing.assert_close(output.relation_score, expected.amax(1))


def test_the_second_pass_reads_every_kind_scaled_by_its_own_r() -> None:
    """Its tokens laid out by hand: W^v of each kind, then r of each."""
    model, system = combined()
    (post,) = made_posts(1)
    batch = model.collator()([post])
    with torch.no_grad():
        output = system(batch)
        evidence = system.evidence
        rows = []
        for kind, (name, part) in enumerate(evidence.get_submodule("parts").named_children()):
            assert isinstance(part, Evidence)
            of_kind = part.by_source([batch.evidence[kind]])
            projected = evidence.get_submodule(f"projections.{name}")(of_kind.values[0, 0])
            real = projected[of_kind.mask[0, 0]]
            rows.append(float(output.source_scores[0, kind]) * real)
        tokens = torch.cat(rows)[None]
        text = system.encoder.embed(batch.subwords)
        packed = torch.cat([text, tokens], 1)
        length = text.shape[1]
        segments = torch.tensor([[0] * length + [1] * tokens.shape[1]])
        positions = torch.tensor([[*range(length), *[length] * tokens.shape[1]]])
        hidden = system.encoder.bert(
            inputs_embeds=packed, token_type_ids=segments, position_ids=positions
        ).last_hidden_state[0]
        words = [
            hidden[:length][batch.word_of_subword[0] == w].mean(0) for w in range(len(post.words))
        ]
        expected = system.tag(batch, torch.stack(words)[None]).emissions
    torch.testing.assert_close(output.emissions, expected, atol=1e-5, rtol=1e-5)


def test_a_prediction_lists_the_kinds_that_a_post_has() -> None:
    model, _ = combined()
    every, blocks, regions, captions, none = Tagger(model, "cpu").predict_batch(
        posts_of_every_kind()
    )
    assert [(s.evidence, s.image) for s in every.sources] == [(kind, 0) for kind in ONLY]
    assert [len(p.sources) for p in (blocks, regions, captions, none)] == [0] * 4
    assert [p.image for p in (every, blocks, regions, captions, none)] == ["used"] * 4 + ["none"]
    assert none.relation == 0


def test_task_1_learns_from_each_kind_apart() -> None:
    model, system = combined()
    posts = made_posts(2)
    posts[1] = posts[1].with_(image=None)
    reader = model.collator().evidence
    data = DataSettings(path="made")
    supply = relation_posts(data, posts, "joined", reader, seed=0)
    shown = [
        tuple(
            kind
            for kind in ("image", "regions", "caption")
            if getattr(p.images[0], kind) is not None
        )
        for p in supply.known
    ]
    assert shown == [("image",), ("regions",), ("caption",), ("regions",), ("caption",)]
    assert [p.relation for p in supply.known] == [0, 0, 0, 1, 1]
    batch = model.collator().with_gold(supply.known)
    assert batch.has_evidence.all()
    with torch.no_grad():
        r = system.gate(system.relation_logits(batch))[:, 1]
        torch.testing.assert_close(r, system(batch).relation_score)


@pytest.mark.parametrize("system", [name for name in SYSTEMS if name != "rpbert"])
def test_other_systems_take_one_kind(system: str) -> None:
    if not SYSTEMS[system].evidence:
        return
    with pytest.raises(InputError, match=r"blocks and captions as evidence for .* one kind"):
        tiny(system, evidence={**BLOCKS, "captions": {}})
