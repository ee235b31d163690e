"""Where r acts on the image: a closed gate is text alone, and more r is more image."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rpbert.errors import InputError
from rpbert.models.rpbert import RpBert
from rpbert.models.saved import TaggingModel
from tests.conftest import ENCODER, NO_EVIDENCE, made_posts, tiny
from tests.families import SHAPE, TEXT_FAMILIES
from tests.models.plain import (
    Vector,
    assert_rows,
    each,
    enliven,
    gelu,
    linear,
    normed,
    numbers,
    plus,
    softmax,
    times,
    weighted,
)

ANY: dict[str, Any] = {
    name: {"shape": {"model_type": name, **SHAPE}, "vocabulary": 200}
    for name in ("mpnet", "electra")
}
ENCODERS: dict[str, Any] = {"bert": ENCODER, **{f: f for f in TEXT_FAMILIES if f != "bert"}, **ANY}
SHARES = (0.0, 0.1, 0.25, 0.5, 1.0)


def made(encoder: str, acts: str) -> TaggingModel:
    model = tiny("rpbert", encoder=ENCODERS[encoder], propagation={"acts": acts})
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


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_closed_gate_is_the_post_without_image(encoder: str) -> None:
    model = made(encoder, "after_norm")
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


def test_weighted_attention_opens_from_text_alone_without_a_jump() -> None:
    model = made("bert", "attention")
    none, whole = (states(model, r)[1] for r in (0.0, 1.0))
    far = [float((states(model, r)[1] - none).norm() / (whole - none).norm()) for r in SHARES]
    assert far == sorted(far)
    assert float((states(model, 1e-6)[1] - none).norm()) < 1e-3


@pytest.mark.parametrize("r", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("acts", ["after_norm", "before_norm", "attention"])
def test_every_place_is_a_plain_loop(acts: str, r: float) -> None:
    model = made("bert", acts)
    system = model.system
    assert isinstance(system, RpBert)
    batch = model.collator()(made_posts(1))
    text = [numbers(v) for v in system.encoder.embed(batch.subwords)[0]]
    image = [numbers(v) for v in system.blocks(batch).values[0, 0]]
    assert_rows(states(model, r)[1], plain(system.encoder.bert, text, image, acts, r))


def plain(bert: Any, text: list[Vector], image: list[Vector], acts: str, r: float) -> list[Vector]:
    """The second pass over one post, its text states (Eq. 1, 3)."""
    places = ("before_norm", "after_norm", "attention")
    before, after, weight = (r if acts == place else 1.0 for place in places)
    table = bert.embeddings
    segments = [numbers(row) for row in table.token_type_embeddings.weight]
    positions = [numbers(row) for row in table.position_embeddings.weight]
    hidden = [
        normed(table.LayerNorm, plus(t, segments[0], positions[i])) for i, t in enumerate(text)
    ]
    for block in image:
        scaled = plus([before * v for v in block], segments[1], positions[len(text)])
        hidden.append([after * v for v in normed(table.LayerNorm, scaled)])
    weights = [1.0] * len(text) + [weight if after else 0.0] * len(image)
    for layer in bert.encoder.layer:
        attended = attention(layer.attention.self, hidden, weights)
        out = layer.attention.output
        inner = [
            normed(out.LayerNorm, plus(linear(out.dense, a), h))
            for a, h in zip(attended, hidden, strict=True)
        ]
        wide = [each(gelu, linear(layer.intermediate.dense, h)) for h in inner]
        hidden = [
            normed(layer.output.LayerNorm, plus(linear(layer.output.dense, w), h))
            for w, h in zip(wide, inner, strict=True)
        ]
    return hidden[: len(text)]


def attention(own: Any, hidden: list[Vector], weights: list[float]) -> list[Vector]:
    """Each token over the tokens of a weight above 0: exp(score) times the weight, normalised."""
    size = own.attention_head_size
    projections = (own.query, own.key, own.value)
    queries, keys, values = ([linear(m, h) for h in hidden] for m in projections)
    seen = [i for i, w in enumerate(weights) if w]
    found = []
    for query in queries:
        attended: Vector = []
        for start in range(0, len(query), size):
            span = slice(start, start + size)
            scores = [
                sum(times(query[span], keys[i][span])) / math.sqrt(size) + math.log(weights[i])
                for i in seen
            ]
            attended += weighted(softmax(scores), [values[i][span] for i in seen], size)
        found.append(attended)
    return found


def test_attention_is_weighted_where_layers_are_ours() -> None:
    with pytest.raises(InputError, match=r"propagation\.acts.*mpnet"):
        made("mpnet", "attention")


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
