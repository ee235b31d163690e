"""Visual tokens of every kind against plain loops and transformers' own outputs."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForObjectDetection, ResNetConfig, ResNetModel

from rpbert.errors import InputError
from rpbert.models.saved import TaggingModel
from rpbert.types import Post, VisualTokens
from tests.conftest import DETR, EVIDENCE, NO_EVIDENCE, RESNET, made_posts, tiny

YOLOS: dict[str, Any] = {
    "model_type": "yolos", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 8, "image_size": [32, 32], "patch_size": 16, "num_detection_tokens": 6,
    "num_labels": 3,
}  # fmt: skip


def model_with(kind: str, **options: Any) -> TaggingModel:
    return tiny("rpbert", evidence=EVIDENCE[kind], **options)


def tokens_of(model: TaggingModel, posts: list[Post]) -> VisualTokens:
    system: Any = model.system
    with torch.no_grad():
        tokens: VisualTokens = system.evidence(model.collator()(posts))
    return tokens


def mixed_posts() -> list[Post]:
    """Posts of which one has no evidence, and two share theirs."""
    posts = made_posts(4)
    posts[1] = posts[1].with_(**NO_EVIDENCE)
    shared = {key: getattr(posts[0].images[0], key) for key in NO_EVIDENCE}
    return [*posts, posts[3].with_(id="again", **shared)]


@pytest.mark.parametrize("kind", EVIDENCE)
def test_what_every_kind_gives(kind: str) -> None:
    model = model_with(kind)
    posts = mixed_posts()
    values, mask, boxes, *_ = tokens_of(model, posts)
    count = mask.shape[1]
    assert values.shape == (5, count, model.system.evidence.width)  # type: ignore[union-attr]
    assert boxes.shape == (5, count, 4)
    assert mask.dtype == torch.bool
    assert mask.any(1).tolist() == [True, False, True, True, True]
    assert not values[~mask].any()
    assert not boxes[~mask].any()
    assert (boxes[..., :2] <= boxes[..., 2:]).all()
    assert ((boxes >= 0) & (boxes <= 1)).all()
    for part in (values, mask, boxes):
        assert torch.equal(part[0], part[4])
    assert len(model.collator()(posts).evidence[0].values) == 3
    for part in tokens_of(model, made_posts(2, images=False))[:3]:  # no token at all
        assert part.shape[:2] == (2, 0)
    assert torch.equal(mask.int().sort(1, descending=True).values, mask.int())  # the real first


def test_blocks_and_their_cells_are_a_plain_loop_over_the_feature_map() -> None:
    """And the global vector is their mean."""
    model, posts = model_with("blocks"), made_posts(3)
    whole = model_with("global")
    whole.system.load_state_dict(model.system.state_dict())
    values, _, boxes, *_ = tokens_of(model, posts)
    network: Any = model.system.get_submodule("evidence.network")
    oracle = ResNetModel(ResNetConfig(**RESNET)).eval()
    oracle.load_state_dict(network.resnet.state_dict())
    with torch.no_grad():
        grids = oracle(model.collator()(posts).evidence[0].values).last_hidden_state
    _, _, rows, columns = grids.shape  # (posts, d_v, rows, columns)
    assert values.shape[1] == rows * columns == 16
    for token, (i, j) in enumerate(product(range(rows), range(columns))):
        torch.testing.assert_close(values[:, token], grids[:, :, i, j], atol=1e-5, rtol=0)
        cell = [j / columns, i / rows, (j + 1) / columns, (i + 1) / rows]
        torch.testing.assert_close(boxes[:, token], torch.tensor([cell] * 3))
    pooled, _, boxes, *_ = tokens_of(whole, posts)
    torch.testing.assert_close(pooled[:, 0], grids.mean((2, 3)), atol=1e-6, rtol=1e-5)
    assert boxes.tolist() == [[[0, 0, 1, 1]]] * 3


@pytest.mark.parametrize("shape", [DETR, YOLOS], ids=["detr", "yolos"])
@pytest.mark.parametrize(("key", "most"), [("most", 3), ("max_regions", 100)])
def test_detected_regions_are_transformers_surest_queries(
    shape: dict[str, Any], key: str, most: int
) -> None:
    model = tiny("rpbert", evidence={"regions": {"shape": shape, "image_size": 32, key: most}})
    posts, evidence = made_posts(2), model.system.get_submodule("evidence")
    network: Any = evidence.get_submodule("detector.network")
    detector = AutoModelForObjectDetection.from_config(network.config).eval()
    detector.load_state_dict(network.state_dict())
    batch = model.collator()(posts)
    features, mask, boxes, *_ = evidence.train()(batch)
    assert not any(p.requires_grad for p in network.parameters())
    assert not features.requires_grad
    with torch.no_grad():
        found = detector(batch.evidence[0].values)
    hidden, queries = found.last_hidden_state, found.logits.shape[1]
    for image in range(2):
        surest = found.logits[image].softmax(-1)[:, :-1].amax(-1).tolist()
        order = sorted(range(queries), key=lambda query: -surest[query])[:most]
        assert mask[image].sum() == len(order) == min(most, queries)
        for token, query in enumerate(order):
            expected = hidden[image, hidden.shape[1] - queries + query]
            torch.testing.assert_close(features[image, token], expected, atol=1e-5, rtol=1e-5)
            x, y, width, height = found.pred_boxes[image, query].tolist()
            corners = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
            clipped = [min(max(corner, 0), 1) for corner in corners]
            torch.testing.assert_close(boxes[image, token], torch.tensor(clipped))


@pytest.mark.parametrize("shape", [{}, {"model_type": "bert"}])
def test_what_is_no_detector_is_refused(shape: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="one of detr, yolos"):
        tiny("rpbert", evidence={"regions": {"shape": shape}})


def test_stored_regions_come_as_they_are_and_their_mean_as_one_vector() -> None:
    posts = mixed_posts()
    several, mask, boxes, *_ = tokens_of(model_with("stored-regions"), posts)
    one, _, whole, *_ = tokens_of(model_with("stored-vector"), posts)
    for i, post in enumerate(posts):
        regions: Any = post.images[0].regions
        if regions is None:
            continue
        count = int(mask[i].sum())
        assert count == len(regions.features)
        assert np.array_equal(several[i, :count].numpy(), regions.features)
        assert np.array_equal(boxes[i, :count].numpy(), regions.boxes)
        mean = sum(row.astype(np.float64) for row in regions.features) / count
        np.testing.assert_allclose(one[i, 0].numpy(), mean, atol=1e-6)
        assert whole[i].tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize("key", ["max_length", "longest"])
def test_a_caption_is_the_embeddings_of_its_first_pieces(key: str) -> None:
    posts = made_posts()
    model = tiny("rpbert", posts, evidence={"captions": {key: 7}})
    tokenizer: Any = model.tokenizer
    captions = ["red tower " * 30, posts[1].images[0].caption or ""]
    shown = [p.with_(caption=c) for p, c in zip(posts, captions, strict=False)]
    values, mask, _, *_ = tokens_of(model, shown)
    for caption, row, real in zip(captions, values, mask, strict=True):
        pieces = tokenizer(caption, add_special_tokens=False)["input_ids"][:7]
        assert tokenizer.unk_token_id not in pieces
        expected = model.system.encoder.embed(torch.tensor(pieces))  # type: ignore[union-attr]
        assert torch.equal(row[real], expected)
