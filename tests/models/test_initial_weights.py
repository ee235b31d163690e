"""What the vision-and-language systems start from, and that they say so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    LxmertConfig,
    LxmertModel,
    RobertaConfig,
    RobertaModel,
    VisualBertConfig,
    VisualBertModel,
)

from rpbert.data.vocabulary import learn_wordpieces
from rpbert.errors import InputError
from rpbert.models.saved import TaggingModel
from rpbert.models.vision_language import VisionLanguageTagger
from tests.conftest import EVIDENCE, NO_EVIDENCE, made_posts, tiny

SYSTEMS = ["visualbert", "unicoder_vl", "uniter", "vl_bert", "vilbert", "lxmert"]
systems = pytest.mark.parametrize("system", SYSTEMS)
SHAPE: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 6,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
}
PIECES = learn_wordpieces((post.words for post in made_posts()), 200)


def saved(network: Any, folder: Path) -> Path:
    """The folder of a published model with its tokenizer."""
    network.save_pretrained(folder)
    PIECES.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain BERT, as MiniLM is one."""
    network = BertModel(BertConfig(vocab_size=len(PIECES), **SHAPE))
    return saved(network, tmp_path_factory.mktemp("bert"))


def system_of(model: TaggingModel) -> VisionLanguageTagger:
    assert isinstance(model.system, VisionLanguageTagger)
    return model.system


def started(system: str, folder: Path, **options: Any) -> TaggingModel:
    return tiny(system, encoder={"pretrained": str(folder)}, **options)


@systems
def test_all_of_a_plain_bert_is_in_it_and_the_model_says_so(
    system: str, bert: Path, tmp_path: Path
) -> None:
    model = started(system, bert)
    held = system_of(model).encoder.state_dict()
    given = BertModel.from_pretrained(bert, add_pooling_layer=False).state_dict()
    for name, tensor in given.items():
        assert any(
            value.shape[1:] == tensor.shape[1:] and torch.equal(value[: len(tensor)], tensor)
            for value in held.values()
        ), name
    model.save(tmp_path / "model")
    loaded = TaggingModel.load(tmp_path / "model")
    assert loaded.notes["initial_weights"] == f"text from {bert}, the rest random"
    assert tiny(system).notes["initial_weights"] == "random"
    for name, tensor in model.system.state_dict().items():
        assert torch.equal(tensor, loaded.system.state_dict()[name]), name


def test_two_streams_share_a_bert_of_any_depth_as_published(bert: Path) -> None:
    assert system_of(started("lxmert", bert)).encoder.shape["x_layers"] == 2  # 6 layers in 9 : 5
    assert system_of(started("vilbert", bert)).encoder.shape["co_layers"] == 3  # half of them


@pytest.mark.parametrize("system", ["visualbert", "lxmert"])
def test_the_systems_own_weights_load_by_transformers(system: str, tmp_path: Path) -> None:
    fields = {key: value for key, value in SHAPE.items() if key != "num_hidden_layers"}
    if system == "visualbert":
        config = VisualBertConfig(vocab_size=len(PIECES), visual_embedding_dim=8, **fields)
        published: Any = VisualBertModel(config)
    else:
        layers = {"l_layers": 2, "x_layers": 1, "r_layers": 1}
        config = LxmertConfig(vocab_size=len(PIECES), visual_feat_dim=8, **layers, **fields)
        published = LxmertModel(config)
    model = started(system, saved(published, tmp_path))
    assert model.system.initial_weights == str(tmp_path)
    given = published.state_dict()
    for name, tensor in system_of(model).encoder.state_dict().items():
        assert torch.equal(tensor, given[name.removeprefix("model.")]), name
    with pytest.raises(InputError, match="size 6 for weights that read 8"):
        started(system, tmp_path, evidence={"regions": {}})


@pytest.mark.parametrize("system", ["uniter", "lxmert"])
def test_weights_of_another_kind_are_refused(system: str, tmp_path: Path) -> None:
    fields = {key: value for key, value in SHAPE.items() if key != "initializer_range"}
    saved(RobertaModel(RobertaConfig(vocab_size=200, **fields)), tmp_path)
    with pytest.raises(InputError, match=r"model\.encoder\.pretrained.*type roberta"):
        started(system, tmp_path)
    with pytest.raises(InputError, match=r"model\.encoder\.pretrained"):
        started(system, tmp_path / "absent")


@pytest.mark.parametrize(
    ("system", "change"),
    [
        *((s, {"hiden_size": 16}) for s in SYSTEMS),
        *((s, {"num_hidden_layers": 0}) for s in SYSTEMS),
        ("uniter", {"num_attention_heads": 3}),
        *(("vilbert", {"co_layers": layers}) for layers in (0, 7)),
        ("vilbert", {"bi_num_attention_heads": 3}),
        *(("lxmert", {"x_layers": layers}) for layers in (0, 7)),
    ],
)
def test_a_shape_that_makes_no_network_is_refused(system: str, change: dict[str, int]) -> None:
    with pytest.raises(InputError, match=r"model\.encoder\.shape"):
        tiny(system, encoder={"shape": {**SHAPE, **change}})


@systems
@pytest.mark.parametrize("kind", ["global", "stored-regions", "regions", "captions"])
def test_any_evidence_is_taken(system: str, kind: str) -> None:
    model = tiny(system, evidence=EVIDENCE[kind])
    posts = made_posts()
    posts[3] = posts[3].with_(**NO_EVIDENCE)
    seen = model.system(model.collator()(posts)).emissions
    blind = model.system(model.collator()([post.with_(**NO_EVIDENCE) for post in posts])).emissions
    same = [torch.allclose(a, b, atol=1e-6) for a, b in zip(seen, blind, strict=True)]
    assert same == [number == 3 for number in range(len(posts))]
