"""Image networks against transformers' own outputs and preprocessing, and published sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetForImageClassification, ResNetModel

from rpbert.data.images import Preprocessing
from rpbert.errors import InputError
from rpbert.evidence.networks import (
    RESNET_SHAPES,
    ResNetBlocks,
    published_network,
    random_network,
)
from rpbert.models.saved import TaggingModel
from tests.conftest import FAMILIES, RESNET, SEEING, made_posts, tiny

PREFIX = {"vit": 1, "dinov2": 1, "dinov2_with_registers": 4, "clip_vision_model": 1}
"""Tokens that stand for no patch: [CLS] and registers."""
RESNETS: list[dict[str, Any]] = [
    {"layer_type": "basic", "depths": [1, 1], "hidden_sizes": [8, 12], "embedding_size": 8},
    {"layer_type": "bottleneck", "depths": [1, 2], "hidden_sizes": [8, 16], "embedding_size": 4},
    {"layer_type": "bottleneck", "depths": [1, 1, 1], "hidden_sizes": [8, 16, 24],
     "embedding_size": 4, "downsample_in_first_stage": True, "downsample_in_bottleneck": True},
]  # fmt: skip


def pixels(images: int, size: int) -> Tensor:
    return torch.randn(images, 3, size, size, generator=torch.Generator().manual_seed(0))


def resnet(shape: dict[str, Any], size: int) -> ResNetBlocks:
    """A network whose running statistics are not the trivial ones."""
    blocks: Any = random_network(shape, {"size": size})[0]
    for module in blocks.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    found: ResNetBlocks = blocks.eval()
    return found


def network_of(family: str, folder: Path | None = None, **changes: Any) -> Any:
    """A whole network of transformers with random weights, saved to a folder."""
    config = transformers.AutoConfig.for_model(family, **{**FAMILIES[family], **changes})
    network = transformers.AutoModel.from_config(config).eval()
    if folder is not None:
        network.save_pretrained(folder)
    return network


def last(network: Any, images: Tensor, **options: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = network(images, **options).last_hidden_state
    return found


def assert_row_by_row(blocks: Any, found: Tensor, expected: Tensor, prefix: int = 0) -> None:
    """Token ``i * columns + j`` is the feature map at (i, j), or a patch after `prefix`."""
    assert found.shape == (len(expected), blocks.tokens, blocks.width)
    assert blocks.tokens == blocks.side**2 > 1
    for token in range(blocks.tokens):
        i, j = divmod(token, blocks.side)
        own = expected[:, :, i, j] if expected.ndim == 4 else expected[:, prefix + token]
        torch.testing.assert_close(found[:, token], own, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", RESNETS)
@pytest.mark.parametrize("size", [47, 64])
def test_blocks_of_a_resnet_are_its_last_feature_map(shape: dict[str, Any], size: int) -> None:
    blocks = resnet(shape, size)
    oracle = ResNetModel(ResNetConfig(**shape)).eval()
    oracle.load_state_dict(blocks.resnet.state_dict())
    with torch.no_grad():
        found = blocks(pixels(2, size))
    assert_row_by_row(blocks, found, last(oracle, pixels(2, size)))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [32, 48])  # at another size positions are interpolated
def test_blocks_are_transformers_feature_map_or_patches(
    family: str, size: int, tmp_path: Path
) -> None:
    oracle = network_of(family, tmp_path)
    blocks, preprocessing = published_network(tmp_path, {"size": size})
    assert preprocessing.size == size
    asks = family in ("vit", "clip_vision_model", "siglip_vision_model")
    options = {"interpolate_pos_encoding": True} if asks else {}
    expected = last(oracle, pixels(3, size), **options)
    with torch.no_grad():
        found = blocks.eval()(pixels(3, size))
    assert_row_by_row(blocks, found, expected, PREFIX.get(family, 0))


@pytest.mark.parametrize("narrowest", [4, 16])
def test_gradients_are_transformers_own_at_any_width(narrowest: int) -> None:
    """With two threads, where a narrow strided convolution of oneDNN leaves its memory."""
    sizes = {"hidden_sizes": [narrowest, 2 * narrowest], "embedding_size": narrowest}
    shape = {**RESNETS[0], **sizes}
    blocks: Any = random_network(shape, {"size": 64})[0]
    oracle = ResNetModel(ResNetConfig(**shape)).double()
    oracle.load_state_dict(blocks.resnet.state_dict())
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        blocks(pixels(5, 64)).square().mean().backward()
    finally:
        torch.set_num_threads(threads)
    oracle(pixels(5, 64).double()).last_hidden_state.square().mean().backward()
    for name, parameter in oracle.named_parameters():
        gradient: Any = parameter.grad
        bound = 1e-4 * max(float(gradient.abs().max()), 1e-3)
        found = blocks.resnet.get_parameter(name).grad.double()
        torch.testing.assert_close(found, gradient, atol=bound, rtol=1e-3)


def test_published_shapes_have_their_sizes() -> None:
    """As torchvision documents its models; the last layer, 1000 classes, is not part of ours."""
    published = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032, 101: 44_549_160, 152: 60_192_808}
    for depth, parameters in published.items():
        with torch.device("meta"):
            blocks, _ = random_network(RESNET_SHAPES[f"resnet-{depth}"], {})
        classifier = 513_000 if depth < 50 else 2_049_000
        assert sum(p.numel() for p in blocks.parameters()) == parameters - classifier
        assert blocks.tokens == 49


@pytest.mark.parametrize("frozen", [True, False])
def test_statistics_follow_the_images_in_training_alone_and_never_when_frozen(frozen: bool) -> None:
    blocks = resnet(RESNETS[0], 32)
    if frozen:
        blocks.freeze()
        nn.Sequential(blocks).train().eval().train()
    before = {key: value.clone() for key, value in blocks.state_dict().items()}
    batch = blocks(pixels(4, 32))
    single = torch.cat([blocks(one[None]) for one in pixels(4, 32)])
    torch.testing.assert_close(batch, single, atol=1e-5, rtol=1e-5)  # posts do not meet
    assert all(torch.equal(value, before[key]) for key, value in blocks.state_dict().items())
    batch.sum().backward()
    for name, parameter in blocks.named_parameters():  # scale and shift learn as well
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    blocks.train()(pixels(4, 32))
    mean = "resnet.embedder.embedder.normalization.running_mean"
    assert torch.equal(blocks.state_dict()[mean], before[mean]) == frozen


def test_published_weights_arrive_with_frozen_statistics(tmp_path: Path) -> None:
    published = ResNetForImageClassification(ResNetConfig(**RESNETS[1])).eval()
    published.save_pretrained(tmp_path)
    blocks, preprocessing = published_network(tmp_path, {"size": 32})
    expected = last(published.resnet, pixels(1, 32)).flatten(2).mT
    torch.testing.assert_close(blocks.train()(pixels(1, 32)), expected, atol=1e-5, rtol=1e-5)
    assert preprocessing == Preprocessing(32)


@pytest.mark.parametrize("whole", [transformers.CLIPModel, transformers.SiglipModel])
def test_of_a_model_of_text_and_images_the_part_that_sees_is_taken(
    whole: Any, tmp_path: Path
) -> None:
    text = {**SEEING, "vocab_size": 99}
    model = whole(whole.config_class(text_config=text, vision_config=SEEING)).eval()
    model.save_pretrained(tmp_path)
    blocks, _ = published_network(tmp_path, {})
    with torch.no_grad():
        found = blocks.eval()(pixels(2, 32))
    torch.testing.assert_close(found, last(model.vision_model, pixels(2, 32))[:, -4:])


def test_weights_come_with_their_own_preprocessing(tmp_path: Path) -> None:
    network_of("vit", tmp_path, image_size=64)
    half, mean, std = (0.5,) * 3, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    assert published_network(tmp_path, {})[1] == Preprocessing(64, half, half, "bilinear")
    sizes = {"crop_size": {"height": 48, "width": 48}, "size": {"shortest_edge": 55}}
    for crop, size in ((True, 48), (False, 55)):
        given = {**sizes, "do_center_crop": crop, "image_mean": mean, "image_std": std}
        (tmp_path / "preprocessor_config.json").write_text(json.dumps({**given, "resample": 1}))
        own = Preprocessing(size, mean, std, "lanczos")
        assert published_network(tmp_path, {})[1] == own
    chosen = published_network(tmp_path, {"size": 32, "mean": (0.0,) * 3})[1]
    assert chosen == Preprocessing(32, (0.0,) * 3, std, "lanczos")


@pytest.mark.parametrize("std", ["std", "deviation"])
def test_a_saved_model_keeps_how_its_images_are_prepared(std: str, tmp_path: Path) -> None:
    network_of("vit", tmp_path / "vit")
    given = {"image_mean": [0.1, 0.2, 0.3], "resample": 0, "size": 48}
    (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps(given))
    blocks = {"pretrained": str(tmp_path / "vit"), std: [0.3, 0.4, 0.5]}
    model = tiny("rpbert", evidence={"blocks": blocks})
    model.save(tmp_path / "model")
    loaded = TaggingModel.load(tmp_path / "model")
    kept = [m.collator().evidence.preprocessing for m in (model, loaded)]
    assert kept == [Preprocessing(48, (0.1, 0.2, 0.3), (0.3, 0.4, 0.5), "nearest")] * 2
    before, after = (m.system(m.collator()(made_posts())).emissions for m in (model, loaded))
    assert torch.equal(before, after)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ({"model_type": "bert"}, "model_type bert; expected one of resnet, convnext"),
        ({"model_type": "vit", **SEEING, "patch_size": 64}, "image_size"),
        ({**RESNET, "depth": [1, 1]}, "depth"),
        ({**RESNET, "depths": [1, 1, 1]}, "3 depths and 2 hidden_sizes"),
    ],
)
def test_what_is_no_image_network_is_refused(shape: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        tiny("rpbert", evidence={"blocks": {"shape": shape}})


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    config = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 9}
    bert = transformers.BertModel(transformers.BertConfig(**config))
    bert.save_pretrained(tmp_path)
    for words in ("model_type bert", "no weights"):
        with pytest.raises(InputError, match=rf"model\.evidence\.blocks\.pretrained: .*{words}"):
            tiny("rpbert", evidence={"blocks": {"pretrained": str(tmp_path)}})
        ResNetConfig(**RESNETS[0]).save_pretrained(tmp_path)
