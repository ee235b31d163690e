"""Fast layers of BERT against transformers' own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel

from rpbert.backends.fast_bert import SHORT, FastBertLayer, FastEncoder
from rpbert.backends.packed import Kit, Library, OneDnn
from rpbert.modules.encoder import BertEncoder

KITS: dict[str, Kit] = {"library": Library(torch.float32)}
if OneDnn.available():
    KITS["oneDNN"] = OneDnn(torch.float32)


def encoder(**fields: Any) -> BertEncoder:
    config = BertConfig(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=300,
        initializer_range=0.3,  # attention that looks at some tokens more than at others
        **fields,
    )
    return BertEncoder(BertModel(config, add_pooling_layer=False)).eval()


@pytest.mark.parametrize("kit", KITS)
@pytest.mark.parametrize("longest", [7, SHORT, SHORT + 30])
@pytest.mark.parametrize("activation", ["gelu", "relu", "gelu_new"])
def test_text_is_encoded_as_by_transformers(kit: str, longest: int, activation: str) -> None:
    plain = encoder(hidden_act=activation)
    fast = FastEncoder(
        plain, [FastBertLayer(layer, KITS[kit]) for layer in plain.bert.encoder.layer]
    ).eval()
    ids = torch.randint(50, (3, longest))
    mask = torch.arange(longest) < torch.tensor([longest, 1, longest // 2])[:, None]
    with torch.no_grad():
        expected = plain.bert(ids, attention_mask=mask.long()).last_hidden_state
        found = fast(fast.embed(ids), mask, None)
        summary = fast.summary(fast.embed(ids), mask, None)
    torch.testing.assert_close(found[mask], expected[mask], atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(summary, expected[:, 0], atol=2e-5, rtol=1e-4)


def test_on_a_gpu_no_norm_meets_rows_of_another_type_than_its_weights() -> None:
    # What a GPU refuses, and a CPU does not: the layers that it gets are held to it here.
    plain = encoder()
    layers = [FastBertLayer(layer, Library(torch.bfloat16)) for layer in plain.bert.encoder.layer]
    fast = FastEncoder(plain, layers).eval()
    norms = [norm for norm in fast.fast_layers.modules() if isinstance(norm, nn.LayerNorm)]
    met: list[tuple[torch.dtype, torch.dtype]] = []
    for norm in norms:
        norm.register_forward_pre_hook(
            lambda norm, rows: met.append((norm.weight.dtype, rows[0].dtype))
        )
    ids = torch.randint(50, (2, 7))
    with torch.no_grad():
        found, expected = (each(each.embed(ids), ids >= 0, None) for each in (fast, plain))
    assert met == [(torch.bfloat16, torch.bfloat16)] * 6
    torch.testing.assert_close(found, expected, atol=0.1, rtol=0.1)
    assert plain.bert.encoder.layer[0].output.LayerNorm.weight.dtype == torch.float32
