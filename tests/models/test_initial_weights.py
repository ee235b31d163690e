"""What the vision-and-language systems start from, and that they say so."""

from __future__ import annotations

import json
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
from rpbert.models.vision_language import VisionLanguageEncoder, VisionLanguageTagger
from rpbert.storage.model_folder import TaggingModel
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


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    return learn_wordpieces((post.words for post in made_posts()), 200)


@pytest.fixture
def bert(tmp_path: Path, tokenizer: Any) -> Path:
    """A plain BERT, as MiniLM is one."""
    folder = tmp_path / "bert"
    BertModel(BertConfig(vocab_size=len(tokenizer), **SHAPE)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def system_of(model: TaggingModel) -> VisionLanguageTagger:
    assert isinstance(model.system, VisionLanguageTagger)
    return model.system


def encoder_of(model: TaggingModel) -> VisionLanguageEncoder:
    return system_of(model).encoder


def started(system: str, folder: Path, **options: Any) -> TaggingModel:
    return tiny(system, encoder={"pretrained": str(folder)}, **options)


@systems
def test_all_of_a_plain_bert_is_in_it(system: str, bert: Path) -> None:
    """Every tensor of the BERT is somewhere in the encoder, and the order of its layers is kept."""
    model = started(system, bert)
    held = encoder_of(model).state_dict()
    given = BertModel.from_pretrained(bert, add_pooling_layer=False).state_dict()
    for name, tensor in given.items():
        same = [
            key
            for key, value in held.items()
            if value.ndim == tensor.ndim
            and value.shape[1:] == tensor.shape[1:]
            and torch.equal(value[: len(tensor)], tensor)
        ]
        assert same, name
    assert model.system.initial_weights == f"text from {bert}, the rest random"


@pytest.mark.parametrize("system", ["visualbert", "unicoder_vl", "uniter", "vl_bert"])
def test_a_one_stream_model_without_an_image_is_that_bert(system: str, bert: Path) -> None:
    model = started(system, bert)
    batch = model.collator()([post.with_(**NO_EVIDENCE) for post in made_posts()])
    expected = BertModel.from_pretrained(bert)(
        input_ids=batch.subwords, attention_mask=batch.subword_mask.long()
    ).last_hidden_state
    image = system_of(model).evidence(batch)
    found = encoder_of(model)(batch.subwords, batch.subword_mask, image)
    real = batch.subword_mask
    torch.testing.assert_close(found[real], expected[real], atol=1e-5, rtol=1e-5)


def test_two_streams_share_a_bert_of_any_depth_as_published(bert: Path) -> None:
    assert encoder_of(started("lxmert", bert)).shape["x_layers"] == 2  # 6 layers in 9 : 5
    assert encoder_of(started("vilbert", bert)).shape["co_layers"] == 3  # half of them


@systems
def test_where_the_weights_came_from_is_kept_with_the_model(
    system: str, bert: Path, tmp_path: Path
) -> None:
    model = started(system, bert)
    model.save(tmp_path / "model")
    loaded = TaggingModel.load(tmp_path / "model")
    assert loaded.notes["initial_weights"] == f"text from {bert}, the rest random"
    assert tiny(system).notes["initial_weights"] == "random"
    for name, tensor in model.system.state_dict().items():
        assert torch.equal(tensor, loaded.system.state_dict()[name]), name


@pytest.mark.parametrize("system", ["visualbert", "lxmert"])
def test_the_systems_own_weights_load_by_transformers(
    system: str, tmp_path: Path, tokenizer: Any
) -> None:
    fields = {key: value for key, value in SHAPE.items() if key != "num_hidden_layers"}
    if system == "visualbert":
        config = VisualBertConfig(vocab_size=len(tokenizer), visual_embedding_dim=8, **fields)
        published: Any = VisualBertModel(config)
    else:
        layers = {"l_layers": 2, "x_layers": 1, "r_layers": 1}
        config = LxmertConfig(vocab_size=len(tokenizer), visual_feat_dim=8, **layers, **fields)
        published = LxmertModel(config)
    published.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = started(system, tmp_path)
    assert model.system.initial_weights == str(tmp_path)
    given = published.state_dict()
    for name, tensor in encoder_of(model).state_dict().items():
        assert torch.equal(tensor, given[name.removeprefix("model.")]), name
    with pytest.raises(InputError, match="visual tokens of size 6 for weights that read 8"):
        started(system, tmp_path, evidence={"regions": {}})


@systems
def test_weights_of_another_kind_are_refused(system: str, tmp_path: Path, tokenizer: Any) -> None:
    fields = {key: value for key, value in SHAPE.items() if key != "initializer_range"}
    RobertaModel(RobertaConfig(vocab_size=200, **fields)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"model\.encoder\.pretrained.*type roberta.*a BERT"):
        started(system, tmp_path)
    with pytest.raises(InputError, match=r"model\.encoder\.pretrained"):
        started(system, tmp_path / "absent")


@systems
@pytest.mark.parametrize(
    "change",
    [{"hiden_size": 16}, {"num_attention_heads": 3}, {"num_hidden_layers": 0}],
    ids=lambda change: next(iter(change)),
)
def test_a_shape_that_makes_no_network_is_refused(system: str, change: dict[str, int]) -> None:
    with pytest.raises(InputError, match=r"model\.encoder\.shape"):
        tiny(system, encoder={"shape": {**SHAPE, **change}})


@pytest.mark.parametrize(
    ("system", "change"),
    [
        ("vilbert", {"co_layers": 7}),
        ("vilbert", {"co_layers": 0}),
        ("vilbert", {"bi_num_attention_heads": 3}),
        ("lxmert", {"x_layers": 7}),
        ("lxmert", {"x_layers": 0}),
    ],
)
def test_streams_that_make_no_network_are_refused(system: str, change: dict[str, int]) -> None:
    with pytest.raises(InputError, match=r"model\.encoder\.shape: found .*(layers|heads)"):
        tiny(system, encoder={"shape": {**SHAPE, **change}})


@systems
@pytest.mark.parametrize("kind", ["global", "stored-regions", "regions", "captions"])
def test_any_evidence_is_taken(system: str, kind: str, tmp_path: Path) -> None:
    model = tiny(system, evidence=EVIDENCE[kind])
    posts = made_posts()
    posts[3] = posts[3].with_(**NO_EVIDENCE)
    seen = model.system(model.collator()(posts)).emissions
    assert seen.isfinite().all()
    blind = model.system(model.collator()([post.with_(**NO_EVIDENCE) for post in posts])).emissions
    same = [torch.allclose(a, b, atol=1e-6) for a, b in zip(seen, blind, strict=True)]
    assert same == [number == 3 for number in range(len(posts))]
    model.save(tmp_path / "model")
    again = TaggingModel.load(tmp_path / "model")
    assert torch.equal(seen, again.system(again.collator()(posts)).emissions)


@systems
def test_what_maps_regions_into_the_encoder_learns_as_the_projection(system: str) -> None:
    groups = tiny(system).system.parameter_groups()
    assert groups.keys() == {"head", "encoder", "projection", "visual"}
    # Whatever reads a visual token of d_v = 8 does so by a matrix of the projection.
    reading = [
        group
        for group, parameters in groups.items()
        for parameter in parameters
        if group != "visual" and parameter.ndim == 2 and parameter.shape[1] in (8, 8 + 8 * 256)
    ]
    assert reading == ["projection"]


def test_the_run_says_what_it_starts_from(bert: Path, tmp_path: Path) -> None:
    from rpbert.config.run import RunSettings
    from rpbert.synthetic.controlled import make
    from rpbert.training.train import train

    make(tmp_path / "made", posts=30, seed=0)
    run = RunSettings.model_validate(
        {
            "model": {
                "system": "uniter",
                "encoder": {"pretrained": str(bert)},
                "evidence": EVIDENCE["blocks"],
            },
            "data": {"path": tmp_path / "made"},
            "training": {"epochs": 1},
        }
    )
    result = train(run, tmp_path / "run")
    described = json.loads((result.model / "model.json").read_text())
    assert described["notes"]["initial_weights"] == f"text from {bert}, the rest random"
