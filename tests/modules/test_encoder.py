"""The encoder against transformers' BertModel and against plain loops."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertModel

from rpbert.modules.encoder import TextImageEncoder, pack, pool_words
from rpbert.modules.evidence import VisualTokens

WIDTH = 16


@pytest.fixture
def bert() -> BertModel:
    config = BertConfig(
        vocab_size=50,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
    )
    return BertModel(config, add_pooling_layer=False).eval()


@pytest.fixture
def text() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(5, 50, (3, 9))
    mask = torch.arange(9)[None] < torch.tensor([9, 4, 6])[:, None]
    return ids * mask, mask


def tokens(rows: int, blocks: int) -> VisualTokens:
    mask = torch.ones(rows, blocks, dtype=torch.bool)
    return VisualTokens(torch.randn(rows, blocks, WIDTH), mask, torch.rand(rows, blocks, 4))


def test_without_image_it_is_bert(bert: BertModel, text: tuple[torch.Tensor, torch.Tensor]) -> None:
    ids, mask = text
    encoder = TextImageEncoder(bert)
    expected = bert(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    none = VisualTokens(
        torch.zeros(3, 4, WIDTH), torch.zeros(3, 4, dtype=torch.bool), torch.zeros(3, 4, 4)
    )
    for image in (None, tokens(3, 0), none):
        hidden = encoder(encoder.embed(ids), mask, image)
        torch.testing.assert_close(hidden[mask], expected[mask], atol=1e-6, rtol=1e-5)


def test_with_image_it_is_bert_on_the_sequence_of_eq_1(
    bert: BertModel, text: tuple[torch.Tensor, torch.Tensor]
) -> None:
    """Each post alone, its sequence laid out by hand: text, blocks, one position for all blocks."""
    ids, mask = text
    image = tokens(3, 4)
    encoder = TextImageEncoder(bert)
    hidden = encoder(encoder.embed(ids), mask, image)
    for i, length in enumerate(mask.sum(1).tolist()):
        words = bert.embeddings.word_embeddings(ids[i, :length])
        expected = bert(
            inputs_embeds=torch.cat([words, image.values[i]])[None],
            token_type_ids=torch.tensor([[0] * length + [1] * 4]),
            position_ids=torch.tensor([[*range(length), *[length] * 4]]),
        ).last_hidden_state[0, :length]
        torch.testing.assert_close(hidden[i, :length], expected, atol=1e-6, rtol=1e-5)


def test_pack_equals_a_loop(text: tuple[torch.Tensor, torch.Tensor]) -> None:
    _, mask = text
    words, image = torch.randn(3, 9, WIDTH), tokens(3, 4)
    image.mask[1] = False
    packed, real, segments, positions = pack(words, mask, image)
    for i, length in enumerate(mask.sum(1).tolist()):
        blocks = 4 if image.mask[i].any() else 0
        expected = torch.cat([words[i, :length], image.values[i, :blocks]])
        assert torch.equal(packed[i, : length + blocks], expected)
        assert real[i].tolist() == [True] * (length + blocks) + [False] * (13 - length - blocks)
        assert segments[i, : length + blocks].tolist() == [0] * length + [1] * blocks
        assert positions[i, : length + blocks].tolist() == [*range(length), *[length] * blocks]


def test_padding_changes_nothing(bert: BertModel, text: tuple[torch.Tensor, torch.Tensor]) -> None:
    ids, mask = text
    encoder, image = TextImageEncoder(bert), tokens(3, 4)
    wide, wide_mask = torch.nn.functional.pad(ids, (0, 7)), torch.nn.functional.pad(mask, (0, 7))
    narrow_hidden = encoder(encoder.embed(ids), mask, image)
    wide_hidden = encoder(encoder.embed(wide), wide_mask, image)
    torch.testing.assert_close(narrow_hidden[mask], wide_hidden[wide_mask], atol=1e-6, rtol=1e-5)


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


def test_the_summary_is_the_cls_row(
    bert: BertModel, text: tuple[torch.Tensor, torch.Tensor]
) -> None:
    ids, mask = text
    encoder, image = TextImageEncoder(bert), tokens(3, 4)
    whole = encoder(encoder.embed(ids), mask, image)
    summary = encoder.summary(encoder.embed(ids), mask, image)
    torch.testing.assert_close(summary, whole[:, 0], atol=1e-6, rtol=1e-5)
