"""Published weights: what is loaded is what is used, and what cannot be used is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2Model,
    PreTrainedModel,
    T5Config,
    T5Model,
)

from rpbert.data.vocabulary import learn_wordpieces
from rpbert.errors import InputError
from rpbert.models.bilstm_crf import BertTagger
from rpbert.models.saved import TaggingModel
from rpbert.modules.encoder import TextImageEncoder
from tests.conftest import made_posts, tiny
from tests.families import SHAPE, TEXT_FAMILIES
from tests.families import published as tiny_folder

T5 = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
GPT2 = {"n_embd": 8, "n_layer": 1, "n_head": 2}


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A BERT as hubs hold them: half precision, with a pooler and a tokenizer."""
    tokenizer = learn_wordpieces((post.words for post in made_posts()), 200)
    folder = tmp_path / "bert"
    BertModel(BertConfig(vocab_size=len(tokenizer), **SHAPE)).half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def made(folder: Path) -> TaggingModel:
    return tiny("bert", encoder={"pretrained": str(folder)})


def test_the_weights_are_the_published_ones_in_float32_and_then_the_models_own(
    published: Path, tmp_path: Path
) -> None:
    model = made(published)
    assert isinstance(model.system, BertTagger)
    expected = BertModel.from_pretrained(published).state_dict()
    for name, tensor in model.system.encoder.bert.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, expected[name].float()), name
    model.save(tmp_path / "model")
    shutil.rmtree(published)
    loaded = TaggingModel.load(tmp_path / "model")
    for name, tensor in model.system.state_dict().items():
        assert torch.equal(tensor, loaded.system.state_dict()[name]), name


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: T5Model(T5Config(vocab_size=50, **T5)), "type t5"),
        (lambda: GPT2Model(GPT2Config(vocab_size=50, **GPT2)), "gpt2, a decoder"),
    ],
)
def test_a_model_that_is_no_text_encoder_is_refused(
    tmp_path: Path, model: Callable[[], PreTrainedModel], reason: str
) -> None:
    """The words of a decoder would not see the image after them."""
    model().save_pretrained(tmp_path)
    learn_wordpieces([["a"]], 100).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=rf"model\.encoder\.pretrained.*{reason}"):
        made(tmp_path)


@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_every_family_keeps_its_options_when_saved(family: str, tmp_path: Path) -> None:
    options = {"longest": 20, "frozen_layers": 1}
    model = tiny("bert", encoder={"pretrained": str(tiny_folder(family)), **options})
    model.save(tmp_path / "model")
    loaded = TaggingModel.load(tmp_path / "model")
    text, image = model.collator()(made_posts()), loaded.collator()(made_posts())
    assert torch.equal(text.subwords, image.subwords)
    assert torch.equal(model.system(text).emissions, loaded.system(image).emissions)
    encoder = loaded.system.encoder
    assert isinstance(encoder, TextImageEncoder)
    assert encoder.max_length == 19
    learns = {name for name, p in encoder.named_parameters() if p.requires_grad}
    assert not any("embed" in name or ".0." in name for name in learns)
    assert any(".1." in name for name in learns)


def test_missing_weights_are_never_drawn_at_random(published: Path) -> None:
    weights = published / "model.safetensors"
    kept = load_file(weights)
    del kept["encoder.layer.1.output.dense.weight"]
    save_file(kept, weights, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"no weights for .*output\.dense\.weight"):
        made(published)


@pytest.mark.parametrize("spoilt", ["model.safetensors", "tokenizer*"])
def test_weights_that_cannot_be_used_are_refused(published: Path, spoilt: str) -> None:
    for path in published.glob(spoilt):
        path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"model\.encoder\.pretrained"):
        made(published)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_attention_heads", 3),
        ("hidden_act", "foo"),
        ("max_position_embeddings", 2),
        ("hiden_size", 16),
    ],
)
def test_a_shape_that_makes_no_network_is_refused(field: str, value: object) -> None:
    with pytest.raises(InputError, match=r"model\.encoder\.shape"):
        tiny("bert", encoder={"shape": {**SHAPE, field: value}})


def test_what_the_encoder_or_the_system_has_not_is_refused() -> None:
    with pytest.raises(InputError, match=r"model\.encoder\.frozen_layers: found 3"):
        tiny("bert", encoder={"shape": SHAPE, "frozen_layers": 3})
    with pytest.raises(InputError, match=r"model\.encoder\.pretrained.*type roberta"):
        tiny("uniter", encoder="roberta")
