"""What is computed: posts like those of Twitter-2017 with pictures, and a model for them."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from torch import nn

from rpbert.config.run import Backend
from rpbert.evidence.networks import ResNetBlocks
from rpbert.models import parse_options
from rpbert.models.saved import TaggingModel
from rpbert.synthetic.controlled import MadePost, Options, make_post
from rpbert.synthetic.scenes import draw
from rpbert.types import Post

Size = Literal["published", "tiny"]


@dataclass(frozen=True)
class Shape:
    """Settings of a model, and about how many pixels a side its pictures have."""

    encoder: dict[str, Any]
    evidence: dict[str, Any]
    tagger: dict[str, Any]
    picture: int


SHAPES: dict[Size, Shape] = {
    # BERT-base, ResNet-152; the pictures of real posts have sides of some 600 pixels.
    "published": Shape(
        encoder={"shape": {}, "vocabulary": 30_522},
        evidence={"blocks": {"shape": "resnet-152", "image_size": 224}},
        tagger={"lstm_hidden": 256},
        picture=600,
    ),
    "tiny": Shape(
        encoder={
            "shape": {
                "hidden_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "intermediate_size": 64,
            },
            "vocabulary": 1000,
        },
        evidence={
            "blocks": {
                "shape": {
                    "layer_type": "basic",
                    "embedding_size": 16,
                    "depths": [1, 1],
                    "hidden_sizes": [16, 32],
                },
                "image_size": 64,
            }
        },
        tagger={"lstm_hidden": 16, "word_dimension": 16, "character_dimension": 8},
        picture=80,
    ),
}


@dataclass(frozen=True)
class Work:
    """What is measured, and how often.

    Attributes:
        system: ``rpbert``, or ``bert`` for the text alone.
        batch: posts in a batch.
        posts: posts tagged in one repeat; each repeat has posts of its own.
        threads: of a CPU; None: as many as PyTorch takes.
        device: ``cpu`` or ``cuda``.
        backend: computes inference.
    """

    system: Literal["rpbert", "bert"] = "rpbert"
    size: Size = "published"
    batch: int = 8
    posts: int = 64
    repeats: int = 5
    threads: int | None = None
    device: str = "cpu"
    backend: Backend = "torch"

    def texts(self, first: int, count: int) -> list[Post]:
        """Posts without pictures, each two made posts long: 18 words, about 20 sub-words."""
        return [_text(number) for number in range(first, first + count)]

    def pictured(self, first: int, count: int) -> list[Post]:
        """Posts with a JPEG each, as bytes."""
        side = SHAPES[self.size].picture
        numbers = range(first, first + count)
        return [_text(number).with_(image=_jpeg(number, side)) for number in numbers]

    def given(self, first: int, count: int) -> list[Post]:
        """Posts as the system takes them."""
        return self.texts(first, count) if self.system == "bert" else self.pictured(first, count)

    def model(self) -> TaggingModel:
        """A model of random weights, the same each time, that knows every word of the posts."""
        shape = SHAPES[self.size]
        given: dict[str, Any] = {"system": self.system, "tagger": shape.tagger}
        given["encoder"] = shape.encoder
        if self.system != "bert":
            given["evidence"] = shape.evidence
        torch.manual_seed(0)
        known = self.texts(0, 512)
        model = TaggingModel.create(parse_options(given), [*known, *known])
        for module in model.system.modules():
            if isinstance(module, ResNetBlocks):
                _settle(module, model, self.pictured(0, 8))
        return model


def _settle(blocks: ResNetBlocks, model: TaggingModel, posts: list[Post]) -> None:
    """Give a network of random weights the statistics of some pictures, as trained ones have.

    Without them numbers grow from layer to layer until nothing can be compared. Branches weigh
    less than what goes around them, which keeps rounding from growing with the depth.
    """
    blocks.frozen = True  # what published weights are trained with
    norms = [module for module in blocks.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.no_grad():
        for stage in blocks.resnet.encoder.stages:
            for block in stage.layers:
                block.layer[-1].normalization.weight.fill_(0.25)
        for norm in norms:
            norm.train().momentum = 1.0
        blocks.resnet(model.collator()(posts).evidence[0].values)
    for norm in norms:
        norm.eval().momentum = 0.1


def _made(number: int) -> tuple[MadePost, MadePost]:
    return make_post(2 * number, Options()), make_post(2 * number + 1, Options())


def _text(number: int) -> Post:
    tokens = [token for post in _made(number) for token in post.tokens]
    return Post.from_words(
        str(number),
        tuple(token.word for token in tokens),
        tags=tuple(token.tag for token in tokens),
        relation=float(_made(number)[0].relation),
    )


@cache
def _jpeg(number: int, side: int) -> bytes:
    rng = random.Random(f"benchmark/{number}")
    file = io.BytesIO()
    picture = draw(_made(number)[0].shows, rng, side).image
    picture.save(file, "JPEG", quality=rng.randint(75, 92))
    return file.getvalue()
