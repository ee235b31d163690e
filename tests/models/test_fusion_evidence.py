"""Every system that joins text and image takes every kind of evidence."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rpbert.models.tagger import TaggerOutput
from rpbert.types import Post
from tests.conftest import EVIDENCE, NO_EVIDENCE, TINY, evidence, made_posts, tiny

SYSTEMS = (
    "image_at_t0",
    "modality_attention",
    "visual_attention",
    "adaptive_coattention",
    "gated_fusion",
    "umt",
    "lstm_cnn",
)
PAIRS = [
    (system, kind)
    for system in SYSTEMS
    for kind, settings in EVIDENCE.items()
    if TINY[system]["evidence"] != settings
]
pairs = pytest.mark.parametrize(("system", "kind"), PAIRS)


def said(output: TaggerOutput, post: int, words: int) -> torch.Tensor:
    if output.emissions is not None:
        return output.emissions[post, :words]
    assert output.relation_score is not None
    return output.relation_score[post]


@pairs
def test_a_post_is_read_alone_as_in_a_batch(system: str, kind: str) -> None:
    model = tiny(system, evidence=EVIDENCE[kind])
    posts = [*made_posts(3), Post.from_words("empty", (), **evidence(7))]
    posts[1] = posts[1].with_(**NO_EVIDENCE)
    collate = model.collator()
    together = model.system(collate(posts))
    for i, post in enumerate(posts):
        alone = said(model.system(collate([post])), 0, len(post.words))
        found = said(together, i, len(post.words))
        assert torch.isfinite(found).all()
        torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-5)


@pairs
def test_the_evidence_counts_and_teaches(system: str, kind: str) -> None:
    model = tiny(system, evidence=EVIDENCE[kind])
    posts = made_posts(4)
    others = [post.with_(**evidence(50 + i)) for i, post in enumerate(posts)]
    first, second = (said(model.system(model.collator()(p)), 0, 4) for p in (posts, others))
    assert not torch.equal(first, second)
    model.system.train()
    batch = model.collator().with_gold(posts)
    output: Any = model.system(batch)
    (output.relation_score if output.losses is None else output.losses).sum().backward()
    learning = [p for p in model.system.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in learning)
