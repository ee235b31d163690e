"""Published checkpoints: made ones with the authors' names, read as the authors' code reads them.

The names and shapes are those of the authors' code (`published_names` says where); the
published files themselves are not at hand. What a converted encoder computes is held against the
authors' equations written down over the published names.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import (
    LxmertConfig,
    LxmertForPreTraining,
    VisualBertConfig,
    VisualBertForPreTraining,
)
from typer.testing import CliRunner

from rpbert.cli import app
from rpbert.config.model import EncoderSettings
from rpbert.data.vocabulary import learn_wordpieces
from rpbert.errors import InputError
from rpbert.integrations.convert import convert, translate
from rpbert.integrations.published_names import PUBLISHED
from rpbert.models.saved import TaggingModel
from rpbert.models.vision_language import initial
from rpbert.types import VisualTokens
from tests.conftest import made_posts, tiny

Names = dict[str, tuple[int, ...]]
REGION = 8
SMALL = {"rows": 60, "width": 128, "layers": 3, "inner": 32, "positions": 20}
BASE = {"rows": 30522, "width": 768, "layers": 12, "inner": 3072, "positions": 512}


def pair(name: str, out: int, *into: int) -> Names:
    return {f"{name}.weight": (out, *into), f"{name}.bias": (out,)}


def layer(name: str, width: int, inner: int) -> Names:
    """A BERT layer's parameters, as every one of the authors' codes names them."""
    return {
        **pair(f"{name}.attention.self.query", width, width),
        **pair(f"{name}.attention.self.key", width, width),
        **pair(f"{name}.attention.self.value", width, width),
        **pair(f"{name}.attention.output.dense", width, width),
        **pair(f"{name}.attention.output.LayerNorm", width),
        **pair(f"{name}.intermediate.dense", inner, width),
        **pair(f"{name}.output.dense", width, inner),
        **pair(f"{name}.output.LayerNorm", width),
    }


def bert(prefix: str, size: dict[str, int], tables: str = "embeddings.", types: int = 2) -> Names:
    width = size["width"]
    names: Names = {
        f"{prefix}{tables}word_embeddings.weight": (size["rows"], width),
        f"{prefix}{tables}position_embeddings.weight": (size["positions"], width),
        f"{prefix}{tables}token_type_embeddings.weight": (types, width),
    }
    for number in range(size["layers"]):
        names |= layer(f"{prefix}encoder.layer.{number}", width, size["inner"])
    return names


def lm_head(name: str, size: dict[str, int]) -> Names:
    width = size["width"]
    return {
        f"{name}.bias": (size["rows"],),
        **pair(f"{name}.transform.dense", width, width),
        **pair(f"{name}.transform.LayerNorm", width),
        f"{name}.decoder.weight": (size["rows"], width),
    }


def uniter(size: dict[str, int], region: int = REGION) -> Names:
    """UniterForPretraining of ChenRocks/UNITER, model/pretrain.py."""
    width, images = size["width"], "uniter.img_embeddings."
    return {
        **bert("uniter.", size),
        **pair("uniter.embeddings.LayerNorm", width),
        **pair(f"{images}img_linear", width, region),
        **pair(f"{images}img_layer_norm", width),
        **pair(f"{images}pos_layer_norm", width),
        **pair(f"{images}pos_linear", width, 7),
        f"{images}mask_embedding.weight": (2, region),
        **pair(f"{images}LayerNorm", width),
        **pair("uniter.pooler.dense", width, width),
        **lm_head("cls.predictions", size),
        **pair("feat_regress.net.0", width, width),
        **pair("feat_regress.net.2", width),
        "feat_regress.weight": (width, region),
        "feat_regress.bias": (region,),
        **pair("region_classifier.net.0", width, width),
        **pair("region_classifier.net.2", width),
        **pair("region_classifier.net.3", 1601, width),
        **pair("itm_output", 2, width),
    }


def vl_bert(size: dict[str, int], region: int = REGION) -> Names:
    """ResNetVLBERTForPretrainingMultitask of jackroos/VL-BERT, with some of its detector."""
    width, detector = size["width"], "module.image_feature_extractor."
    return {
        **bert("module.vlbert.", size, tables="", types=3),
        **pair("module.vlbert.embedding_LayerNorm", width),
        "module.vlbert.end_embedding.weight": (1, width),
        **pair("module.vlbert.visual_ln_text", width),
        **pair("module.vlbert.visual_ln_object", width),
        **lm_head("module.vlbert.mlm_head.predictions", size),
        **pair("module.vlbert.mvrc_head.transform.dense", width, width),
        **pair("module.vlbert.mvrc_head.region_cls_pred", 1601, width),
        f"{detector}backbone.conv1.weight": (64, 3, 7, 7),
        f"{detector}roi_head_feature_extractor.0.conv1.weight": (512, 1024, 1, 1),
        f"{detector}head.0.0.conv1.weight": (512, 1024, 1, 1),
        **pair(f"{detector}obj_downsample.1", width, 2048 + region),
        "module.object_linguistic_embeddings.weight": (1, width),
        "module.object_mask_visual_embedding.weight": (1, 2048),
        "module.object_mask_word_embedding.weight": (1, width),
        "module.aux_text_visual_embedding.weight": (1, width),
    }


def vilbert(size: dict[str, int], region: int = REGION, image: int = 256, turns: int = 2) -> Names:
    """BertForMultiModalPreTraining of facebookresearch/vilbert-multi-task, vilbert/vilbert.py."""
    width, inner, both = size["width"], size["inner"], image
    names = {
        **bert("bert.", size),
        **pair("bert.embeddings.LayerNorm", width),
        **pair("bert.v_embeddings.image_embeddings", image, region),
        **pair("bert.v_embeddings.image_location_embeddings", image, 5),
        **pair("bert.v_embeddings.LayerNorm", image),
        **pair("bert.t_pooler.dense", both, width),
        **pair("bert.v_pooler.dense", both, image),
        **lm_head("cls.predictions", size),
        **pair("cls.bi_seq_relationship", 2, both),
        **pair("cls.imagePredictions.transform.dense", image, image),
        **pair("cls.imagePredictions.transform.LayerNorm", image),
        **pair("cls.imagePredictions.decoder", 1601, image),
    }
    for turn in range(turns):
        at = f"bert.encoder.c_layer.{turn}"
        names |= layer(f"bert.encoder.v_layer.{turn}", image, image)
        for number, stream, middle in ((1, image, image), (2, width, inner)):
            for role in ("query", "key", "value"):
                names |= pair(f"{at}.biattention.{role}{number}", both, stream)
            names |= pair(f"{at}.biOutput.dense{number}", stream, both)
            names |= pair(f"{at}.biOutput.LayerNorm{number}", stream)
            names |= pair(f"{at}.biOutput.q_dense{number}", stream, both)
            letter = "vt"[number - 1]
            names |= pair(f"{at}.{letter}_intermediate.dense", middle, stream)
            names |= pair(f"{at}.{letter}_output.dense", stream, middle)
            names |= pair(f"{at}.{letter}_output.LayerNorm", stream)
    return names


CHECKPOINTS = {"uniter": uniter, "vl_bert": vl_bert, "vilbert": vilbert}
systems = pytest.mark.parametrize("system", CHECKPOINTS)


def made(names: Names) -> dict[str, Tensor]:
    """Values that differ everywhere and are neither large nor small."""
    return {
        name: 0.1 * torch.randn(shape) + (1.0 if "orm" in name and "weight" in name else 0.0)
        for name, shape in names.items()
    }


@pytest.fixture
def tokenizer(tmp_path: Path) -> str:
    folder = tmp_path / "tokenizer"
    words = [[f"word{number}" for number in range(30)] * 2]
    learn_wordpieces(words, SMALL["rows"]).save_pretrained(folder)
    return str(folder)


def saved(folder: Path, content: Any) -> Path:
    path = folder / "checkpoint.bin"
    torch.save(content, path)
    return path


def rows() -> tuple[Tensor, Tensor, VisualTokens]:
    subwords = torch.randint(5, SMALL["rows"], (1, 6))
    corners = torch.rand(1, 4, 2, 2).sort(2).values.flatten(2)
    seen = VisualTokens(torch.randn(1, 4, REGION), torch.ones(1, 4, dtype=torch.bool), corners)
    return subwords, torch.ones_like(subwords, dtype=torch.bool), seen


class Reader:
    """The authors' functions over their own names."""

    def __init__(self, tensors: dict[str, Tensor], bert: str) -> None:
        self.tensors = tensors
        self.bert = bert

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"])

    def norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
        return F.layer_norm(x, weight.shape, weight, bias, 1e-12)

    def attention(self, query: Tensor, key: Tensor, value: Tensor, head: int) -> Tensor:
        found = []
        for start in range(0, query.shape[1], head):
            part = slice(start, start + head)
            scores = query[:, part] @ key[:, part].T / math.sqrt(head)
            found.append(scores.softmax(1) @ value[:, part])
        return torch.cat(found, dim=1)

    def feed_forward(self, inner: str, output: str, x: Tensor) -> Tensor:
        middle = F.gelu(self.linear(f"{inner}.dense", x))
        return self.norm(f"{output}.LayerNorm", self.linear(f"{output}.dense", middle) + x)

    def layer(self, name: str, x: Tensor, head: int = 64) -> Tensor:
        query, key, value = (
            self.linear(f"{name}.attention.self.{role}", x) for role in ("query", "key", "value")
        )
        found = self.attention(query, key, value, head)
        found = self.linear(f"{name}.attention.output.dense", found)
        x = self.norm(f"{name}.attention.output.LayerNorm", found + x)
        return self.feed_forward(f"{name}.intermediate", f"{name}.output", x)

    def text(self, subwords: Tensor, tables: str = "embeddings.") -> Tensor:
        at = f"{self.bert}{tables}"
        words = self.tensors[f"{at}word_embeddings.weight"][subwords]
        positions = self.tensors[f"{at}position_embeddings.weight"][: len(subwords)]
        return words + positions + self.tensors[f"{at}token_type_embeddings.weight"][0]

    def layers(self, x: Tensor, numbers: range) -> Tensor:
        for number in numbers:
            x = self.layer(f"{self.bert}encoder.layer.{number}", x)
        return x


def read_uniter(tensors: dict[str, Tensor], subwords: Tensor, seen: VisualTokens) -> Tensor:
    read, at = Reader(tensors, "uniter."), "uniter.img_embeddings."
    x0, y0, x1, y1 = seen.boxes[0].T
    place = torch.stack([x0, y0, x1, y1, x1 - x0, y1 - y0, (x1 - x0) * (y1 - y0)], dim=1)
    text = read.norm("uniter.embeddings.LayerNorm", read.text(subwords[0]))
    image = read.norm(f"{at}img_layer_norm", read.linear(f"{at}img_linear", seen.values[0]))
    image = image + read.norm(f"{at}pos_layer_norm", read.linear(f"{at}pos_linear", place))
    image = image + tensors["uniter.embeddings.token_type_embeddings.weight"][1]
    image = read.norm(f"{at}LayerNorm", image)
    return read.layers(torch.cat([text, image]), range(SMALL["layers"]))


def read_vl_bert(tensors: dict[str, Tensor], subwords: Tensor, seen: VisualTokens) -> Tensor:
    plain = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    read = Reader(plain, "vlbert.")
    features = torch.cat([seen.values[0].mean(0, keepdim=True), seen.values[0]])
    boxes = torch.cat([torch.tensor([[0.0, 0.0, 1.0, 1.0]]), seen.boxes[0]])
    x0, y0, x1, y1 = boxes.T
    place = 100 * torch.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], dim=1)
    angles = place[:, :, None] / 1000 ** (torch.arange(256) / 256)
    waves = torch.cat([angles.sin(), angles.cos()], dim=2).flatten(1)
    inputs = torch.cat([waves, features], dim=1)
    visual = F.relu(read.linear("image_feature_extractor.obj_downsample.1", inputs))
    text = read.text(subwords[0], "") + read.norm("vlbert.visual_ln_text", visual[:1])
    n = len(text)
    positions = plain["vlbert.position_embeddings.weight"]
    segment = plain["vlbert.token_type_embeddings.weight"][2]
    image = read.norm("vlbert.visual_ln_object", visual) + segment + positions[n]
    image = image + plain["object_linguistic_embeddings.weight"]
    end = plain["vlbert.end_embedding.weight"] + segment + positions[n + 1]
    sequence = read.norm("vlbert.embedding_LayerNorm", torch.cat([text, image, end]))
    return read.layers(sequence, range(SMALL["layers"]))


def read_vilbert(tensors: dict[str, Tensor], subwords: Tensor, seen: VisualTokens) -> Tensor:
    """Two of three text layers cross; 1 is the image, 2 the text."""
    read, at = Reader(tensors, "bert."), "bert.v_embeddings."
    features = torch.cat([seen.values[0].mean(0, keepdim=True), seen.values[0]])
    boxes = torch.cat([torch.tensor([[0.0, 0.0, 1.0, 1.0]]), seen.boxes[0]])
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    place = torch.cat([boxes, area[:, None]], dim=1)
    image = read.linear(f"{at}image_embeddings", features)
    image = read.norm(
        f"{at}LayerNorm", image + read.linear(f"{at}image_location_embeddings", place)
    )
    text = read.norm("bert.embeddings.LayerNorm", read.text(subwords[0]))
    text = read.layers(text, range(1))
    for turn in range(2):
        at = f"bert.encoder.c_layer.{turn}"
        roles = ("query", "key", "value")
        query1, key1, value1 = (read.linear(f"{at}.biattention.{r}1", image) for r in roles)
        query2, key2, value2 = (read.linear(f"{at}.biattention.{r}2", text) for r in roles)
        to_text = read.attention(query2, key1, value1, 128)
        to_image = read.attention(query1, key2, value2, 128)
        out = f"{at}.biOutput"
        image = read.norm(f"{out}.LayerNorm1", read.linear(f"{out}.dense1", to_image) + image)
        text = read.norm(f"{out}.LayerNorm2", read.linear(f"{out}.dense2", to_text) + text)
        image = read.feed_forward(f"{at}.v_intermediate", f"{at}.v_output", image)
        text = read.feed_forward(f"{at}.t_intermediate", f"{at}.t_output", text)
        image = read.layer(f"bert.encoder.v_layer.{turn}", image, head=128)
        text = read.layers(text, range(1 + turn, 2 + turn))
    return text


READERS = {"uniter": read_uniter, "vl_bert": read_vl_bert, "vilbert": read_vilbert}


def encoder_of(system: str, folder: Path, width: int = REGION) -> Any:
    settings = EncoderSettings(pretrained=str(folder))
    return initial(PUBLISHED[system].encoder, settings, SMALL["rows"], width).eval()


@systems
@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "beside an optimiser"])
def test_a_converted_encoder_computes_what_the_authors_do(
    system: str, wrapped: bool, tokenizer: str, tmp_path: Path
) -> None:
    tensors = made(CHECKPOINTS[system](SMALL))
    content = {"state_dict": tensors, "optimizer": {"step": 7}} if wrapped else tensors
    result = convert(system, saved(tmp_path, content), tmp_path / "out", tokenizer)
    encoder = encoder_of(system, tmp_path / "out")
    assert encoder.initial_weights == str(tmp_path / "out")
    assert result.filled == len(encoder.state_dict())
    assert result.filled + len(result.left_out) == len(tensors)  # every name is used or reported
    subwords, mask, seen = rows()
    with torch.no_grad():
        expected = READERS[system](tensors, subwords, seen)[:6]
        torch.testing.assert_close(encoder(subwords, mask, seen)[0], expected, atol=1e-5, rtol=1e-5)


@systems
def test_a_system_starts_from_a_converted_folder_and_then_needs_it_no_more(
    system: str, tokenizer: str, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    convert(system, saved(tmp_path, made(CHECKPOINTS[system](SMALL))), folder, tokenizer)
    model = tiny(system, encoder={"pretrained": str(folder)})
    assert model.notes["initial_weights"] == str(folder)
    batch = model.collator()(made_posts())
    before = model.system(batch).emissions
    model.save(tmp_path / "model")
    shutil.rmtree(folder)
    again = TaggingModel.load(tmp_path / "model").system(batch).emissions
    assert before.isfinite().all()
    assert torch.equal(before, again)


@systems
@pytest.mark.parametrize("damage", ["cut", "no weights", "no description"])
def test_a_damaged_folder_is_refused(
    system: str, damage: str, tokenizer: str, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    convert(system, saved(tmp_path, made(CHECKPOINTS[system](SMALL))), folder, tokenizer)
    weights = folder / "model.safetensors"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:500])
    elif damage == "no weights":
        weights.unlink()
    else:
        (folder / "converted.json").write_text("{}")
    with pytest.raises(InputError, match=r"model\.encoder\.pretrained"):
        tiny(system, encoder={"pretrained": str(folder)})


@systems
def test_the_published_sizes_fit(system: str) -> None:
    """Names and shapes alone: nothing is allocated."""
    published = {
        "uniter": lambda: uniter({**BASE, "rows": 28996}, 2048),
        "vl_bert": lambda: vl_bert(BASE, 2048),
        "vilbert": lambda: vilbert(BASE, 2048, image=1024, turns=6),
    }[system]()
    tensors = {name: torch.empty(shape, device="meta") for name, shape in published.items()}
    if system == "vilbert":  # bert_base_6layer_6conect.json
        tensors |= {
            name: torch.empty(1024, 1024, device="meta")
            for name in tensors
            if ".v_intermediate.dense.weight" in name or ".v_output.dense.weight" in name
        }
    ours = translate(PUBLISHED[system], tensors, "checkpoint")
    assert ours.region_width == 2048
    pieces = 28996 if system == "uniter" else 30522
    with torch.device("meta"):
        default = PUBLISHED[system].encoder.random({}, 2048, pieces).state_dict()
    found = {name: tuple(tensor.shape) for name, tensor in ours.tensors.items()}
    assert found == {name: tuple(tensor.shape) for name, tensor in default.items()}


@systems
@pytest.mark.parametrize("fault", ["unfilled", "unknown", "another shape"])
def test_a_checkpoint_that_does_not_fit_is_refused_with_every_name(
    system: str, fault: str, tokenizer: str, tmp_path: Path
) -> None:
    tensors = made(CHECKPOINTS[system](SMALL))
    layers = [name for name in tensors if name.endswith("encoder.layer.1.output.dense.bias")]
    if fault == "unfilled":
        for name in layers:
            del tensors[name]
    elif fault == "unknown":
        tensors["adapter.one"] = tensors["adapter.two"] = torch.zeros(3)
    else:
        for name in layers:
            tensors[name] = torch.zeros(3)
    with pytest.raises(InputError) as error:
        convert(system, saved(tmp_path, tensors), tmp_path / "out", tokenizer)
    expected = ["adapter.one", "adapter.two"] if fault == "unknown" else ["output.dense.bias"]
    assert all(name in str(error.value) for name in [fault, *expected])
    assert not (tmp_path / "out").exists()


def test_the_checkpoint_of_another_system_is_refused(tokenizer: str, tmp_path: Path) -> None:
    path = saved(tmp_path, made(uniter(SMALL)))
    for system in ("vl_bert", "vilbert", "visualbert", "lxmert"):
        with pytest.raises(InputError, match=r"checkpoint\.bin"):
            convert(system, path, tmp_path / "out", tokenizer)


class Malicious:
    """What unpickling would run."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("new_format", [True, False], ids=["zip", "old"])
def test_a_malicious_pickle_is_refused_and_nothing_is_run(
    new_format: bool, tokenizer: str, tmp_path: Path
) -> None:
    path, mark = tmp_path / "checkpoint.bin", tmp_path / "was-run"
    content = {**made(uniter(SMALL)), "more": Malicious(mark)}
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    with pytest.raises(InputError, match="more than tensors, nothing of it was run"):
        convert("uniter", path, tmp_path / "out", tokenizer)
    assert not mark.exists()
    assert not (tmp_path / "out").exists()
    torch.load(path, weights_only=False)  # the same file does run code where it is let
    assert mark.exists()


@pytest.mark.parametrize(
    ("system", "content", "fault"),
    [
        *[
            ("uniter", content, r"checkpoint\.bin")
            for content in (b"", b"junk", b"PK\x03\x04 half")
        ],
        ("uniter", None, "no such file"),
        ("unicoder_vl", b"", "unicoder_vl"),
        ("oscar", b"", "one of uniter"),
    ],
)
def test_what_is_no_checkpoint_is_refused(
    system: str, content: bytes | None, fault: str, tokenizer: str, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint.bin"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=fault):
        convert(system, path, tmp_path / "out", tokenizer)


def test_a_tokenizer_of_another_model_is_refused(tokenizer: str, tmp_path: Path) -> None:
    path = saved(tmp_path, made(uniter({**SMALL, "rows": 200})))
    with pytest.raises(InputError, match="200 embeddings"):
        convert("uniter", path, tmp_path / "out", tokenizer)


def test_evidence_of_another_size_is_refused(tokenizer: str, tmp_path: Path) -> None:
    convert("uniter", saved(tmp_path, made(uniter(SMALL))), tmp_path / "out", tokenizer)
    with pytest.raises(InputError, match="visual tokens of size 5 for weights that read 8"):
        encoder_of("uniter", tmp_path / "out", width=5)
    with pytest.raises(InputError, match="weights of uniter"):
        encoder_of("vl_bert", tmp_path / "out")


@pytest.mark.parametrize("system", ["visualbert", "lxmert"])
def test_pickles_of_transformers_are_converted(system: str, tokenizer: str, tmp_path: Path) -> None:
    fields: dict[str, Any] = {
        "vocab_size": SMALL["rows"], "hidden_size": 128, "num_attention_heads": 2,
        "intermediate_size": 32, "initializer_range": 0.3,
    }  # fmt: skip
    if system == "visualbert":
        config = VisualBertConfig(num_hidden_layers=2, visual_embedding_dim=REGION, **fields)
        model: Any = VisualBertForPreTraining(config).eval()
    else:
        layers = {"l_layers": 2, "x_layers": 2, "r_layers": 1}
        model = LxmertForPreTraining(
            LxmertConfig(visual_feat_dim=REGION, **layers, **fields)
        ).eval()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    result = convert(system, tmp_path, tmp_path / "out", tokenizer)
    assert all("encoder.layer" not in name for name in result.left_out)
    encoder = encoder_of(system, tmp_path / "out")
    subwords, mask, seen = rows()
    with torch.no_grad():
        if system == "visualbert":
            expected = model.visual_bert(subwords, visual_embeds=seen.values).last_hidden_state
        else:
            expected = model.lxmert(subwords, seen.values, seen.boxes).language_output
        found = encoder(subwords, mask, seen)
    torch.testing.assert_close(found, expected[:, :6], atol=1e-5, rtol=1e-5)


def test_the_command(tokenizer: str, tmp_path: Path) -> None:
    path, folder = saved(tmp_path, made(vilbert(SMALL))), tmp_path / "out"
    arguments = ["convert", "vilbert", str(path), "--output", str(folder), "--tokenizer", tokenizer]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0
    assert "parameters filled, none missing" in shown.stdout
    assert "cls.predictions.bias" in shown.stdout
    as_json = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert as_json["system"] == "vilbert"
    assert "cls.predictions.bias" in as_json["left_out"]
    (folder / "converted.json").unlink()
    with pytest.raises(InputError, match="other things"):
        convert("vilbert", path, folder, tokenizer)
