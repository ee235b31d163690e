"""What several tests need: made posts, tiny models, and where the real data lies."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before the hub library is loaded: no test asks the network

import hypothesis
import numpy as np
import pytest
import torch
from PIL import Image

from rpbert.models import SYSTEMS, parse_options
from rpbert.models.saved import TaggingModel
from rpbert.types import Post, Regions
from tests.browser import browser, open_page  # noqa: F401
from tests.families import SHAPE, TEXT_FAMILIES, published

pytest_plugins = ["tests.soak"]
hypothesis.settings.register_profile("untimed", deadline=None)  # no test asserts a time
hypothesis.settings.load_profile("untimed")

SHARED = Path(__file__).parents[2] / "shared" / "data"

ENCODER: dict[str, Any] = {"shape": SHAPE, "vocabulary": 200}
RESNET: dict[str, Any] = {
    "layer_type": "basic",
    "embedding_size": 4,
    "depths": [1, 1],
    "hidden_sizes": [4, 8],
}
DETR: dict[str, Any] = {
    "model_type": "detr",
    "use_timm_backbone": False,
    "backbone_config": {"model_type": "resnet", **RESNET, "out_features": ["stage2"]},
    "d_model": 8,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 8,
    "decoder_ffn_dim": 8,
    "num_queries": 5,
    "num_labels": 3,
}
BLOCKS: dict[str, Any] = {"blocks": {"shape": RESNET, "image_size": 32}}
EVIDENCE: dict[str, dict[str, Any]] = {
    "blocks": BLOCKS,
    "global": {"global": {"shape": RESNET, "image_size": 32}},
    "stored-vector": {"global": {}},
    "regions": {"regions": {"shape": DETR, "image_size": 32, "max_regions": 3}},
    "stored-regions": {"regions": {}},
    "captions": {"captions": {}},
    "ocr": {"ocr": {}},
    "knowledge": {"knowledge": {}},
    "sentence": {"knowledge": {"as": "second_sentence", "max_tokens": 12}},
}
"""The smallest settings of every kind of evidence."""
COMBINED: dict[str, Any] = {**BLOCKS, "regions": {}, "captions": {}, **EVIDENCE["sentence"]}
SEEING: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 32,
    "patch_size": 16,
}
STAGES: dict[str, Any] = {"num_stages": 2, "depths": [1, 1], "hidden_sizes": [4, 8]}
DINO = {k: v for k, v in SEEING.items() if k != "intermediate_size"} | {"mlp_ratio": 2}
FAMILIES: dict[str, dict[str, Any]] = {
    "convnext": STAGES,
    "convnextv2": STAGES,
    "vit": SEEING,
    "dinov2": DINO,
    "dinov2_with_registers": {**DINO, "num_register_tokens": 3},
    "clip_vision_model": SEEING,
    "siglip_vision_model": SEEING,
}
"""The smallest shape of every family of image networks beside ResNet."""
TAGGER: dict[str, Any] = {
    "word_dimension": 12,
    "character_dimension": 5,
    "lstm_hidden": 16,
    "lstm_layers": 2,
    "dropout": 0.1,
}
BOTH: dict[str, Any] = {"encoder": ENCODER, "evidence": BLOCKS}
TINY: dict[str, dict[str, Any]] = {
    "bilstm_crf": {},
    "image_at_t0": {"evidence": EVIDENCE["global"]},
    "modality_attention": {"evidence": EVIDENCE["global"]},
    "visual_attention": {"evidence": BLOCKS},
    "adaptive_coattention": {"evidence": BLOCKS},
    "gated_fusion": {"evidence": BLOCKS},
    "bert": {"encoder": ENCODER},
    "umt": {**BOTH, "tagger": {}},
    "visualbert": BOTH,
    "unicoder_vl": BOTH,
    "uniter": BOTH,
    "vl_bert": BOTH,
    "vilbert": BOTH,
    "lxmert": BOTH,
    "rpbert": BOTH,
    "lstm_cnn": {"evidence": EVIDENCE["global"]},
}
"""The smallest settings of every system of the registry."""

CAPTION_WORDS = ["a", "man", "and", "woman", "with", "two", "dogs", "front", "red", "blue", "tower"]
NAMES = {"PER": "Ada Lovelace", "LOC": "Lake Como", "ORG": "Acme", "MISC": "Ulysses"}


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"the real data is not at {SHARED}")
    return SHARED


@pytest.fixture(autouse=True)
def _seeded() -> None:
    random.seed(0)
    torch.manual_seed(0)


def picture(seed: int, size: int = 40) -> Image.Image:
    """A picture of random blocks."""
    draw = random.Random(seed)
    image = Image.new("RGB", (4, 4))
    image.putdata([tuple(draw.randrange(256) for _ in "rgb") for _ in range(16)])
    return image.resize((size, size))


def evidence(seed: int) -> dict[str, Any]:
    """A picture of random blocks, a caption and regions, as a post has them."""
    draw = np.random.default_rng(seed)
    corners = np.sort(draw.random((2, 2 + seed % 3, 2), dtype=np.float32), axis=0)
    regions = Regions(
        features=draw.standard_normal((corners.shape[1], 6), dtype=np.float32),
        boxes=np.concatenate(list(corners), axis=1),
    )
    return {
        "image": picture(seed),
        "caption": " ".join(draw.choice(CAPTION_WORDS, 4 + seed % 3)),
        "regions": regions,
        "image_text": " ".join(draw.choice(CAPTION_WORDS, 3 + seed % 4)),
        "knowledge": " ".join(draw.choice(CAPTION_WORDS, 5 + seed % 9)),
    }


NO_EVIDENCE = dict.fromkeys(("image", "caption", "regions", "image_text", "knowledge"))


def made_posts(count: int = 8, images: bool = True) -> list[Post]:
    """Different posts with one entity each, and a picture, a caption and regions each."""
    posts = []
    for i in range(count):
        label, name = list(NAMES.items())[i % 4]
        words = ["RT", "@", f"user{i}", *name.split(), "again", "!"][: 7 - i % 3]
        inside = len(name.split()) - 1
        tags = ["O", "O", "O", f"B-{label}", *[f"I-{label}"] * inside, "O", "O"][: len(words)]
        posts.append(
            Post.from_words(
                str(i),
                tuple(words),
                tags=tuple(tags),
                **(evidence(i) if images else NO_EVIDENCE),
                relation=float(i % 2),
                origin=f"made:{i}",
            )
        )
    return posts


def tiny(system: str, posts: list[Post] | None = None, **options: Any) -> TaggingModel:
    """A small model of random weights for made posts."""
    settings = {"system": system, "tagger": TAGGER, **TINY[system], **options}
    family = settings.get("encoder")
    if isinstance(family, str):
        settings["encoder"] = {"pretrained": str(published(family))}
    model = TaggingModel.create(parse_options(settings), posts or made_posts())
    model.system.eval()
    return model


Variant = tuple[str, dict[str, Any]]
SEEN: dict[str, dict[str, Any]] = {
    family: {"blocks": {"shape": {"model_type": family, **shape}, "image_size": 32}}
    for family, shape in FAMILIES.items()
}
BY_EVIDENCE: list[Variant] = [
    *((name, {}) for name in SYSTEMS if name != "rpbert"),
    *(("rpbert", {"gate": gate}) for gate in ("soft", "straight_through", "gumbel", "none")),
    *(("rpbert", {"evidence": EVIDENCE[kind]}) for kind in EVIDENCE if kind != "blocks"),
    ("rpbert", {"evidence": COMBINED}),
]
"""Every system, and `rpbert` once for each gate and kind of evidence."""
BY_NETWORK: list[Variant] = [("rpbert", {"evidence": SEEN[family]}) for family in SEEN]
BY_TEXT: list[Variant] = [("rpbert", {"encoder": f}) for f in TEXT_FAMILIES if f != "bert"]
VARIANTS = [*BY_EVIDENCE, *BY_NETWORK, *BY_TEXT]
"""Those, and `rpbert` once for each family of image networks and of text encoders."""


def named(variant: Variant) -> str:
    """A variant as test ids show it."""
    every = {**EVIDENCE, **SEEN, "combined": COMBINED}
    kinds = {id(settings): kind for kind, settings in every.items()}
    return "-".join([variant[0], *(kinds.get(id(v), str(v)) for v in variant[1].values())])
