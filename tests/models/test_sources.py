"""Several images or kinds of evidence of one post: each is a source with its own r."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from rpbert.config.run import DataSettings
from rpbert.data.readers import open_data
from rpbert.errors import InputError
from rpbert.evidence.base import Evidence
from rpbert.inference import Tagger
from rpbert.models import SYSTEMS
from rpbert.models.rpbert import RpBert
from rpbert.models.saved import TaggingModel
from rpbert.synthetic.controlled import make
from rpbert.synthetic.demo import POSTS, settings_of
from rpbert.training.relation_sources import relation_posts
from rpbert.training.train import train
from rpbert.types import Post, PostImage, SourceScore
from tests.conftest import (
    BLOCKS,
    COMBINED,
    EVIDENCE,
    NO_EVIDENCE,
    evidence,
    made_posts,
    picture,
    tiny,
)
from tests.soak import Soak

ONLY = {
    kind: {name: None for name in NO_EVIDENCE if name != made_from}
    for kind, made_from in (
        ("blocks", "image"), ("regions", "regions"), ("captions", "caption"),
        ("knowledge", "knowledge"),
    )
}  # fmt: skip
"""What a post lacks that has one kind alone."""


def several(posts: list[Post]) -> list[Post]:
    """Three images, two without the first, one, and none."""
    first, second, third, *_ = posts
    seen = [evidence(50 + i) for i in range(3)]
    more = PostImage(**seen[0], relation=1.0), PostImage(**seen[1], relation=0.0)
    return [
        first.with_(images=(*first.images, *more)),
        second.with_(images=(PostImage(), PostImage(**seen[2]))),
        third,
        third.with_(id="none", **NO_EVIDENCE),
    ]


def of_every_kind() -> list[Post]:
    """All kinds, each kind alone, and none."""
    post = made_posts()[0]
    return [post, *(post.with_(**lacks) for lacks in ONLY.values()), post.with_(**NO_EVIDENCE)]


def system_of(model: TaggingModel) -> Any:
    assert isinstance(model.system, RpBert)
    return model.system


@pytest.mark.parametrize("kinds", [*EVIDENCE.values(), COMBINED], ids=[*EVIDENCE, "combined"])
def test_r_of_a_source_is_that_of_the_post_with_this_source_alone(kinds: dict[str, Any]) -> None:
    model = tiny("rpbert", evidence=kinds)
    posts, collate = several(made_posts()), model.collator()
    posts[2:3] = of_every_kind()
    with torch.no_grad():
        together = model.system(collate(posts))
        for i, post in enumerate(posts):
            alone = model.system(collate([post])).emissions[0]
            found = together.emissions[i, : len(post.words)]
            torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-5)
            sources = collate.evidence.split_by_source(post)
            each = [float(model.system(collate([p])).relation_score) for p in sources]
            scores = together.source_scores[i]
            torch.testing.assert_close(scores[scores > 0], torch.tensor([r for r in each if r]))
    torch.testing.assert_close(together.relation_score, together.source_scores.amax(1))
    assert together.source_scores[1, 0] == 0  # it has no first image
    assert not together.source_scores[-1].any()


@pytest.mark.parametrize("kinds", [COMBINED, EVIDENCE["captions"]], ids=["combined", "captions"])
def test_the_second_pass_reads_every_source_scaled_by_its_own_r(kinds: dict[str, Any]) -> None:
    """Its tokens laid out by hand: W^v of each, then r of each; the image follows the text."""
    model = tiny("rpbert", evidence=kinds, propagation={"acts": "before_norm"})
    system, post = system_of(model), several(made_posts())[0]
    batch = model.collator()([post])
    with torch.no_grad():
        output = system(batch)
        parts = dict(system.evidence.named_children()).get("parts")
        rows, places, scores = [], [], iter(output.source_scores[0])
        for number, found in enumerate(batch.evidence):
            if parts is None:
                of_kind, projection = system.evidence.by_source([found]), system.projection
            else:
                name, part = list(parts.named_children())[number]
                assert isinstance(part, Evidence)
                of_kind = part.by_source([found])
                projection = system.evidence.get_submodule(f"projections.{name}")
            for values, real in zip(of_kind.values[0], of_kind.mask[0], strict=True):
                rows.append(next(scores) * projection(values[real]))
                behind = number == list(COMBINED).index("knowledge")  # the one with an order
                places += [place * behind for place in range(len(rows[-1]))]
        tokens, text = torch.cat(rows)[None], system.encoder.embed(batch.subwords)
        length, count = text.shape[1], tokens.shape[1]
        hidden = system.encoder.bert(
            inputs_embeds=torch.cat([text, tokens], 1),
            token_type_ids=torch.tensor([[0] * length + [1] * count]),
            position_ids=torch.tensor([[*range(length), *(length + place for place in places)]]),
        ).last_hidden_state[0]
        words = [
            hidden[:length][batch.word_of_subword[0] == w].mean(0) for w in range(len(post.words))
        ]
        expected = system.tag(batch, torch.stack(words)[None]).emissions
    torch.testing.assert_close(output.emissions, expected, atol=1e-5, rtol=1e-5)
    assert len(set(output.source_scores[0].tolist())) == output.source_scores.shape[1] >= 3


def test_a_prediction_lists_the_images_that_were_used_and_one_image_is_as_ever() -> None:
    tagger = Tagger(tiny("rpbert"), "cpu")
    posts = several(made_posts())
    posts[0] = posts[0].with_(images=(*posts[0].images, PostImage(b"no picture")))
    three, *others = tagger.predict_batch(posts)
    scores = [source.relation for source in three.sources]
    assert three.sources == tuple(SourceScore("blocks", i, r) for i, r in enumerate(scores))
    assert three.relation == max(scores)
    second = {"evidence": "blocks", "image": 1, "relation": scores[1]}
    assert three.to_dict()["sources"][1] == second
    assert [p.image for p in (three, *others)] == ["used", "used", "used", "none"]
    for prediction in others:
        assert list(prediction.to_dict()) == ["id", "text", "entities", "relation", "image"]
    answer = tagger.decoder.decode(posts)[0]
    assert answer.known(posts[0]) == list(zip([0.0, 1.0, 0.0], scores, strict=True))


def test_a_prediction_lists_the_kinds_that_a_post_has() -> None:
    tagger = Tagger(tiny("rpbert", evidence=COMBINED), "cpu")
    every, *others = tagger.predict_batch(of_every_kind())
    assert [(s.evidence, s.image) for s in every.sources] == [(kind, 0) for kind in ONLY]
    assert [len(p.sources) for p in others] == [0] * 5
    assert [p.image for p in (every, *others)] == ["used"] * 5 + ["none"]
    assert others[-1].relation == 0


def test_several_images_from_python(tmp_path: Path) -> None:
    tagger = Tagger(tiny("rpbert"), "cpu")
    picture(1).save(tmp_path / "1.png")
    images: list[str | Image.Image] = [str(tmp_path / "1.png"), picture(2)]
    found = tagger.predict("RT Ada Lovelace !", image=images)
    alone = [tagger.predict("RT Ada Lovelace !", image=image).relation for image in images]
    assert [s.relation for s in found.sources] == pytest.approx(alone)
    captioned = Tagger(tiny("rpbert", evidence=EVIDENCE["captions"]), "cpu")
    assert len(captioned.predict("Ada", caption=["a red tower", "a map"]).sources) == 2


@pytest.mark.parametrize("system", ["umt", "visual_attention", "image_at_t0", "vilbert"])
def test_a_system_without_a_gate_sees_every_image(system: str) -> None:
    model, post = tiny(system), several(made_posts())[0]
    blind = post.with_(images=post.images[:2])
    emissions = [model.system(model.collator()([p])).emissions for p in (post, blind)]
    assert not torch.equal(*emissions)


@pytest.mark.parametrize("system", [n for n, s in SYSTEMS.items() if s.evidence and n != "rpbert"])
def test_other_systems_take_one_kind(system: str) -> None:
    with pytest.raises(InputError, match=r"blocks and captions as evidence for .* one kind"):
        tiny(system, evidence={**BLOCKS, "captions": {}})


def test_task_1_learns_from_each_image_apart() -> None:
    post = several(made_posts())[0].with_(relation=0.0)
    apart = post.split_by_image()
    assert [p.relation for p in apart] == [0.0, 1.0, 0.0]
    assert [p.caption for p in apart] == [s.caption for s in post.images]
    assert [len(p.images) for p in apart] == [1] * 3
    assert len({p.id for p in apart}) == 3
    assert apart[0] == post.with_(images=post.images[:1])


def test_task_1_learns_from_each_kind_apart() -> None:
    model = tiny("rpbert", evidence=COMBINED)
    system, posts = system_of(model), made_posts(2)
    posts[1] = posts[1].with_(image=None)
    reader = model.collator().evidence
    supply = relation_posts(DataSettings(path="made"), posts, "joined", reader, seed=0)
    shown = [
        [kind for kind in NO_EVIDENCE if getattr(p.images[0], kind) is not None]
        for p in supply.known
    ]
    every = [["image"], ["regions"], ["caption"], ["knowledge"]]
    assert shown == [*every, *every[1:]]
    assert [p.relation for p in supply.known] == [0] * 4 + [1] * 3
    batch = model.collator().with_gold(supply.known)
    assert batch.has_evidence.all()
    with torch.no_grad():
        r = system.gate(system.relation_logits(batch))[:, 1]
        torch.testing.assert_close(r, system(batch).relation_score)


@pytest.mark.slow("r of the one relevant image of three", "6,000 posts of 3 images")
def test_r_is_highest_for_the_image_that_adds(tmp_path: Path, soak: Soak) -> None:
    make(tmp_path / "data", posts=POSTS, relevant=1.0, images=3, image_size=80)
    result = train(settings_of("rpbert", tmp_path / "data", 0), tmp_path / "rpbert")
    tagger = Tagger.from_pretrained(result.model)
    posts = [p for p in open_data(tmp_path / "data").read("test") if p.relation == 1]
    right = 0
    for post, answer in zip(posts, tagger.predict_batch(posts), strict=True):
        surest = max(answer.sources, key=lambda source: source.relation)
        right += post.images[surest.image].relation == 1
    soak(f"{right} of {len(posts)} posts ({100 * right / len(posts):.1f} %)")
    assert right >= 0.9 * len(posts)
