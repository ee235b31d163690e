"""Eq. 10 and 11 against a triple loop over the attentions of transformers' own BertModel."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertModel

from rpbert import Tagger
from rpbert.analysis import Explanation, explain, explain_batch
from rpbert.errors import InputError
from rpbert.types import Post
from tests.conftest import EVIDENCE, made_posts, picture, tiny
from tests.models.plain import Vector

GATES = ["soft", "straight_through", "gumbel", "none"]


def tagger_of(gate: str) -> Tagger:
    return Tagger(tiny("rpbert", gate=gate), "cpu")


def looped(tagger: Tagger, post: Post, r: float) -> Vector:
    """A[i, j] of a post, by loops over windows, layers, heads, word pieces and blocks."""
    system: Any = tagger.model.system
    batch = tagger.decoder.collator([post])
    eager = BertModel(system.encoder.bert.config, add_pooling_layer=False).eval()
    eager.load_state_dict(system.encoder.bert.state_dict())
    eager.set_attn_implementation("eager")
    image = system.projection(system.evidence(batch).values)
    blocks = image.shape[1]
    found = np.zeros((len(post.words), blocks))
    for row, words in enumerate(batch.word_of_subword.tolist()):
        length = int(batch.subword_mask[row].sum())
        text = eager.embeddings.word_embeddings(batch.subwords[row : row + 1, :length])
        first = eager.embeddings(
            inputs_embeds=torch.cat([text, image], 1),
            token_type_ids=torch.tensor([[0] * length + [1] * blocks]),
            position_ids=torch.tensor([[*range(length), *[length] * blocks]]),
        )
        first[:, length:] *= r
        added = torch.zeros(1, 1, 1, length + blocks)
        added[..., length:] = math.log(r) if r else float("-inf")
        heads: list[Vector] = []
        for layer in eager.encoder.layer:
            heads += list(layer.attention.self(first, added)[1][0].detach().double().numpy())
            first = layer(first, added)
        for head in heads:
            for position, word in enumerate(words[:length]):
                for block in range(blocks):
                    if word >= 0:
                        found[word, block] += head[position, length + block] / len(heads)
    return found


def held_to(explanation: Explanation, expected: Vector) -> None:
    found: Any = explanation
    words, rows, columns = found.attention.shape
    assert (words, rows * columns) == expected.shape
    np.testing.assert_allclose(found.attention.reshape(expected.shape), expected, atol=1e-6, rtol=0)
    np.testing.assert_allclose(found.heat.ravel(), expected.sum(0), atol=1e-6, rtol=0)
    assert found.s_tv == pytest.approx(expected.sum(), abs=1e-6)
    assert found.s_tv_per_word == pytest.approx(expected.sum() / words, abs=1e-6)


@pytest.mark.parametrize("gate", GATES)
def test_attention_equals_a_triple_loop(gate: str) -> None:
    """Posts of different lengths, of which one has words of several pieces, in one batch."""
    tagger = tagger_of(gate)
    posts = made_posts(6)
    posts[1] = Post.from_words("1", ("Lovelaceagain", "comouser", "!"), image=posts[1].image)
    together = explain_batch(tagger, posts)
    assert tagger.decoder.collator([posts[1]]).subwords.shape[1] > 5
    for post, found in zip(posts, together, strict=True):
        r = found.prediction.relation
        held_to(found, looped(tagger, post, 1.0 if r is None else r))


@pytest.mark.parametrize("kind", ["global", "stored-regions", "captions"])
def test_other_evidence_stands_in_one_row(kind: str) -> None:
    tagger = Tagger(tiny("rpbert", evidence=EVIDENCE[kind]), "cpu")
    posts: list[Any] = made_posts(4)
    explained: list[Any] = explain_batch(tagger, posts)
    for post, found in zip(posts, explained, strict=True):
        assert found.attention.shape[1] == 1
        held_to(found, looped(tagger, post, found.prediction.relation))
        if kind == "captions":
            joined = "".join(piece.removeprefix("##") for piece in found.pieces)
            assert joined == post.caption.replace(" ", "").lower()
        else:
            assert found.pieces is None


def test_boxes_say_what_each_token_shows() -> None:
    post: Any = made_posts(1)[0]
    found: Any = explain(tagger_of("soft"), post)
    _, rows, columns = found.attention.shape
    cells = [
        [column / columns, row / rows, (column + 1) / columns, (row + 1) / rows]
        for row in range(rows)
        for column in range(columns)
    ]
    np.testing.assert_allclose(found.boxes, cells, atol=1e-6)
    regions: Any = explain(Tagger(tiny("rpbert", evidence=EVIDENCE["stored-regions"]), "cpu"), post)
    np.testing.assert_allclose(regions.boxes, post.images[0].regions.boxes, atol=1e-6)


@pytest.mark.parametrize("relation", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("gate", ["soft", "none"])
def test_r_set_by_hand_is_the_r_of_the_second_pass(gate: str, relation: float) -> None:
    tagger, post = tagger_of(gate), made_posts(1)[0]
    found = explain(tagger, post, relation=relation)
    assert found.prediction.relation == pytest.approx(relation)
    held_to(found, looped(tagger, post, relation))


@pytest.mark.parametrize("system", ["rpbert", "bert", "bilstm_crf"])
def test_the_prediction_is_that_of_the_tagger(system: str) -> None:
    tagger = Tagger(tiny(system), "cpu")
    posts = made_posts(5)
    posts[3] = posts[3].with_(image=None)
    explained = explain_batch(tagger, posts)
    for one, expected in zip(explained, tagger.predict_batch(posts), strict=True):
        found = one.prediction
        assert (found.id, found.text, found.image) == (expected.id, expected.text, expected.image)
        assert found.relation == pytest.approx(expected.relation, abs=1e-6)
        for mine, theirs in zip(found.entities, expected.entities, strict=True):
            assert replace(mine, score=0) == replace(theirs, score=0)
            assert mine.score == pytest.approx(theirs.score, abs=1e-6)


def test_a_post_longer_than_the_encoder_counts_each_word_once() -> None:
    """A word's attention is that of the one window it is read from."""
    tagger = tagger_of("none")
    post = Post.from_words("long", tuple(f"again{i % 7}" for i in range(90)), image=picture(3))
    assert len(tagger.decoder.collator([post]).subwords) > 1
    expected = looped(tagger, post, 1.0)
    assert expected.min() > 0
    held_to(explain(tagger, post), expected)


def test_without_image_or_without_rpbert_there_is_no_attention() -> None:
    tagger = tagger_of("soft")
    with_image, without = explain_batch(
        tagger, [made_posts(1)[0], made_posts(1, images=False)[0]], relation=0.7
    )
    assert with_image.heat is not None
    assert (without.attention, without.heat, without.s_tv, without.s_tv_per_word) == (None,) * 4
    assert without.prediction.relation == 0.0
    assert explain(tagger, "a text alone").attention is None
    text_only = explain(Tagger(tiny("bert"), "cpu"), made_posts(1)[0])
    assert text_only.attention is None


def test_r_is_a_share_and_of_a_system_with_images() -> None:
    for relation in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match="between 0 and 1"):
            explain(tagger_of("soft"), "Ada", relation=relation)
    with pytest.raises(InputError, match="a model of bert"):
        explain(Tagger(tiny("bert"), "cpu"), "Ada", relation=0.5)
