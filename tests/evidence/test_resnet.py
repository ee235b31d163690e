"""ResNet blocks against transformers' own ResNetModel, a plain loop and published sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, ResNetConfig, ResNetForImageClassification
from transformers import ResNetModel as OracleModel

from rpbert.errors import InputError
from rpbert.evidence.resnet import (
    RESNET_SHAPES,
    ResNetBlocks,
    frozen_statistics,
    trained_statistics,
)

TINY: list[dict[str, Any]] = [
    {"layer_type": "basic", "depths": [1, 1], "hidden_sizes": [8, 12], "embedding_size": 8},
    {"layer_type": "bottleneck", "depths": [1, 2], "hidden_sizes": [8, 16], "embedding_size": 4},
    {
        "layer_type": "bottleneck",
        "depths": [1, 1, 1],
        "hidden_sizes": [8, 16, 24],
        "embedding_size": 4,
        "downsample_in_first_stage": True,
        "downsample_in_bottleneck": True,
    },
]


def pixels(images: int, size: int) -> Tensor:
    return torch.randn(images, 3, size, size, generator=torch.Generator().manual_seed(0))


def made(shape: dict[str, Any], size: int, **options: Any) -> ResNetBlocks:
    """A network whose running statistics are not the trivial ones."""
    torch.manual_seed(0)
    blocks = ResNetBlocks.from_config(shape, size, **options)
    for module in blocks.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return blocks.eval()


@pytest.mark.parametrize("shape", TINY)
@pytest.mark.parametrize("size", [33, 47, 64])
def test_blocks_are_the_last_feature_map_row_by_row(shape: dict[str, Any], size: int) -> None:
    blocks = made(shape, size)
    oracle = OracleModel(ResNetConfig(**shape)).eval()
    oracle.load_state_dict(blocks.resnet.state_dict())
    with torch.no_grad():
        got = blocks(pixels(2, size))
        features = oracle(pixels(2, size)).last_hidden_state  # (I, d_v, rows, columns)
    images, width, rows, columns = features.shape
    assert got.shape == (images, rows * columns, width) == (2, blocks.tokens, blocks.width)
    assert rows > 1
    for image in range(images):
        for i in range(rows):
            for j in range(columns):
                torch.testing.assert_close(
                    got[image, i * columns + j], features[image, :, i, j], atol=1e-5, rtol=1e-5
                )


@pytest.mark.parametrize("narrowest", [4, 8, 12, 16, 32])
def test_gradients_are_transformers_own_at_any_width(narrowest: int) -> None:
    """With two threads, where a narrow strided convolution of oneDNN leaves its memory."""
    shape = {
        "layer_type": "basic",
        "depths": [1, 1],
        "hidden_sizes": [narrowest, 2 * narrowest],
        "embedding_size": narrowest,
    }
    blocks = ResNetBlocks.from_config(shape, 64)
    oracle = OracleModel(ResNetConfig(**shape)).double()
    oracle.load_state_dict(blocks.resnet.state_dict())
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for images in (5, 4, 3):
            blocks.zero_grad()
            oracle.zero_grad()
            blocks(pixels(images, 64)).square().mean().backward()
            found = oracle(pixels(images, 64).double()).last_hidden_state
            found.square().mean().backward()
            expected = dict(oracle.named_parameters())
            for name, parameter in blocks.resnet.named_parameters():
                gradient = expected[name].grad
                assert parameter.grad is not None
                assert gradient is not None
                scale = float(gradient.abs().max())
                torch.testing.assert_close(
                    parameter.grad.double(), gradient, atol=1e-4 * max(scale, 1e-3), rtol=1e-3
                )
    finally:
        torch.set_num_threads(threads)


def test_row_and_column_are_not_exchanged() -> None:
    blocks = made(TINY[0], 64)
    image = torch.zeros(1, 3, 64, 64)
    bright = image.clone()
    bright[:, :, 48:, :16] = 5.0  # the lower left corner
    with torch.no_grad():
        change = (blocks(bright) - blocks(image)).abs().sum(-1).view(8, 8)
    assert change[4:, :4].sum() > 10 * change[:4, 4:].sum()
    assert change[4:, :4].sum() > change.sum() / 2


@pytest.mark.parametrize(("name", "width"), [("resnet-18", 512), ("resnet-50", 2048)])
def test_a_published_shape_gives_49_blocks(name: str, width: int) -> None:
    blocks = ResNetBlocks.from_config(RESNET_SHAPES[name]).eval()
    assert (blocks.tokens, blocks.width) == (49, width)
    with torch.no_grad():
        assert blocks(pixels(1, 224)).shape == (1, 49, width)


@pytest.mark.parametrize(
    ("name", "published", "classifier"),
    [  # as torchvision documents its models; the last layer, 1000 classes, is not part of ours
        ("resnet-18", 11_689_512, 513_000),
        ("resnet-34", 21_797_672, 513_000),
        ("resnet-50", 25_557_032, 2_049_000),
        ("resnet-101", 44_549_160, 2_049_000),
        ("resnet-152", 60_192_808, 2_049_000),
    ],
)
def test_parameter_counts_are_the_published_ones(
    name: str, published: int, classifier: int
) -> None:
    with torch.device("meta"):
        blocks = ResNetBlocks.from_config(RESNET_SHAPES[name])
    assert sum(p.numel() for p in blocks.parameters()) == published - classifier


def test_no_image_leaves_the_network_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = made(TINY[0], 32)

    def explode(*_: object) -> None:
        raise AssertionError("ran")

    monkeypatch.setattr(blocks.resnet, "forward", explode)
    assert blocks(torch.zeros(0, 3, 32, 32)).shape == (0, 16, 12)
    with pytest.raises(AssertionError, match="ran"):
        blocks(pixels(1, 32))


@pytest.mark.parametrize("shape", [(1, 3, 32, 33), (1, 1, 32, 32), (3, 32, 32), (0, 3, 1, 1)])
def test_pixels_of_another_size_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="pixels"):
        made(TINY[0], 32)(torch.zeros(shape))


def test_frozen_statistics_stay_and_posts_do_not_meet() -> None:
    blocks = made(TINY[0], 32, statistics=frozen_statistics)
    blocks.train()
    before = {key: value.clone() for key, value in blocks.state_dict().items()}
    batch = blocks(pixels(4, 32))
    for key, value in blocks.state_dict().items():
        assert torch.equal(value, before[key])
    single = torch.cat([blocks(one[None]) for one in pixels(4, 32)])
    torch.testing.assert_close(batch, single, atol=1e-5, rtol=1e-5)
    assert blocks.resnet.training
    batch.sum().backward()
    for name, parameter in blocks.named_parameters():  # scale and shift learn as well
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_trained_statistics_follow_the_images_in_training_only() -> None:
    blocks = made(TINY[0], 32, statistics=trained_statistics)
    statistics = blocks.resnet.embedder.embedder.normalization
    before = statistics.running_mean.clone()
    batch = blocks(pixels(4, 32))
    single = torch.cat([blocks(one[None]) for one in pixels(4, 32)])
    torch.testing.assert_close(batch, single, atol=1e-5, rtol=1e-5)
    assert torch.equal(statistics.running_mean, before)
    blocks.train()(pixels(4, 32))
    assert not torch.equal(statistics.running_mean, before)


def test_the_policy_survives_the_training_loop() -> None:
    outer = nn.Sequential(made(TINY[0], 32, statistics=frozen_statistics))
    outer.train().eval()
    outer.train()
    norms = [module for module in outer.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)


def test_pretrained_weights_arrive_with_frozen_statistics(tmp_path: Path) -> None:
    torch.manual_seed(0)
    published = ResNetForImageClassification(ResNetConfig(**TINY[1])).eval()
    published.save_pretrained(tmp_path)
    blocks = ResNetBlocks.from_pretrained(tmp_path, image_size=32).train()
    with torch.no_grad():
        expected = published.resnet(pixels(1, 32)).last_hidden_state.flatten(2).mT
        torch.testing.assert_close(blocks(pixels(1, 32)), expected, atol=1e-5, rtol=1e-5)


def test_from_scratch_statistics_are_trained() -> None:
    assert ResNetBlocks.from_config(TINY[0], 32).statistics is trained_statistics


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    network = OracleModel(ResNetConfig(**TINY[0]))
    network.config.save_pretrained(tmp_path)
    torch.save(network.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="safetensors"):
        ResNetBlocks.from_pretrained(tmp_path)


def test_what_is_no_resnet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gone"):
        ResNetBlocks.from_pretrained(tmp_path / "gone")
    bert = BertModel(
        BertConfig(
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            intermediate_size=8,
            vocab_size=9,
        )
    )
    bert.save_pretrained(tmp_path / "bert")
    with pytest.raises(InputError, match="type bert"):
        ResNetBlocks.from_pretrained(tmp_path / "bert")
    bert.save_pretrained(tmp_path / "mixed")
    ResNetConfig(**TINY[0]).save_pretrained(tmp_path / "mixed")
    with pytest.raises(InputError, match="no weights"):
        ResNetBlocks.from_pretrained(tmp_path / "mixed")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"depth": [1, 1]}, "depth"),
        ({"layer_type": "round"}, "round"),
        ({"depths": "deep"}, "depths"),
        ({"depths": [1, 1, 1]}, "3 depths and 2 hidden_sizes"),
    ],
)
def test_a_wrong_shape_is_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        ResNetBlocks.from_config({**TINY[0], **change})


def test_a_whole_configuration_builds_the_network_again() -> None:
    blocks = made(TINY[2], 32)
    again = ResNetBlocks.from_config(blocks.resnet.config.to_dict(), 32).eval()
    again.load_state_dict(blocks.state_dict())
    with torch.no_grad():
        assert torch.equal(again(pixels(1, 32)), blocks(pixels(1, 32)))
