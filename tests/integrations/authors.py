"""Checkpoints of UNITER, VL-BERT and ViLBERT by the authors' names, and the authors' equations.

The names and shapes are those of the authors' code (`rpbert.integrations.published_names` says
where); the equations are written down over these names.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

from rpbert.types import VisualTokens

Names = dict[str, tuple[int, ...]]
NAMES: dict[str, dict[str, dict[str, list[Any]]]] = yaml.safe_load(
    (Path(__file__).parent / "checkpoints.yaml").read_text("utf-8")
)
REGION = 8
SMALL = {"rows": 60, "width": 128, "layers": 3, "inner": 32, "positions": 20}
BASE = {"rows": 30522, "width": 768, "layers": 12, "inner": 3072, "positions": 512}


def checkpoint(
    system: str, size: dict[str, int], region: int = REGION, image: int = 256, turns: int = 2
) -> Names:
    """Shapes by name; `region` and `image` are widths, `turns` those of ViLBERT's two streams."""
    sizes = {**size, "region": region, "image": image, "object": region + 2048}
    names: Names = {}
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


systems = pytest.mark.parametrize("system", NAMES)


def made(names: Names) -> dict[str, Tensor]:
    """Values that differ everywhere and are neither large nor small."""
    return {
        name: 0.1 * torch.randn(shape) + (1.0 if "orm" in name and "weight" in name else 0.0)
        for name, shape in names.items()
    }


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
