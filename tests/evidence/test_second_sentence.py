"""``[CLS] T [SEP] E [SEP]``: a text beside a post against transformers' own reading of a pair."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rpbert.errors import InputError
from rpbert.evidence import EvidenceSettings
from rpbert.evidence.base import EvidenceReader, side_by_side
from rpbert.evidence.texts import KnowledgeSettings, TextReader
from rpbert.models.rpbert import RpBert
from rpbert.modules.encoder import pack
from rpbert.types import Post, PostImage, VisualTokens
from tests.conftest import EVIDENCE, made_posts, tiny
from tests.families import TEXT_FAMILIES
from tests.models.test_where_r_acts import ENCODERS

SENTENCE: dict[str, Any] = EVIDENCE["sentence"]


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_text_reads_the_sentence_as_the_encoder_was_trained(encoder: str) -> None:
    model = tiny("rpbert", encoder=ENCODERS[encoder], evidence=SENTENCE, gate="none")
    system, tokenizer = model.system, model.tokenizer
    assert isinstance(system, RpBert)
    assert tokenizer is not None
    post = made_posts(1)[0].with_(knowledge="two dogs " * 12)
    batch = model.collator()([post])
    pair = tokenizer("red", post.images[0].knowledge, add_special_tokens=True)["input_ids"]
    single = tokenizer("red", add_special_tokens=True)["input_ids"]
    closing = [tokenizer.sep_token_id]
    behind = pair[len(single) :]
    opening = [token for token in behind[:1] if token in closing]  # RoBERTa's second [SEP]
    words = [token for token in behind if token not in closing]
    second = [*opening, *words[: 12 - len(opening) - 1], *closing]
    ids = torch.tensor([[*batch.subwords[0].tolist(), *second]])
    given: dict[str, Tensor] = {"attention_mask": torch.ones_like(ids)}
    if system.encoder.has_segments:
        text = batch.subwords.shape[1]
        given["token_type_ids"] = (torch.arange(ids.shape[1]) >= text).long()[None]
    with torch.no_grad():
        image = side_by_side(system.blocks(batch))
        assert image.mask.sum() == len(second) == 12
        found = system.encoder(system.encoder.embed(batch.subwords), batch.subword_mask, image)
        expected = system.encoder.bert(input_ids=ids, **given).last_hidden_state
    torch.testing.assert_close(found[0], expected[0, : found.shape[1]], atol=1e-5, rtol=1e-5)
    assert (len(opening) == 1) == (encoder in ("roberta", "bertweet", "xlm-roberta"))
    assert set(TEXT_FAMILIES) <= set(ENCODERS)


def test_positions_segments_and_masks_of_two_sources_are_a_plain_loop() -> None:
    """Each source counts on from the text as if it were alone; what has no order stays there."""
    text, mask = torch.randn(2, 3, 4), torch.tensor([[True] * 3, [True, True, False]])
    real = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 0]]).bool()
    places = torch.tensor([[0, 1, 2, 0, 1], [0, 0, 0, 1, 0]])
    values, boxes = torch.randn(2, 5, 4), torch.zeros(2, 5, 4)
    tokens = VisualTokens(values, real, boxes, places=places)
    tokens = tokens.map(lambda part: part[:, [[0, 1, 2], [3, 4, 4]]])  # (S, E, V)
    tokens.mask[:, 1, 2] = False
    tokens.mask[1, 0, :2] = False
    read = pack(text, mask, side_by_side(tokens))
    for row, (words, expected) in enumerate(zip((3, 2), ([0, 1, 2, 0, 1], [0, 1]), strict=True)):
        length = words + len(expected)
        assert read.mask[row].tolist() == [True] * length + [False] * (9 - length)
        assert read.positions[row, :length].tolist() == [
            *range(words),
            *(words + place for place in expected),
        ]
        assert read.segments[row, :length].tolist() == [0] * words + [1] * len(expected)
        assert torch.equal(read.hidden[row, :words], text[row, :words])


def test_a_long_text_is_cut_its_entities_kept_and_the_loss_counted() -> None:
    """Ids are letters; the list of entities goes first."""
    settings = EvidenceSettings.model_validate({"knowledge": {"max_tokens": 40}})
    (kind,) = settings.kinds.values()
    assert isinstance(kind, KnowledgeSettings)
    reader = TextReader(lambda text: [ord(letter) for letter in text], kind, ([1], [2, 3]))
    listed, rest = "Named entities: 1. Ada (person) ", "Reasoning: " + "x" * 40
    long = Post.from_words("1", ("x",), knowledge=f"It is so. {listed}{rest}")
    short = Post.from_words("2", ("x",), images=(PostImage(knowledge="y" * 37), PostImage()))
    found, status = EvidenceReader([reader]).read([long, short])
    assert status == ("used", "used")
    before, *letters = found[0].values[0].tolist()
    assert (before, letters[-2:]) == (1, [2, 3])
    assert "".join(map(chr, letters[:-2])).startswith(listed)
    assert len(letters) == 39
    cut = len(f"{listed} It is so. {rest}") - 37
    assert f"{cut} of {cut + 74} tokens are left out" in reader.note([long, short])
    assert reader.note([short]) == ""
    assert reader.lengths([long, short, Post.from_words("3", ("x",))]) == [40, 40, 0]


def test_what_cannot_be_read_behind_the_text_is_refused() -> None:
    with pytest.raises(InputError, match=r"a second sentence for umt; expected visual_tokens"):
        tiny("umt", evidence=SENTENCE)
    for tokens in (3, 33):
        sentence = {"as": "second_sentence", "max_tokens": tokens}
        with pytest.raises(InputError, match=rf"max_tokens: found {tokens}; expected from 4 to 32"):
            tiny("rpbert", evidence={"knowledge": sentence})


def test_batches_are_made_by_all_tokens() -> None:
    model = tiny("rpbert", evidence=SENTENCE)
    posts, collator = made_posts(), model.collator()
    batch = collator(posts)
    own, beside = batch.subword_mask.sum(1) - 2, batch.evidence[0]
    assert collator.lengths(posts) == (own + beside.mask.sum(1)[beside.of_post[:, 0]]).tolist()
