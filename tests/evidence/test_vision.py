"""Image networks against transformers' own outputs, patch by patch, and their own preprocessing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch import Tensor

from rpbert.data.images import DEVIATION, MEAN, Preprocessing, load_image, normalise_batch
from rpbert.errors import InputError
from rpbert.evidence.vision import VisionBlocks, published_network, random_network
from rpbert.models.saved import TaggingModel
from tests.conftest import FAMILIES, RESNET, SEEING, made_posts, picture, tiny

PREFIX = {"vit": 1, "dinov2": 1, "dinov2_with_registers": 4, "clip_vision_model": 1}
"""Tokens that stand for no patch: [CLS] and registers."""
CLASSES: dict[str, str] = {
    "convnext": "ConvNextModel",
    "convnextv2": "ConvNextV2Model",
    "vit": "ViTModel",
    "dinov2": "Dinov2Model",
    "dinov2_with_registers": "Dinov2WithRegistersModel",
    "clip_vision_model": "CLIPVisionModel",
    "siglip_vision_model": "SiglipVisionModel",
}


def network_of(family: str, folder: Path | None = None, **changes: Any) -> Any:
    """A whole network of transformers with random weights, saved to a folder."""
    kind = getattr(transformers, CLASSES[family])
    network = kind(kind.config_class(**{**FAMILIES[family], **changes})).eval()
    if folder is not None:
        network.save_pretrained(folder)
    return network


def last(network: Any, pixels: Tensor, **options: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = network(pixels, **options).last_hidden_state
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_are_transformers_feature_map_or_patches(family: str, tmp_path: Path) -> None:
    oracle = network_of(family, tmp_path)
    blocks, preprocessing = published_network(tmp_path, {"size": 32})
    assert preprocessing.size == 32
    pixels = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        found = blocks.eval()(pixels)
    expected = last(oracle, pixels)
    assert found.shape == (3, blocks.tokens, blocks.width)
    assert blocks.tokens == blocks.side**2
    for row in range(blocks.side):
        for column in range(blocks.side):
            token = row * blocks.side + column
            own = (
                expected[:, :, row, column]
                if expected.ndim == 4
                else expected[:, PREFIX.get(family, 0) + token]
            )
            torch.testing.assert_close(found[:, token], own, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["vit", "dinov2", "clip_vision_model", "siglip_vision_model"])
def test_positions_are_interpolated_for_images_of_another_size(family: str) -> None:
    blocks, _ = random_network({"model_type": family, **FAMILIES[family]}, {"size": 48})
    oracle = network_of(family)
    oracle.load_state_dict(blocks.get_submodule("network").state_dict(), strict=False)
    pixels = torch.randn(2, 3, 48, 48)
    options = {} if family == "dinov2" else {"interpolate_pos_encoding": True}
    expected = last(oracle, pixels, **options)
    with torch.no_grad():
        found = blocks.eval()(pixels)
    torch.testing.assert_close(found, expected[:, PREFIX.get(family, 0) :], atol=1e-5, rtol=1e-5)
    assert found.shape[1] == 9


@pytest.mark.parametrize(
    ("whole", "text"),
    [
        (transformers.CLIPModel, {"num_hidden_layers": 1, "hidden_size": 16}),
        (transformers.SiglipModel, {"num_hidden_layers": 1, "hidden_size": 16}),
    ],
)
def test_of_a_model_of_text_and_images_the_part_that_sees_is_taken(
    whole: Any, text: dict[str, Any], tmp_path: Path
) -> None:
    text = {**text, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 99}
    model = whole(whole.config_class(text_config=text, vision_config=SEEING)).eval()
    model.save_pretrained(tmp_path)
    blocks, _ = published_network(tmp_path, {})
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        found = blocks.eval()(pixels)
    torch.testing.assert_close(found, last(model.vision_model, pixels)[:, -4:])


def test_weights_come_with_their_own_preprocessing(tmp_path: Path) -> None:
    network_of("vit", tmp_path, image_size=64)
    assert published_network(tmp_path, {})[1] == Preprocessing(
        64, (0.5,) * 3, (0.5,) * 3, "bilinear"
    )
    given = {
        "do_center_crop": True,
        "crop_size": {"height": 48, "width": 48},
        "size": {"shortest_edge": 55},
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.4, 0.5, 0.6],
        "resample": 1,
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(given))
    own = Preprocessing(48, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "lanczos")
    assert published_network(tmp_path, {})[1] == own
    given["do_center_crop"] = False
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(given))
    assert published_network(tmp_path, {})[1].size == 55
    chosen = published_network(tmp_path, {"size": 32, "mean": (0.0,) * 3})[1]
    assert chosen == Preprocessing(32, (0.0,) * 3, (0.4, 0.5, 0.6), "lanczos")


def test_a_resnet_is_prepared_for_as_ever() -> None:
    assert random_network(RESNET, {})[1] == Preprocessing(224, MEAN, DEVIATION, "bicubic")


def test_the_image_is_resized_and_scaled_as_asked_for() -> None:
    image = picture(3, 90)
    preprocessing = Preprocessing(30, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "nearest")
    loaded = load_image(image, 30, "nearest")
    assert loaded.pixels is not None
    plain = np.asarray(image.resize((30, 30), Image.Resampling.NEAREST))
    assert (loaded.pixels == plain).all()
    values = normalise_batch([loaded.pixels], preprocessing)[0]
    for channel, (mean, deviation) in enumerate(
        zip(preprocessing.mean, preprocessing.deviation, strict=True)
    ):
        expected = (plain[:, :, channel] / 255 - mean) / deviation
        np.testing.assert_allclose(values[channel].numpy(), expected, atol=1e-5)


def test_a_saved_model_keeps_how_its_images_are_prepared(tmp_path: Path) -> None:
    network_of("vit", tmp_path / "vit")
    (tmp_path / "vit" / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.1, 0.2, 0.3], "resample": 0, "size": 48})
    )
    model = tiny("rpbert", evidence={"blocks": {"pretrained": str(tmp_path / "vit")}})
    model.save(tmp_path / "model")
    loaded = TaggingModel.load(tmp_path / "model")
    kept = [m.collator().evidence.images.preprocessing for m in (model, loaded)]  # type: ignore[attr-defined]
    assert kept == [Preprocessing(48, (0.1, 0.2, 0.3), (0.5,) * 3, "nearest")] * 2
    before, after = (m.system(m.collator()(made_posts())).emissions for m in (model, loaded))
    assert torch.equal(before, after)


def test_a_vector_of_an_image_is_the_mean_of_its_patches() -> None:
    shape = {"model_type": "siglip_vision_model", **SEEING}
    model = tiny("rpbert", evidence={"global": {"shape": shape}})
    batch = model.collator()(made_posts(2))
    network = model.system.get_submodule("evidence.network")
    assert isinstance(network, VisionBlocks)
    with torch.no_grad():
        expected = network(batch.evidence[0].values).mean(1)
        found = model.system.get_submodule("evidence")(batch).values
    torch.testing.assert_close(found[:, 0], expected)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ({"model_type": "bert"}, "model_type bert; expected one of resnet, convnext"),
        ({"model_type": "vit", "patches": 3}, "key 'patches'"),
        ({"model_type": "vit", **SEEING, "patch_size": 64}, "image_size"),
    ],
)
def test_what_is_no_image_network_is_refused(shape: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        tiny("rpbert", evidence={"blocks": {"shape": shape}})


def test_a_folder_of_a_text_encoder_is_named(tmp_path: Path) -> None:
    config = transformers.BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9
    )
    transformers.BertModel(config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"model\.evidence\.blocks\.pretrained: .*model_type bert"):
        tiny("rpbert", evidence={"blocks": {"pretrained": str(tmp_path)}})
