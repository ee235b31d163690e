"""What the vision-and-language systems start from, and that they say so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

from rpbert.data.vocabulary import learn_wordpieces
from rpbert.errors import InputError
from rpbert.models.saved import TaggingModel
from tests import families
from tests.conftest import made_posts, tiny

SYSTEMS = ["visualbert", "unicoder_vl", "uniter", "vl_bert", "vilbert", "lxmert"]
SHAPE: dict[str, Any] = {**families.SHAPE, "num_hidden_layers": 6, "initializer_range": 0.2}
PIECES = learn_wordpieces((post.words for post in made_posts()), 200)


def saved(network: Any, folder: Path) -> Path:
    """The folder of a published model with its tokenizer."""
    network.save_pretrained(folder)
    PIECES.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain BERT, as MiniLM is one."""
    config = BertConfig(vocab_size=len(PIECES), **SHAPE)
    return saved(BertModel(config), tmp_path_factory.mktemp("bert"))


@pytest.mark.parametrize("system", SYSTEMS)
def test_all_of_a_plain_bert_is_in_it_and_the_model_says_so(
    system: str, bert: Path, tmp_path: Path
) -> None:
    model = tiny(system, encoder={"pretrained": str(bert)})
    encoder: Any = model.system.encoder
    held = encoder.state_dict().values()
    given = BertModel.from_pretrained(bert, add_pooling_layer=False).state_dict()
    for name, tensor in given.items():
        same = (value for value in held if value.shape[1:] == tensor.shape[1:])
        assert any(torch.equal(value[: len(tensor)], tensor) for value in same), name
    model.save(tmp_path / "model")
    notes = TaggingModel.load(tmp_path / "model").notes
    assert notes["initial_weights"] == f"text from {bert}, the rest random"
    assert tiny(system).notes["initial_weights"] == "random"
    if system == "lxmert":
        assert encoder.shape["x_layers"] == 2  # 6 layers in 9 : 5
    if system == "vilbert":
        assert encoder.shape["co_layers"] == 3  # half of them


@pytest.mark.parametrize("system", ["uniter", "lxmert"])
def test_weights_of_another_kind_are_refused(system: str, tmp_path: Path) -> None:
    fields = {key: value for key, value in SHAPE.items() if key != "initializer_range"}
    saved(RobertaModel(RobertaConfig(vocab_size=200, **fields)), tmp_path)
    for folder, words in ((tmp_path, "type roberta"), (tmp_path / "absent", "")):
        with pytest.raises(InputError, match=rf"model\.encoder\.pretrained.*{words}"):
            tiny(system, encoder={"pretrained": str(folder)})


@pytest.mark.parametrize(
    ("system", "change"),
    [
        *((s, {"hiden_size": 16}) for s in SYSTEMS),
        ("uniter", {"num_hidden_layers": 0}),
        ("vilbert", {"bi_num_attention_heads": 3}),
        *(("vilbert", {"co_layers": layers}) for layers in (0, 7)),
        *(("lxmert", {"x_layers": layers}) for layers in (0, 7)),
    ],
)
def test_a_shape_that_makes_no_network_is_refused(system: str, change: dict[str, int]) -> None:
    with pytest.raises(InputError, match=r"model\.encoder\.shape"):
        tiny(system, encoder={"shape": {**SHAPE, **change}})
