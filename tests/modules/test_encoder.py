"""The encoder against transformers' BertModel and against plain loops."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from transformers import PreTrainedModel
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

from rpbert.modules.encoder import ImageType, TextImageEncoder, pool_words
from rpbert.modules.families import AnyEncoder, family, published_encoder
from rpbert.types import VisualTokens
from tests.families import SHAPE, TEXT_FAMILIES, published

WIDTH = 16


def tokens(rows: int, blocks: int) -> VisualTokens:
    mask = torch.ones(rows, blocks, dtype=torch.bool)
    return VisualTokens(torch.randn(rows, blocks, WIDTH), mask, torch.rand(rows, blocks, 4))


def test_pool_words_equals_a_loop() -> None:
    hidden = torch.randn(2, 6, 3)
    word_of_subword = torch.tensor([[-1, 0, 0, 2, -1, -1], [-1, 3, 4, 4, 4, -1]])
    pooled = pool_words(hidden, word_of_subword, posts=2, words=3)
    for flat in range(6):
        rows = [
            hidden[s, position]
            for s in range(2)
            for position in range(6)
            if word_of_subword[s, position] == flat
        ]
        expected = torch.stack(rows).mean(0) if rows else torch.zeros(3)
        torch.testing.assert_close(pooled.view(6, 3)[flat], expected)


@pytest.fixture(params=TEXT_FAMILIES)
def family_model(request: pytest.FixtureRequest) -> PreTrainedModel:
    model: PreTrainedModel = published_encoder(str(published(request.param)))
    return model.eval()


def made(model: PreTrainedModel, **options: Any) -> TextImageEncoder:
    return family(model.config)(model, **options).eval()


def some_text(rows: int = 21) -> tuple[torch.Tensor, torch.Tensor]:
    """Longer than the window of a layer that looks near by."""
    mask = torch.arange(rows)[None] < torch.tensor([rows, 4, rows - 5])[:, None]
    return torch.randint(5, 50, (3, rows)), mask


def test_without_image_it_is_the_published_encoder(family_model: PreTrainedModel) -> None:
    ids, mask = some_text()
    encoder = made(family_model)
    expected = family_model(
        inputs_embeds=encoder.embed(ids), attention_mask=mask.long()
    ).last_hidden_state
    none = VisualTokens(
        torch.zeros(3, 4, WIDTH), torch.zeros(3, 4, dtype=torch.bool), torch.zeros(3, 4, 4)
    )
    for image in (None, none, tokens(3, 0)):
        hidden = encoder(encoder.embed(ids), mask, image)
        torch.testing.assert_close(hidden[mask], expected[mask], atol=1e-5, rtol=1e-5)
        summary = encoder.summary(encoder.embed(ids), mask, image)
        torch.testing.assert_close(summary, hidden[:, 0], atol=1e-5, rtol=1e-5)


def test_with_image_it_is_the_published_encoder_on_one_row(family_model: PreTrainedModel) -> None:
    """Each post alone, its sequence laid out by hand: one position for all blocks."""
    ids, mask = some_text()
    image, encoder = tokens(3, 4), made(family_model)
    vector = torch.zeros(WIDTH)
    if family_model.config.model_type != "bert":  # which has a segment for the image
        assert isinstance(encoder.image_type, ImageType)
        vector = torch.nn.init.normal_(encoder.image_type.vector)
    hidden = encoder(encoder.embed(ids), mask, image)
    for i, length in enumerate(mask.sum(1).tolist()):
        blocks = image.values[i] + vector
        row = torch.cat([encoder.embed(ids[i, :length]), blocks])[None]
        positions = torch.tensor([[*range(length), *[length] * 4]])
        expected = by_transformers(family_model, row, positions)[0, :length]
        torch.testing.assert_close(hidden[i, :length], expected, atol=1e-5, rtol=1e-5)


def by_transformers(
    model: PreTrainedModel, row: torch.Tensor, positions: torch.Tensor
) -> torch.Tensor:
    """What transformers makes of one row whose tokens stand at some positions."""
    distance = positions[0, :, None] - positions[0, None, :]
    match model.config.model_type:
        case "deberta-v2":
            encoder, real = model.encoder, torch.ones(row.shape[:2], dtype=torch.long)
            relative = make_log_bucket_position(
                distance, encoder.position_buckets, encoder.max_relative_positions
            )
            first = model.embeddings(inputs_embeds=row, mask=real)
            found = encoder(first, real, relative_pos=relative.long()).last_hidden_state
        case "modernbert":
            near = distance.abs() <= model.config.local_attention // 2
            masks = {
                "full_attention": torch.ones_like(near)[None, None],
                "sliding_attention": near[None, None],
            }
            found = model(
                inputs_embeds=row, attention_mask=masks, position_ids=positions
            ).last_hidden_state
        case "bert":
            segments = (distance[-1] == 0).long()[None] if row.shape[1] else None
            found = model(
                inputs_embeds=row, position_ids=positions, token_type_ids=segments
            ).last_hidden_state
        case _:  # RoBERTa counts from behind the position of its padding
            found = model(inputs_embeds=row, position_ids=positions + 2).last_hidden_state
    assert isinstance(found, torch.Tensor)
    return found


@pytest.mark.parametrize("name", ["Electra", "MPNet", "DistilBert", "Albert"])
def test_any_other_encoder_reads_text_and_image(name: str) -> None:
    fields = {**SHAPE, "vocab_size": 60, "pad_token_id": 1, "embedding_size": 8}
    if name == "DistilBert":
        fields |= {"dim": 16, "hidden_dim": 32, "n_layers": 2, "n_heads": 2}
    config = getattr(transformers, f"{name}Config")(**fields)
    model = getattr(transformers, f"{name}Model")(config).eval()
    encoder = made(model)
    assert isinstance(encoder, AnyEncoder)
    ids, mask = some_text()
    embedded = encoder.embed(ids)
    alone = model(inputs_embeds=embedded, attention_mask=mask.long()).last_hidden_state
    found = encoder(embedded, mask, None)
    torch.testing.assert_close(found[mask], alone[mask], atol=1e-5, rtol=1e-5)
    boxes = torch.rand(3, 4, 4)
    real = torch.ones(3, 4, dtype=torch.bool)
    image = VisualTokens(torch.randn(3, 4, encoder.input_width), real, boxes)
    shown = encoder(embedded, mask, image)
    assert not torch.allclose(shown[mask], alone[mask])
    if name == "MPNet":  # adds a bias by the place in the row, whatever the position is said to be
        return
    order = VisualTokens(image.values.flip(1), real, boxes)
    turned = encoder(embedded, mask, order)  # blocks share a position: their order is nothing
    torch.testing.assert_close(turned[mask], shown[mask], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_the_lowest_layers_are_frozen(family_model: PreTrainedModel, layers: int) -> None:
    encoder = made(family_model)
    encoder.freeze_lowest(layers)
    for name, parameter in family_model.named_parameters():
        layer = next((int(part) for part in name.split(".") if part.isdigit()), -1)
        above = 2 if name.startswith("final_norm") else layer + 1
        assert parameter.requires_grad == (above > layers), name
