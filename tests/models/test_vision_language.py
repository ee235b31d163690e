"""The vision-and-language encoders against transformers' own, and against plain loops.

Each is run on a batch with padding, with fewer regions in one row and none in another; what is
held against it sees one row at a time, laid out by hand without any padding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LxmertConfig, LxmertModel, VisualBertConfig, VisualBertModel

from rpbert.evidence.encoders import VisualTokens
from rpbert.models.lxmert import LxmertEncoder
from rpbert.models.uniter import UnicoderVlEncoder, UniterEncoder
from rpbert.models.vilbert import CoAttention, VilbertEncoder
from rpbert.models.vision_language import VisionLanguageEncoder
from rpbert.models.visualbert import VisualBertEncoder
from rpbert.models.vl_bert import VlBertEncoder

SHAPE: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
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
encoders = pytest.mark.parametrize("kind", ENCODERS, ids=lambda kind: kind.__name__)


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


def norm(layer: Any, vector: Tensor) -> Tensor:
    """A LayerNorm of one vector by its definition."""
    values = vector.tolist()
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    scaled = torch.tensor([(value - mean) / math.sqrt(variance + 1e-12) for value in values])
    found: Tensor = scaled * layer.weight + layer.bias
    return found


def linear(layer: nn.Linear, vector: Tensor) -> Tensor:
    return torch.stack([(row * vector).sum() for row in layer.weight]) + layer.bias


def encode(encoder: Any, sequence: list[Tensor]) -> Tensor:
    """transformers' own BERT layers over one sequence."""
    hidden: Tensor = encoder.bert.encoder(torch.stack(sequence)[None]).last_hidden_state[0]
    return hidden


def word(encoder: Any, piece: Tensor, position: int, extra: Tensor | float = 0.0) -> Tensor:
    """A sub-word's input to BERT."""
    tables = encoder.bert.embeddings
    summed = (
        tables.word_embeddings.weight[piece]
        + tables.position_embeddings.weight[position]
        + tables.token_type_embeddings.weight[0]
        + extra
    )
    return norm(tables.LayerNorm, summed)


def uniter(encoder: Any, pieces: Tensor, image: list[tuple[Tensor, list[float]]]) -> Tensor:
    parts, segment = encoder.regions, encoder.bert.embeddings.token_type_embeddings.weight[1]
    sequence = [word(encoder, piece, k) for k, piece in enumerate(pieces)]
    for feature, (x0, y0, x1, y1) in image:
        w, h = x1 - x0, y1 - y0
        box = linear(parts.box, torch.tensor([x0, y0, x1, y1, w, h, w * h]))
        seen = norm(parts.feature_norm, linear(parts.feature, feature))
        sequence.append(norm(parts.norm, seen + norm(parts.box_norm, box) + segment))
    return encode(encoder, sequence)


def unicoder_vl(encoder: Any, pieces: Tensor, image: list[tuple[Tensor, list[float]]]) -> Tensor:
    parts, segment = encoder.regions, encoder.bert.embeddings.token_type_embeddings.weight[1]
    sequence = [word(encoder, piece, k) for k, piece in enumerate(pieces)]
    for feature, (x0, y0, x1, y1) in image:
        box = torch.tensor([x0, y0, x1, y1, (x1 - x0) * (y1 - y0)])
        summed = linear(parts.feature, feature) + linear(parts.box, box) + segment
        sequence.append(norm(parts.norm, summed))
    return encode(encoder, sequence)


def with_whole(image: list[tuple[Tensor, list[float]]]) -> list[tuple[Tensor, list[float]]]:
    if not image:
        return []
    mean = torch.stack([feature for feature, _ in image]).mean(0)
    return [(mean, [0.0, 0.0, 1.0, 1.0]), *image]


def vl_bert(encoder: Any, pieces: Tensor, image: list[tuple[Tensor, list[float]]]) -> Tensor:
    parts, tables = encoder.regions, encoder.bert.embeddings
    places, segment = tables.position_embeddings.weight, tables.token_type_embeddings.weight[2]

    def visual(feature: Tensor, box: list[float]) -> Tensor:
        x0, y0, x1, y1 = box
        waves = []
        for number in ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0):
            angles = [100 * number / 1000 ** (k / 256) for k in range(256)]
            waves += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        return linear(parts.projection, torch.cat([torch.tensor(waves), feature])).clamp(min=0)

    image = with_whole(image)
    whole = norm(parts.text_norm, visual(*image[0])) if image else 0.0
    sequence = [word(encoder, piece, k, whole) for k, piece in enumerate(pieces)]
    n = len(sequence)
    for region in image:
        seen = parts.word.weight[0] + norm(parts.region_norm, visual(*region))
        sequence.append(norm(tables.LayerNorm, seen + segment + places[n]))
    if image:
        end = parts.end.weight[0] + segment + places[n + 1]
        sequence.append(norm(tables.LayerNorm, end))
    return encode(encoder, sequence)


def vilbert(encoder: Any, pieces: Tensor, image: list[tuple[Tensor, list[float]]]) -> Tensor:
    parts, turns = encoder.regions, encoder.sizes.co_layers
    text = [word(encoder, piece, k) for k, piece in enumerate(pieces)]
    regions = []
    for feature, (x0, y0, x1, y1) in with_whole(image):
        box = torch.tensor([x0, y0, x1, y1, (x1 - x0) * (y1 - y0)])
        regions.append(norm(parts.norm, linear(parts.feature, feature) + linear(parts.box, box)))
    layers = list(encoder.bert.encoder.layer)
    for layer in layers[:-turns]:
        text = list(layer(torch.stack(text)[None])[0])
    for turn, layer in enumerate(layers[-turns:]):
        looked = look(encoder.text_looks[turn], text, regions)
        if turn < turns - 1 and regions:
            regions = look(encoder.image_looks[turn], regions, text)
            regions = list(encoder.image_layers[turn](torch.stack(regions)[None])[0])
        text = list(layer(torch.stack(looked)[None])[0])
    return torch.stack(text)


def look(looks: CoAttention, own: list[Tensor], other: list[Tensor]) -> list[Tensor]:
    """Co-attention, head by head and token by token; zeros where there is nothing to look at."""
    size = looks.attention_head_size
    keys = [linear(looks.key, token) for token in other]
    values = [linear(looks.value, token) for token in other]
    result = []
    for token in own:
        query = linear(looks.query, token)
        found = torch.zeros_like(query)
        for start in range(0, len(query) if other else 0, size):
            head = slice(start, start + size)
            scores = [float(query[head] @ key[head]) / math.sqrt(size) for key in keys]
            total = sum(math.exp(score) for score in scores)
            for score, value in zip(scores, values, strict=True):
                found[head] += math.exp(score) / total * value[head]
        seen = norm(looks.norm, token + linear(looks.dense, found))
        inner = linear(looks.intermediate.dense, seen)
        inner = torch.stack([x * (1 + torch.erf(x / math.sqrt(2))) / 2 for x in inner])
        output = linear(looks.output.dense, inner)
        result.append(norm(looks.output.LayerNorm, seen + output))
    return result


@pytest.mark.parametrize(
    ("kind", "by_hand"),
    [
        (UniterEncoder, uniter),
        (UnicoderVlEncoder, unicoder_vl),
        (VlBertEncoder, vl_bert),
        (VilbertEncoder, vilbert),
    ],
    ids=["uniter", "unicoder_vl", "vl_bert", "vilbert"],
)
def test_it_is_the_equations_of_its_docstring(
    kind: type[VisionLanguageEncoder],
    by_hand: Callable[[Any, Tensor, list[tuple[Tensor, list[float]]]], Tensor],
) -> None:
    encoder = made(kind)
    subwords, mask, image = made_rows()
    with torch.no_grad():
        hidden = encoder(subwords, mask, image)
        for row, length, regions in TEXT:
            seen = [(image.values[row, k], image.boxes[row, k].tolist()) for k in range(regions)]
            expected = by_hand(encoder, subwords[row, :length], seen)
            torch.testing.assert_close(hidden[row, :length], expected[:length], atol=1e-5, rtol=0)


def test_vilbert_takes_streams_of_different_widths() -> None:
    sizes = {"v_hidden_size": 12, "v_num_attention_heads": 3, "v_intermediate_size": 20}
    encoder = made(VilbertEncoder, **sizes, bi_hidden_size=8, bi_num_attention_heads=4, co_layers=3)
    subwords, mask, image = made_rows()
    with torch.no_grad():
        hidden = encoder(subwords, mask, image)
        seen = [(image.values[0, k], image.boxes[0, k].tolist()) for k in range(5)]
        torch.testing.assert_close(
            hidden[0], vilbert(encoder, subwords[0], seen), atol=1e-5, rtol=0
        )


def test_visualbert_is_that_of_transformers(tmp_path: Path) -> None:
    config = VisualBertConfig(vocab_size=50, visual_embedding_dim=WIDTH, **SHAPE)
    VisualBertModel(config).save_pretrained(tmp_path)
    reference = VisualBertModel.from_pretrained(tmp_path).eval()
    encoder = VisualBertEncoder.from_published(str(tmp_path)).eval()
    subwords, mask, image = made_rows()
    with torch.no_grad():
        hidden = encoder(subwords, mask, image)
        for row, length, regions in TEXT:
            expected = reference(
                input_ids=subwords[row : row + 1, :length],
                visual_embeds=image.values[row : row + 1, :regions] if regions else None,
            ).last_hidden_state[0, :length]
            torch.testing.assert_close(hidden[row, :length], expected, atol=1e-5, rtol=0)


@pytest.fixture
def published_lxmert(tmp_path: Path) -> LxmertModel:
    fields = {key: value for key, value in SHAPE.items() if key != "num_hidden_layers"}
    config = LxmertConfig(
        vocab_size=50, l_layers=2, x_layers=2, r_layers=3, visual_feat_dim=WIDTH, **fields
    )
    LxmertModel(config).save_pretrained(tmp_path)
    reference: LxmertModel = LxmertModel.from_pretrained(tmp_path).eval()
    return reference


def test_lxmert_is_that_of_transformers(published_lxmert: LxmertModel, tmp_path: Path) -> None:
    encoder = LxmertEncoder.from_published(str(tmp_path)).eval()
    subwords, mask, image = made_rows()
    with torch.no_grad():
        hidden = encoder(subwords, mask, image)
        for row, length, regions in TEXT:
            if not regions:
                continue
            expected = published_lxmert(
                input_ids=subwords[row : row + 1, :length],
                visual_feats=image.values[row : row + 1, :regions],
                visual_pos=image.boxes[row : row + 1, :regions],
            ).language_output[0]
            torch.testing.assert_close(hidden[row, :length], expected, atol=1e-5, rtol=0)


def test_lxmert_without_an_image_finds_nothing_where_it_looks(
    published_lxmert: LxmertModel, tmp_path: Path
) -> None:
    """transformers' own layers of the text, with zeros for what the attention finds."""
    encoder = LxmertEncoder.from_published(str(tmp_path)).eval()
    subwords, mask, image = made_rows()
    with torch.no_grad():
        hidden = encoder(subwords, mask, image)[1, :4]
        text = published_lxmert.embeddings(subwords[1:2, :4], torch.zeros(1, 4, dtype=torch.long))
        for layer in published_lxmert.encoder.layer:
            text = layer(text)[0]
        for layer in published_lxmert.encoder.x_layers:
            text = layer.visual_attention.output(torch.zeros_like(text), text)
            text = layer.lang_self_att(text, None)[0]
            text = layer.lang_output(layer.lang_inter(text), text)
    torch.testing.assert_close(hidden, text[0], atol=1e-5, rtol=0)


@encoders
def test_a_row_sees_itself_alone(kind: type[VisionLanguageEncoder]) -> None:
    encoder = made(kind)
    subwords, mask, image = made_rows()
    with torch.no_grad():
        hidden = encoder(subwords, mask, image)
        for row, length, regions in TEXT:
            alone = VisualTokens(*(part[row : row + 1, :regions] for part in image))
            one = encoder(subwords[row : row + 1, :length], mask[row : row + 1, :length], alone)
            torch.testing.assert_close(hidden[row, :length], one[0], atol=1e-5, rtol=0)


@encoders
def test_every_parameter_learns_and_nothing_is_no_number(kind: type[VisionLanguageEncoder]) -> None:
    encoder = made(kind).train()
    subwords, mask, image = made_rows()
    hidden = encoder(subwords, mask, image)
    (hidden[mask] * torch.randn(16)).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
        assert parameter.grad.isfinite().all(), name


@encoders
def test_a_batch_without_any_image_is_read(kind: type[VisionLanguageEncoder]) -> None:
    encoder = made(kind)
    subwords, mask, image = made_rows()
    hidden_in_company = encoder(subwords, mask, image)
    none = VisualTokens(*(part[:, :0] for part in image))
    hidden = encoder(subwords, mask, none)
    assert hidden[mask].isfinite().all()
    torch.testing.assert_close(hidden[1, :4], hidden_in_company[1, :4], atol=1e-5, rtol=0)
    assert not torch.allclose(hidden[0], hidden_in_company[0])


@encoders
def test_its_shape_builds_it_again(kind: type[VisionLanguageEncoder]) -> None:
    encoder = made(kind)
    again = kind.random(encoder.shape, WIDTH, rows=0).eval()
    again.load_state_dict(encoder.state_dict())
    rows = made_rows()
    assert torch.equal(encoder(*rows), again(*rows))
