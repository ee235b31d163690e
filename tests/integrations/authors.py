"""Checkpoints of UNITER, VL-BERT and ViLBERT by the authors' names, and the authors' equations.

The names and shapes are those of the authors' code (`integrations/published_names.yaml` says
where); the equations are written down over these names.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from rpbert.types import VisualTokens
from tests.models.plain import Vector, gelu, heads, linear, normed, numbers

NAMES: dict[str, dict[str, dict[str, list[Any]]]] = yaml.safe_load(
    (Path(__file__).parent / "checkpoints.yaml").read_text("utf-8")
)
REGION = 8
SMALL = {"rows": 60, "width": 128, "layers": 3, "inner": 32, "positions": 20}
systems = pytest.mark.parametrize("system", NAMES)


def checkpoint(
    system: str, size: dict[str, int], region: int = REGION, image: int = 256, turns: int = 2
) -> dict[str, tuple[int, ...]]:
    """Shapes by name; `region` and `image` are widths, `turns` those of ViLBERT's two streams."""
    sizes = {**size, "region": region, "image": image, "object": region + 2048}
    names: dict[str, tuple[int, ...]] = {}
    for kind, rows in NAMES[system].items():
        for pattern, letters in rows.items():
            shape = tuple(sizes.get(letter, letter) for letter in letters)
            count = size["layers"] if "{layer}" in pattern else turns if "{turn}" in pattern else 1
            for number in range(count):
                name = pattern.format(layer=number, turn=number)
                if kind == "pairs":
                    names |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
                else:
                    names[name] = shape
    return names


def made(system: str, size: dict[str, int]) -> dict[str, Tensor]:
    """Values that differ everywhere and are neither large nor small."""
    return {
        name: 0.1 * torch.randn(shape) + (1.0 if "orm" in name and "weight" in name else 0.0)
        for name, shape in checkpoint(system, size).items()
    }


class Named:
    """Tensors as the attributes and items that their names spell."""

    eps = 1e-12

    def __init__(self, tensors: dict[str, Tensor], at: str = "") -> None:
        self.tensors, self.at = tensors, at

    def __getattr__(self, name: str) -> Any:
        at = f"{self.at}{name}"
        return self.tensors[at] if at in self.tensors else Named(self.tensors, f"{at}.")

    def __getitem__(self, number: int) -> Any:
        return getattr(self, str(number))


def feed_forward(inner: Any, output: Any, x: Vector) -> Vector:
    return normed(output.LayerNorm, linear(output.dense, gelu(linear(inner.dense, x))) + x)


def layer(read: Any, x: Vector, head: int = 64) -> Vector:
    out, found = read.attention.output, heads(read.attention.self, x, x, head)
    x = normed(out.LayerNorm, linear(out.dense, found) + x)
    return feed_forward(read.intermediate, read.output, x)


def text(tables: Any, subwords: Tensor) -> Vector:
    words = tables.word_embeddings.weight[subwords]
    positions = tables.position_embeddings.weight[: len(subwords)]
    return numbers(words + positions + tables.token_type_embeddings.weight[0])


def with_whole(seen: VisualTokens) -> tuple[Vector, Vector]:
    """Features and boxes, those of the whole image first."""
    features, boxes = numbers(seen.values[0]), numbers(seen.boxes[0])
    return np.vstack([features.mean(0), features]), np.vstack([[0, 0, 1, 1], boxes])


def read_uniter(read: Any, subwords: Tensor, seen: VisualTokens) -> Vector:
    read, own = read.uniter, read.uniter.img_embeddings
    x0, y0, x1, y1 = numbers(seen.boxes[0]).T
    place = np.stack([x0, y0, x1, y1, x1 - x0, y1 - y0, (x1 - x0) * (y1 - y0)], axis=1)
    image = normed(own.img_layer_norm, linear(own.img_linear, numbers(seen.values[0])))
    image += normed(own.pos_layer_norm, linear(own.pos_linear, place))
    image = normed(own.LayerNorm, image + numbers(read.embeddings.token_type_embeddings.weight[1]))
    x = np.vstack([normed(read.embeddings.LayerNorm, text(read.embeddings, subwords)), image])
    for number in range(SMALL["layers"]):
        x = layer(read.encoder.layer[number], x)
    return x


def read_vl_bert(read: Any, subwords: Tensor, seen: VisualTokens) -> Vector:
    read, bert, n = read.module, read.module.vlbert, len(subwords)
    features, boxes = with_whole(seen)
    x0, y0, x1, y1 = boxes.T
    place = 100 * np.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], axis=1)
    angles = place[:, :, None] / 1000 ** (np.arange(256) / 256)
    waves = np.concatenate([np.sin(angles), np.cos(angles)], axis=2).reshape(len(boxes), -1)
    projection = read.image_feature_extractor.obj_downsample[1]
    visual = np.maximum(linear(projection, np.hstack([waves, features])), 0)
    words = text(bert, subwords) + normed(bert.visual_ln_text, visual[:1])
    segment = bert.token_type_embeddings.weight[2]
    after, last = (numbers(bert.position_embeddings.weight[n + k] + segment) for k in (0, 1))
    image = normed(bert.visual_ln_object, visual) + after
    image += numbers(read.object_linguistic_embeddings.weight)
    end = numbers(bert.end_embedding.weight) + last
    x = normed(bert.embedding_LayerNorm, np.vstack([words, image, end]))
    for number in range(SMALL["layers"]):
        x = layer(bert.encoder.layer[number], x)
    return x


def read_vilbert(read: Any, subwords: Tensor, seen: VisualTokens) -> Vector:
    """Two of three text layers cross; 1 is the image, 2 the text."""
    bert, own, encoder = read.bert, read.bert.v_embeddings, read.bert.encoder
    features, boxes = with_whole(seen)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1, keepdims=True)
    place = linear(own.image_location_embeddings, np.hstack([boxes, area]))
    image = normed(own.LayerNorm, linear(own.image_embeddings, features) + place)
    words = layer(
        encoder.layer[0], normed(bert.embeddings.LayerNorm, text(bert.embeddings, subwords))
    )
    for turn in range(2):
        at = encoder.c_layer[turn]
        looks, out = at.biattention, at.biOutput
        to_text = SimpleNamespace(query=looks.query2, key=looks.key1, value=looks.value1)
        to_image = SimpleNamespace(query=looks.query1, key=looks.key2, value=looks.value2)
        seen_by_text = linear(out.dense2, heads(to_text, words, image, 128))
        seen_by_image = linear(out.dense1, heads(to_image, image, words, 128))
        image = normed(out.LayerNorm1, seen_by_image + image)
        words = normed(out.LayerNorm2, seen_by_text + words)
        image = feed_forward(at.v_intermediate, at.v_output, image)
        words = feed_forward(at.t_intermediate, at.t_output, words)
        image = layer(encoder.v_layer[turn], image, head=128)
        words = layer(encoder.layer[1 + turn], words)
    return words


READERS = {"uniter": read_uniter, "vl_bert": read_vl_bert, "vilbert": read_vilbert}
