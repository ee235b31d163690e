"""Published checkpoints: made ones with the authors' names, read as the authors' code reads them.

The names and shapes are those of the authors' code (`published_names.yaml` says where); the
published files themselves are not at hand. What a converted encoder computes is held against the
authors' equations written down over the published names.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
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
from rpbert.evidence.networks import published_network
from rpbert.integrations.convert import PUBLISHED, convert, translate
from rpbert.models.saved import TaggingModel
from rpbert.models.vision_language import initial
from rpbert.types import VisualTokens
from tests.conftest import made_posts, tiny
from tests.integrations.authors import (
    READERS,
    REGION,
    SMALL,
    Named,
    checkpoint,
    made,
    systems,
)
from tests.models.plain import assert_rows


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


def encoder_of(system: str, folder: Path, width: int = REGION) -> Any:
    settings = EncoderSettings(pretrained=str(folder))
    return initial(PUBLISHED[system].encoder, settings, SMALL["rows"], width).eval()


@systems
def test_a_converted_encoder_computes_what_the_authors_do(
    system: str, tokenizer: str, tmp_path: Path
) -> None:
    tensors = made(system, SMALL)
    content = {"state_dict": tensors, "optimizer": {"step": 7}} if system == "uniter" else tensors
    result = convert(system, saved(tmp_path, content), tmp_path / "out", tokenizer)
    encoder = encoder_of(system, tmp_path / "out")
    assert encoder.initial_weights == str(tmp_path / "out")
    assert result["filled"] == len(encoder.state_dict())
    assert result["filled"] + len(result["left_out"]) == len(
        tensors
    )  # every name is used or reported
    subwords, mask, seen = rows()
    with torch.no_grad():
        found = encoder(subwords, mask, seen)[0]
    assert_rows(found, READERS[system](Named(tensors), subwords[0], seen)[:6])


def test_a_system_starts_from_a_converted_folder_and_then_needs_it_no_more(
    tokenizer: str, tmp_path: Path
) -> None:
    folder, options = tmp_path / "out", {"pretrained": str(tmp_path / "out")}
    convert("uniter", saved(tmp_path, made("uniter", SMALL)), folder, tokenizer)
    with pytest.raises(InputError, match="visual tokens of size 5 for weights that read 8"):
        encoder_of("uniter", folder, width=5)
    with pytest.raises(InputError, match="weights of uniter"):
        encoder_of("vl_bert", folder)
    model = tiny("uniter", encoder=options)
    assert model.notes["initial_weights"] == str(folder)
    batch = model.collator()(made_posts())
    before = model.system(batch).emissions
    model.save(tmp_path / "model")
    weights = folder / "model.safetensors"
    for damage in (
        lambda: weights.write_bytes(weights.read_bytes()[:500]),
        weights.unlink,
        lambda: (folder / "converted.json").write_text("{}"),
    ):
        damage()
        with pytest.raises(InputError, match=r"model\.encoder\.pretrained"):
            tiny("uniter", encoder=options)
    shutil.rmtree(folder)
    again = TaggingModel.load(tmp_path / "model").system(batch).emissions
    assert before.isfinite().all()
    assert torch.equal(before, again)


@systems
def test_the_published_sizes_fit(system: str) -> None:
    """Names and shapes alone: nothing is allocated."""
    pieces = 28996 if system == "uniter" else 30522
    size = {"rows": pieces, "width": 768, "layers": 12, "inner": 3072, "positions": 512}
    published = checkpoint(system, size, 2048, image=1024, turns=6)
    tensors = {name: torch.empty(shape, device="meta") for name, shape in published.items()}
    if system == "vilbert":  # bert_base_6layer_6conect.json
        tensors |= {
            name: torch.empty(1024, 1024, device="meta")
            for name in tensors
            if ".v_intermediate.dense.weight" in name or ".v_output.dense.weight" in name
        }
    ours = translate(PUBLISHED[system], tensors, "checkpoint")
    assert ours.region_width == 2048
    with torch.device("meta"):
        default = PUBLISHED[system].encoder.random({}, 2048, pieces).state_dict()
    found = {name: tuple(tensor.shape) for name, tensor in ours.tensors.items()}
    assert found == {name: tuple(tensor.shape) for name, tensor in default.items()}


class Malicious:
    """What unpickling would run."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_a_malicious_pickle_is_refused_and_nothing_is_run(tokenizer: str, tmp_path: Path) -> None:
    mark = tmp_path / "was-run"
    path = saved(tmp_path, {**made("uniter", SMALL), "more": Malicious(mark)})
    with pytest.raises(InputError, match="more than tensors, nothing of it was run"):
        convert("uniter", path, tmp_path / "out", tokenizer)
    assert not mark.exists()
    assert not (tmp_path / "out").exists()
    torch.load(path, weights_only=False)  # the same file does run code where it is let
    assert mark.exists()


LAYER = "uniter.encoder.layer.1.output.dense.bias"
WHOLE = made("uniter", SMALL)


@pytest.mark.parametrize(
    ("system", "content", "fault"),
    [
        ("uniter", {k: v for k, v in WHOLE.items() if k != LAYER}, r"Missing .*dense\.bias"),
        ("uniter", {k: v for k, v in WHOLE.items() if "word_emb" not in k}, "unfilled: .*word_emb"),
        ("uniter", {**WHOLE, "adapter.1": WHOLE[LAYER]}, r"unknown names: adapter\.1"),
        ("uniter", {**WHOLE, LAYER: torch.zeros(3)}, r"size mismatch for .*dense\.bias.*\[3\]"),
        ("uniter", made("uniter", {**SMALL, "rows": 200}), "200 embeddings"),
        ("lxmert", WHOLE, r"checkpoint\.bin: found unknown names"),
        ("uniter", {"step": 7}, "no named tensors"),
        ("uniter", b"junk", r"checkpoint\.bin"),
        ("uniter", None, "no such file"),
        ("unicoder_vl", b"", "unicoder_vl"),
        ("oscar", b"", "one of uniter"),
    ],
)
def test_what_is_no_checkpoint_of_the_system_is_refused(
    system: str, content: Any, fault: str, tokenizer: str, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint.bin"
    if isinstance(content, dict):
        saved(tmp_path, content)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=fault):
        convert(system, path, tmp_path / "out", tokenizer)
    assert not (tmp_path / "out").exists()


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
        shape = LxmertConfig(visual_feat_dim=REGION, **layers, **fields)
        model = LxmertForPreTraining(shape).eval()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    result = convert(system, tmp_path, tmp_path / "out", tokenizer)
    assert all("encoder.layer" not in name for name in result["left_out"])
    encoder = encoder_of(system, tmp_path / "out")
    subwords, mask, seen = rows()
    with torch.no_grad():
        if system == "visualbert":
            expected = model.visual_bert(subwords, visual_embeds=seen.values).last_hidden_state
        else:
            expected = model.lxmert(subwords, seen.values, seen.boxes).language_output
        found = encoder(subwords, mask, seen)
    torch.testing.assert_close(found, expected[:, :6], atol=1e-5, rtol=1e-5)


class Block(nn.Module):
    """A block of torchvision's ResNet: He et al. 2016, with the stride in the 3 x 3 convolution."""

    def __init__(self, into: int, width: int, stride: int, deep: bool) -> None:
        super().__init__()
        out = 4 * width if deep else width
        sizes = [(into, width, 1), (width, width, 3), (width, out, 1)]
        for n, (i, o, k) in enumerate(sizes if deep else [(into, width, 3), (width, width, 3)], 1):
            step = stride if n == (2 if deep else 1) else 1
            setattr(self, f"conv{n}", nn.Conv2d(i, o, k, step, k // 2, bias=False))
            setattr(self, f"bn{n}", nn.BatchNorm2d(o))
        self.convolutions = 3 if deep else 2
        self.downsample = None
        if stride != 1 or into != out:
            shortcut = nn.Conv2d(into, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            self.downsample = nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        found = x
        for n in range(1, self.convolutions + 1):
            found = getattr(self, f"bn{n}")(getattr(self, f"conv{n}")(found))
            found = found.relu() if n < self.convolutions else found
        return (found + (x if self.downsample is None else self.downsample(x))).relu()


def torchvision_resnet(deep: bool) -> tuple[nn.Module, dict[str, Tensor]]:
    """A tiny ResNet with torchvision's names, with statistics as of a trained one."""
    stem = [nn.Conv2d(3, 16, 7, 2, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    model = nn.Sequential(*stem, nn.MaxPool2d(3, 2, 1))
    names, into = {0: "conv1", 1: "bn1"}, 16
    for number, (width, blocks) in enumerate(((8, 2), (12, 1), (16, 3), (20, 1)), 1):
        stage = []
        for n in range(blocks):
            stage.append(Block(into, width, 2 if number > 1 and n == 0 else 1, deep))
            into = 4 * width if deep else width
        names[len(model)] = f"layer{number}"
        model.append(nn.Sequential(*stage))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in module.state_dict().values():
                if tensor.is_floating_point():
                    nn.init.uniform_(tensor, 0.5, 1.5)
    state = {f"{names[int(n.split('.')[0])]}{n[1:]}": t for n, t in model.state_dict().items()}
    return model.eval(), {**state, "fc.weight": torch.zeros(9, into), "fc.bias": torch.zeros(9)}


@pytest.mark.parametrize("deep", [True, False], ids=["bottleneck", "basic"])
@pytest.mark.parametrize("counted", [True, False], ids=["new", "without batch counts"])
def test_a_resnet_of_torchvision_gives_the_same_blocks(
    deep: bool, counted: bool, tmp_path: Path
) -> None:
    model, tensors = torchvision_resnet(deep)
    published = {n: t for n, t in tensors.items() if counted or "num_batches" not in n}
    result = convert("resnet", saved(tmp_path, published), tmp_path / "out")
    assert result["left_out"] == ["fc.bias", "fc.weight"]
    network, preprocessing = published_network(tmp_path / "out", {"resampling": "bilinear"})
    assert (preprocessing.size, preprocessing.resampling) == (224, "bilinear")
    pixels = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        expected = model(pixels).flatten(2).transpose(1, 2)  # (I, 49, d_v)
        torch.testing.assert_close(network(pixels), expected, atol=1e-5, rtol=1e-5)
    assert expected.std() > 0.1
    evidence = tiny("rpbert", evidence={"blocks": {"pretrained": str(tmp_path / "out")}})
    assert evidence.system.evidence is not None
    assert evidence.system.evidence.width == expected.shape[2]


@pytest.mark.parametrize("fault", ["layer2.0.conv3.weight", "layer1.0.conv1.weight", "stem.weight"])
def test_another_resnet_is_refused(fault: str, tmp_path: Path) -> None:
    """One lacks a weight, one has a wider 3 x 3 (Wide ResNet), one another stem."""
    _, tensors = torchvision_resnet(True)
    if fault.startswith("layer2"):
        del tensors[fault]
    else:
        tensors[fault] = torch.zeros(9, 16, 1, 1)
    with pytest.raises(InputError, match=r"checkpoint\.bin"):
        convert("resnet", saved(tmp_path, tensors), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command(tokenizer: str, tmp_path: Path) -> None:
    path, folder = saved(tmp_path, made("vilbert", SMALL)), tmp_path / "out"
    arguments = ["convert", "vilbert", str(path), "--output", str(folder), "--tokenizer", tokenizer]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0
    assert "parameters filled, none missing" in shown.stdout
    assert "cls.predictions.bias" in shown.stdout
    as_json = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert "cls.predictions.bias" in as_json["left_out"]
    (folder / "converted.json").unlink()
    with pytest.raises(InputError, match="other things"):
        convert("vilbert", path, folder, tokenizer)
