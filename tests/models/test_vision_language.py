"""The vision-and-language encoders against transformers' own, and against plain loops.

Each is run on a batch with padding, with fewer regions in one row and none in another; what is
held against it sees one row at a time, laid out by hand without any padding.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LxmertConfig, LxmertModel, VisualBertConfig, VisualBertModel

from rpbert.config.model import EncoderSettings
from rpbert.errors import InputError
from rpbert.models.lxmert import LxmertEncoder
from rpbert.models.uniter import UnicoderVlEncoder, UniterEncoder
from rpbert.models.vilbert import VilbertEncoder
from rpbert.models.vision_language import VisionLanguageEncoder, initial
from rpbert.models.visualbert import VisualBertEncoder
from rpbert.models.vl_bert import VlBertEncoder
from rpbert.types import VisualTokens
from tests import families
from tests.models.plain import Vector, assert_rows, gelu, heads, linear, normed, numbers

SHAPE: dict[str, Any] = {
    **families.SHAPE,
    "num_hidden_layers": 4,
    "initializer_range": 0.3,  # far from 0, so that a part that is left out shows
}
LENGTHS, REGIONS, WIDTH = [9, 4, 6], [5, 0, 3], 8
TEXT = list(zip(range(3), LENGTHS, REGIONS, strict=True))
ENCODERS: list[type[VisionLanguageEncoder]] = [
    VisualBertEncoder,
    UnicoderVlEncoder,
    UniterEncoder,
    VlBertEncoder,
    VilbertEncoder,
    LxmertEncoder,
]


def made_rows() -> tuple[Tensor, Tensor, VisualTokens]:
    """Three rows of text, and their regions."""
    mask = torch.arange(max(LENGTHS))[None] < torch.tensor(LENGTHS)[:, None]
    subwords = torch.randint(5, 50, mask.shape) * mask
    real = torch.arange(max(REGIONS))[None] < torch.tensor(REGIONS)[:, None]
    corners = torch.rand(3, max(REGIONS), 2, 2).sort(2).values.flatten(2)  # x0 y0 x1 y1
    values = torch.randn(3, max(REGIONS), WIDTH)
    return subwords, mask, VisualTokens(values, real, corners)


def made(kind: type[VisionLanguageEncoder], **shape: Any) -> Any:
    """A small encoder whose every parameter is away from its starting value."""
    encoder = kind.random({**SHAPE, **shape}, WIDTH, 50).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return encoder


def encode(encoder: Any, *sequence: Vector) -> Vector:
    """transformers' own BERT layers over one sequence."""
    rows = torch.from_numpy(np.concatenate(sequence)).float()
    return numbers(encoder.bert.encoder(rows[None]).last_hidden_state[0])


def texts(encoder: Any, pieces: Tensor, extra: Vector | float = 0.0) -> Vector:
    """The sub-words' input to BERT."""
    tables = encoder.bert.embeddings
    summed = (
        tables.word_embeddings.weight[pieces]
        + tables.position_embeddings.weight[: len(pieces)]
        + tables.token_type_embeddings.weight[0]
    )
    return normed(tables.LayerNorm, numbers(summed) + extra)


def areas(boxes: Vector) -> Vector:
    found: Vector = (boxes[:, 2:] - boxes[:, :2]).prod(1, keepdims=True)
    return found


def uniter(encoder: Any, pieces: Tensor, features: Vector, boxes: Vector) -> Vector:
    own, segment = encoder.regions, numbers(encoder.bert.embeddings.token_type_embeddings.weight[1])
    place = linear(own.box, np.hstack([boxes, boxes[:, 2:] - boxes[:, :2], areas(boxes)]))
    seen = normed(own.feature_norm, linear(own.feature, features))
    regions = normed(own.norm, seen + normed(own.box_norm, place) + segment)
    return encode(encoder, texts(encoder, pieces), regions)


def area_regions(
    own: Any, features: Vector, boxes: Vector, segment: Vector | float = 0.0
) -> Vector:
    place = linear(own.box, np.hstack([boxes, areas(boxes)]))
    return normed(own.norm, linear(own.feature, features) + place + segment)


def unicoder_vl(encoder: Any, pieces: Tensor, features: Vector, boxes: Vector) -> Vector:
    segment = numbers(encoder.bert.embeddings.token_type_embeddings.weight[1])
    regions = area_regions(encoder.regions, features, boxes, segment)
    return encode(encoder, texts(encoder, pieces), regions)


def with_whole(features: Vector, boxes: Vector) -> tuple[Vector, Vector]:
    """The whole image first, where there is one."""
    if not len(boxes):
        return features, boxes
    whole = features.mean(0, keepdims=True), np.array([[0.0, 0.0, 1.0, 1.0]])
    return np.vstack([whole[0], features]), np.vstack([whole[1], boxes])


def vl_bert(encoder: Any, pieces: Tensor, features: Vector, boxes: Vector) -> Vector:
    if not len(boxes):
        return encode(encoder, texts(encoder, pieces))
    own, tables, n = encoder.regions, encoder.bert.embeddings, len(pieces)
    segment = tables.token_type_embeddings.weight[2]
    after, last = (numbers(tables.position_embeddings.weight[n + k] + segment) for k in (0, 1))
    features, boxes = with_whole(features, boxes)
    middle, extent = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    angles = 100 * np.hstack([middle, extent])[:, :, None] / 1000 ** (np.arange(256) / 256)
    waves = np.concatenate([np.sin(angles), np.cos(angles)], 2).reshape(len(boxes), -1)
    visual = np.maximum(linear(own.projection, np.hstack([waves, features])), 0)
    rows = numbers(own.word.weight[0]) + normed(own.region_norm, visual) + after
    regions = normed(tables.LayerNorm, np.vstack([rows, numbers(own.end.weight[0]) + last]))
    whole = normed(own.text_norm, visual[0])
    return encode(encoder, texts(encoder, pieces, whole), regions)


def vilbert(encoder: Any, pieces: Tensor, features: Vector, boxes: Vector) -> Vector:
    turns, text = encoder.sizes.co_layers, texts(encoder, pieces)
    regions = area_regions(encoder.regions, *with_whole(features, boxes))

    def through(layer: Any, rows: Vector) -> Vector:
        return numbers(layer(torch.from_numpy(rows).float()[None])[0])

    layers = list(encoder.bert.encoder.layer)
    for layer in layers[:-turns]:
        text = through(layer, text)
    for turn, layer in enumerate(layers[-turns:]):
        looked = look(encoder.text_looks[turn], text, regions)
        if turn < turns - 1 and len(regions):
            regions = look(encoder.image_looks[turn], regions, text)
            regions = through(encoder.image_layers[turn], regions)
        text = through(layer, looked)
    return text


def look(looks: Any, own: Vector, other: Vector) -> Vector:
    """Co-attention, head by head and token by token; zeros where there is nothing to look at."""
    size = looks.query.out_features // looks.num_attention_heads
    seen = normed(looks.norm, own + linear(looks.dense, heads(looks, own, other, size)))
    inner = gelu(linear(looks.intermediate.dense, seen))
    return normed(looks.output.LayerNorm, seen + linear(looks.output.dense, inner))


NARROW = {"v_hidden_size": 12, "v_num_attention_heads": 3, "v_intermediate_size": 20,
          "bi_hidden_size": 8, "bi_num_attention_heads": 4, "co_layers": 3}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "by_hand", "shape"),
    [
        (UniterEncoder, uniter, {}),
        (UnicoderVlEncoder, unicoder_vl, {}),
        (VlBertEncoder, vl_bert, {}),
        (VilbertEncoder, vilbert, {}),
        (VilbertEncoder, vilbert, NARROW),
    ],
)
def test_it_is_the_equations_of_its_docstring(
    kind: type[VisionLanguageEncoder], by_hand: Callable[..., Vector], shape: dict[str, int]
) -> None:
    encoder = made(kind, **shape)
    subwords, mask, image = made_rows()
    with torch.no_grad():
        hidden = encoder(subwords, mask, image)
        for row, length, regions in TEXT:
            seen = numbers(image.values[row, :regions]), numbers(image.boxes[row, :regions])
            expected = by_hand(encoder, subwords[row, :length], *seen)
            assert_rows(hidden[row], expected[:length], rtol=0)


def lxmert_reads(reference: Any, pieces: Tensor, values: Tensor, boxes: Tensor) -> Tensor:
    """Without regions, its layers of the text with zeros for what the attention finds."""
    if len(values[0]):
        found: Tensor = reference(pieces, visual_feats=values, visual_pos=boxes).language_output
        return found
    text: Tensor = reference.embeddings(pieces, torch.zeros_like(pieces))
    for layer in reference.encoder.layer:
        text = layer(text)[0]
    for layer in reference.encoder.x_layers:
        text = layer.visual_attention.output(torch.zeros_like(text), text)
        text = layer.lang_self_att(text, None)[0]
        text = layer.lang_output(layer.lang_inter(text), text)
    return text


def visualbert_reads(reference: Any, pieces: Tensor, values: Tensor, boxes: Tensor) -> Tensor:
    seen = values if len(values[0]) else None
    hidden: Tensor = reference(input_ids=pieces, visual_embeds=seen).last_hidden_state
    return hidden[:, : pieces.shape[1]]


LAYERS = {"l_layers": 2, "x_layers": 2, "r_layers": 3}
FIELDS = {key: value for key, value in SHAPE.items() if key != "num_hidden_layers"}


VISUALBERT = VisualBertConfig(vocab_size=50, visual_embedding_dim=WIDTH, **SHAPE)
LXMERT = LxmertConfig(vocab_size=50, visual_feat_dim=WIDTH, **LAYERS, **FIELDS)


@pytest.mark.parametrize(
    ("kind", "network", "config", "reads"),
    [
        (VisualBertEncoder, VisualBertModel, VISUALBERT, visualbert_reads),
        (LxmertEncoder, LxmertModel, LXMERT, lxmert_reads),
    ],
)
def test_it_is_that_of_transformers(
    kind: type[VisionLanguageEncoder], network: Any, config: Any, reads: Any, tmp_path: Path
) -> None:
    network(config).save_pretrained(tmp_path)
    reference = network.from_pretrained(tmp_path).eval()
    settings = EncoderSettings(pretrained=str(tmp_path))
    with pytest.raises(InputError, match=f"size 6 for weights that read {WIDTH}"):
        initial(kind, settings, 0, 6)
    encoder = initial(kind, settings, 0, WIDTH).eval()
    assert encoder.initial_weights == str(tmp_path)
    subwords, mask, image = made_rows()
    with torch.no_grad():
        hidden = encoder(subwords, mask, image)
        for row, length, regions in TEXT:
            own = slice(row, row + 1)
            seen = image.values[own, :regions], image.boxes[own, :regions]
            expected = reads(reference, subwords[own, :length], *seen)
            torch.testing.assert_close(hidden[own, :length], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ENCODERS, ids=lambda kind: kind.__name__)
def test_no_image_in_the_batch_no_padding_that_learns_and_a_shape_that_builds_it_again(
    kind: type[VisionLanguageEncoder],
) -> None:
    encoder = made(kind)
    subwords, mask, image = made_rows()
    hidden = encoder(subwords, mask, image)
    (hidden[mask] * torch.randn(16)).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad.any(), name
        assert parameter.grad.isfinite().all(), name
    blind = encoder(subwords, mask, image.map(lambda part: part[:, :0]))
    assert blind[mask].isfinite().all()
    torch.testing.assert_close(blind[1, :4], hidden[1, :4], atol=1e-5, rtol=0)
    assert not torch.allclose(blind[0], hidden[0])
    again = kind.random(encoder.shape, WIDTH, rows=0).eval()
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(hidden, again(subwords, mask, image))
