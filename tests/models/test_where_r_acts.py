"""Where r acts on the image: a closed gate is text alone, and more r is more image."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rpbert.errors import InputError
from rpbert.models.rpbert import RpBert
from rpbert.models.saved import TaggingModel
from tests.conftest import ENCODER, EVIDENCE, NO_EVIDENCE, made_posts, tiny
from tests.families import SHAPE, TEXT_FAMILIES
from tests.models.plain import Vector, enliven, gelu, linear, normed, numbers

ANY: dict[str, Any] = {
    name: {"shape": {"model_type": name, **SHAPE}, "vocabulary": 200}
    for name in ("mpnet", "electra")
}
ENCODERS: dict[str, Any] = {"bert": ENCODER, **{f: f for f in TEXT_FAMILIES if f != "bert"}, **ANY}
SHARES = (0.0, 0.1, 0.25, 0.5, 1.0)


def made(encoder: str, acts: str, kind: str = "blocks") -> TaggingModel:
    chosen = {"encoder": ENCODERS[encoder], "evidence": EVIDENCE[kind]}
    model = tiny("rpbert", **chosen, propagation={"acts": acts})
    enliven(model.system)
    return model


def states(model: TaggingModel, r: float) -> tuple[Tensor, Tensor]:
    """What the first layer reads of the visual tokens and the last hidden state of the text, of
    one post with an image."""
    system = model.system
    assert isinstance(system, RpBert)
    batch = model.collator()(made_posts(1))
    text, image = system.encoder.embed(batch.subwords), system.blocks(batch)
    gated = system.propagation(image, torch.full((1, 1), r)).map(lambda part: part.flatten(1, 2))
    read: list[Tensor] = []
    first = system.encoder.blocks[0].register_forward_pre_hook(
        lambda _, args, kwargs: read.append((*args, *kwargs.values())[0]), with_kwargs=True
    )
    with torch.no_grad():
        hidden = system.encoder(text, batch.subword_mask, gated)
        if not read:  # BERT's layers are computed module by module
            read.append(system.encoder.embedded(text, batch.subword_mask, gated).hidden)
    first.remove()
    return read[0][0, text.shape[1] :], hidden[0]


@pytest.mark.parametrize("kind", ["blocks", "sentence"])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_closed_gate_is_the_post_without_image(encoder: str, kind: str) -> None:
    model = made(encoder, "after_norm", kind)
    posts = made_posts(4)
    with torch.no_grad():
        model.system.get_parameter("classifier.weight").zero_()
        model.system.get_parameter("classifier.bias").copy_(torch.tensor([200.0, -200.0]))
        closed = model.system(model.collator()(posts))
        blind = model.system(model.collator()([post.with_(**NO_EVIDENCE) for post in posts]))
    assert not closed.relation_score.any()
    torch.testing.assert_close(closed.emissions, blind.emissions, atol=1e-6, rtol=0)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_what_the_first_layer_reads_is_in_proportion_to_r(encoder: str) -> None:
    model = made(encoder, "after_norm")
    none, whole = (states(model, r)[0] for r in (0.0, 1.0))
    for r in SHARES:
        share = (states(model, r)[0] - none).norm() / (whole - none).norm()
        assert share == pytest.approx(r, abs=1e-5)


def test_before_the_norm_a_tenth_is_most_of_the_image() -> None:
    """The reason for the default: LayerNorm undoes R (Eq. 3 by the letter)."""
    model = made("bert", "before_norm")
    none, whole = (states(model, r)[0] for r in (0.0, 1.0))
    tenth = states(model, 0.1)[0]
    assert (tenth - none).norm() / (whole - none).norm() > 0.5


def test_the_image_fades_in_from_text_alone() -> None:
    """Where R scales the input alone, 16 tokens that are almost 0 are a step."""
    model = made("bert", "after_norm")
    none, whole = (states(model, r)[1] for r in (0.0, 1.0))
    far = [float((states(model, r)[1] - none).norm() / (whole - none).norm()) for r in SHARES]
    assert far == sorted(far)
    assert float((states(model, 1e-6)[1] - none).norm()) < 1e-3
    stepping = made("bert", "input")
    assert float((states(stepping, 1e-6)[1] - states(stepping, 0.0)[1]).norm()) > 0.1


@pytest.mark.parametrize("r", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("acts", ["after_norm", "before_norm", "input"])
def test_every_place_is_a_plain_loop(acts: str, r: float) -> None:
    model = made("bert", acts)
    system = model.system
    assert isinstance(system, RpBert)
    batch = model.collator()(made_posts(1))
    text = numbers(system.encoder.embed(batch.subwords)[0])
    image = numbers(system.blocks(batch).values[0, 0])
    expected = plain(system.encoder.bert, text, image, acts, r)
    np.testing.assert_allclose(states(model, r)[1].numpy(), expected, atol=1e-5, rtol=1e-5)


def plain(bert: Any, text: Vector, image: Vector, acts: str, r: float) -> Vector:
    """The second pass over one post, its text states (Eq. 1, 3)."""
    before, after = (r, 1.0) if acts == "before_norm" else (1.0, r)
    weight = r if acts == "after_norm" else 1.0
    tables, n, m = bert.embeddings, len(text), len(image)
    segments = numbers(tables.token_type_embeddings.weight)
    positions = numbers(tables.position_embeddings.weight)
    words = normed(tables.LayerNorm, text + segments[0] + positions[:n])
    blocks = normed(tables.LayerNorm, before * image + segments[1] + positions[n])
    hidden = np.concatenate([words, after * blocks])
    weights = np.array([1.0] * n + [weight if after else 0.0] * m)
    for layer in bert.encoder.layer:
        out = layer.attention.output
        attended = linear(out.dense, attention(layer.attention.self, hidden, weights))
        inner = normed(out.LayerNorm, attended + hidden)
        wide = gelu(linear(layer.intermediate.dense, inner))
        hidden = normed(layer.output.LayerNorm, linear(layer.output.dense, wide) + inner)
    return hidden[:n]


def attention(own: Any, hidden: Vector, weights: Vector) -> Vector:
    """Each token over all tokens: exp(score) times the weight of a token, normalised."""
    query, key, value = (linear(m, hidden) for m in (own.query, own.key, own.value))
    size, found = own.attention_head_size, np.zeros_like(query)
    for row in range(len(hidden)):
        for start in range(0, query.shape[1], size):
            span = slice(start, start + size)
            powers = np.exp(key[:, span] @ query[row, span] / math.sqrt(size)) * weights
            found[row, span] = powers / powers.sum() @ value[:, span]
    return found


@pytest.mark.parametrize("acts", ["after_norm", "input"])
def test_r_is_refused_where_the_first_layer_would_scale_it_back(acts: str) -> None:
    shape = {"model_type": "roberta-prelayernorm", **SHAPE}
    with pytest.raises(InputError, match=rf"propagation\.acts.*{acts}.*prelayernorm"):
        tiny("rpbert", encoder={"shape": shape, "vocabulary": 200}, propagation={"acts": acts})


def test_a_model_of_before_loads_with_what_it_was_trained_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Saved settings that name no place mean the only one that there was."""
    model = made("bert", "before_norm")
    batch = model.collator()(made_posts())
    with torch.no_grad():
        expected = model.system(batch).emissions
    described = json.loads(model._description())
    del described["options"]["propagation"]["acts"]
    monkeypatch.setattr(model, "_description", lambda: json.dumps(described))
    model.save(tmp_path / "model")
    with torch.no_grad():
        assert torch.equal(TaggingModel.load(tmp_path / "model").system(batch).emissions, expected)
