"""One suite over every registered system: what each must do, whatever it computes."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from rpbert.config.run import Rates, TrainingSettings
from rpbert.inference import Decoder, Tagger
from rpbert.models import SYSTEMS
from rpbert.models.saved import TaggingModel
from rpbert.training.tasks import RelationTask, Schedule, TaggingTask, Task
from rpbert.types import Post
from tests.conftest import (
    BY_EVIDENCE,
    BY_NETWORK,
    BY_TEXT,
    EVIDENCE,
    NO_EVIDENCE,
    TINY,
    VARIANTS,
    Variant,
    evidence,
    made_posts,
    named,
    tiny,
)

BESIDE: list[Variant] = [
    (name, {"evidence": EVIDENCE[kind]})
    for name, entry in SYSTEMS.items()
    if name != "rpbert"
    for kind in ("blocks", "global", "regions", "stored-regions", "captions")
    if kind.removeprefix("stored-") in entry.evidence and TINY[name]["evidence"] != EVIDENCE[kind]
]
"""Every other system once for each further kind of evidence that it takes."""
NEW = ("encoder.image_type", "encoder.regions", "encoder.model.embeddings.visual_projection",
       "encoder.model.encoder.visn_fc", "evidence.projections", "projection")  # fmt: skip
"""What no published weights have, which learns as W^v does."""
variants = pytest.mark.parametrize("variant", VARIANTS, ids=named)
all_evidence = pytest.mark.parametrize("variant", [*VARIANTS, *BESIDE], ids=named)
_built: dict[str, TaggingModel] = {}


def shared(variant: Variant) -> TaggingModel:
    """The model of a variant, made once for all tests that leave it as it is."""
    key = repr(variant)
    if key not in _built:
        _built[key] = tiny(variant[0], **variant[1])
    return _built[key]


def test_the_suite_knows_every_system() -> None:
    assert set(TINY) == set(SYSTEMS)


@variants
def test_shapes_losses_and_a_gradient_for_every_parameter(variant: Variant) -> None:
    model = copy.deepcopy(shared(variant))
    system = model.system.train()
    batch = model.collator().with_gold(made_posts())
    output = system(batch)
    posts, words = batch.forms.shape
    losses = []
    if system.tags_words:
        assert output.emissions.shape == (posts, words, len(model.vocabulary.tags))
        assert output.losses.shape == (posts,)
        assert torch.isfinite(output.losses).all()
        losses.append(output.losses.sum())
    else:
        assert output.emissions is output.losses is None
    assert (output.relation_score is not None) == system.has_relation
    if system.has_relation:
        assert output.relation_score.shape == (posts,)
        assert ((output.relation_score >= 0) & (output.relation_score <= 1)).all()
        losses.append(system.relation_logits(batch)[:, 1].sum())
    torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
    # Nothing reads r without a gate, so nothing teaches the classifier.
    unread = ("classifier",) if variant[1].get("gate") == "none" else ()
    for name, parameter in system.named_parameters():
        if parameter.requires_grad and not name.startswith(unread):
            assert parameter.grad is not None, name
            assert parameter.grad.any(), name


@all_evidence
def test_a_batch_of_n_equals_n_batches_of_one(variant: Variant) -> None:
    model = shared(variant)
    posts = made_posts()
    posts[2] = posts[2].with_(**NO_EVIDENCE)
    posts[5] = posts[5].with_(
        image=b"no picture", caption="\u200d", regions=posts[6].images[0].regions
    )
    # A post of several windows of a tiny encoder, and one of none.
    posts += [Post.from_words("empty", ()), Post.from_words("long", ("word",) * 90)]
    collate = model.collator()
    together = model.system(collate(posts))
    for i, post in enumerate(posts):
        alone, words = model.system(collate([post])), len(post.words)
        for name in ("emissions", "relation_score"):
            if (one := getattr(alone, name)) is not None:
                expected = one[0, :words] if one.dim() > 1 else one[0]
                found = getattr(together, name)[i]
                found = found[:words] if one.dim() > 1 else found
                assert torch.isfinite(found).all()
                torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@all_evidence
def test_the_image_counts_where_it_should(variant: Variant) -> None:
    model = shared(variant)
    if variant[1].get("gate") == "straight_through":  # a new classifier may shut every image out
        model = copy.deepcopy(model)
        with torch.no_grad():
            model.system.get_parameter("classifier.bias")[1] = 5.0
    posts = made_posts()
    others = [post.with_(**evidence(100 + i)) for i, post in enumerate(posts)]
    first, second = (model.system(model.collator()(p)) for p in (posts, others))
    name = "emissions" if model.system.tags_words else "relation_score"
    blind = not SYSTEMS[variant[0]].evidence
    assert torch.equal(getattr(first, name), getattr(second, name)) == blind


@all_evidence
def test_evidence_is_taken_away_as_if_it_had_not_been_there(variant: Variant) -> None:
    """Of all posts or some; with two views Task#2 learns from both and from how they differ."""
    model, posts = shared(variant), made_posts()
    blind = [post.with_(**NO_EVIDENCE) for post in posts]
    collate, system = model.collator().with_gold, model.system
    some = [
        one if i % 2 else other for i, (one, other) in enumerate(zip(blind, posts, strict=True))
    ]
    batch = collate(posts)
    for taken, expected in ((None, collate(blind)), (torch.arange(8) % 2 == 1, collate(some))):
        found, outputs = batch.without_evidence(taken), system(expected)
        assert torch.equal(found.has_evidence, expected.has_evidence)
        for name in ("emissions", "relation_score"):
            if (of_posts := getattr(outputs, name)) is not None:
                torch.testing.assert_close(getattr(system(found), name), of_posts)
    if not system.tags_words or system.evidence is None:
        return
    rates = TrainingSettings().tagging
    seen, alone = system(collate(some)), system(collate(blind))
    apart = system.crf.divergence(seen.emissions, alone.emissions, batch.word_mask)
    second = (torch.arange(8) % 2 == 0) * (alone.losses + 0.5 * apart)
    both = TaggingTask(posts, rates, agreement=0.5).losses(system, collate(some))
    torch.testing.assert_close(both, seen.losses + second)
    dropped = TaggingTask(posts, rates, evidence_dropout=1 - 1e-9).losses(system, batch)
    torch.testing.assert_close(dropped, alone.losses)


def expected_group(system: str, name: str) -> str:
    if any(name.startswith(f"{module}.") for module in NEW):
        return "projection"
    other = "relation" if system == "lstm_cnn" else "head"
    groups = {"encoder": "encoder", "evidence": "visual", "classifier": "relation"}
    return groups.get(name.split(".")[0], other)


@pytest.mark.parametrize("variant", [*BY_EVIDENCE, *BY_TEXT, *BESIDE], ids=named)
def test_the_groups_are_those_of_algorithm_1(variant: Variant) -> None:
    system = shared(variant).system
    names = {parameter: name for name, parameter in system.named_parameters()}
    found = [
        (names[parameter], group)
        for group, parameters in system.parameter_groups().items()
        for parameter in parameters
    ]
    expected = [(name, expected_group(variant[0], name)) for name in names.values()]
    # Each is in one group. Moments in saved checkpoints go by this order.
    order = list(dict.fromkeys(group for _, group in expected))
    assert found == sorted(expected, key=lambda pair: order.index(pair[1]))


@variants
def test_save_and_load_keep_every_prediction(variant: Variant, tmp_path: Path) -> None:
    model = shared(variant)
    posts = made_posts()
    before = Tagger(model, "cpu").predict_batch(posts)
    model.save(tmp_path / "model")
    after = Tagger.from_pretrained(tmp_path / "model", "cpu").predict_batch(posts)
    assert before == after


@pytest.mark.parametrize("variant", BY_EVIDENCE, ids=named)
def test_eight_posts_are_learnt_by_heart(variant: Variant) -> None:
    posts = made_posts()
    model = tiny(variant[0], posts, **variant[1])
    settings = TrainingSettings(batch_size=4)
    rates = Rates(head=1e-2, encoder=2e-3, projection=2e-3, visual=2e-3)
    tasks: list[Task] = []
    if model.system.has_relation:
        tasks.append(RelationTask([post.with_(tags=None) for post in posts], rates))
    if model.system.tags_words:
        tasks.append(TaggingTask(posts, rates))
    schedule = Schedule(tasks, settings.batch_size, seed=0)
    optimizers = {task.name: task.optimizer(model.system, settings) for task in tasks}
    collate = model.collator()
    for number in range(60):
        model.system.train()
        for task, batch in schedule.epoch(number):
            task.losses(model.system, collate.with_gold(batch)).mean().backward()  # type: ignore[no-untyped-call]
            optimizers[task.name].step()
            model.system.zero_grad()
        if number % 4 == 3 and known_by_heart(model, posts):
            return
    raise AssertionError("not learnt in 60 epochs")


def known_by_heart(model: TaggingModel, posts: list[Post]) -> bool:
    """Whether a model gives posts their own tags, or relations if it tags none."""
    decoded = Decoder(model, model.collator()).decode(posts)
    if model.system.tags_words:
        return [d.tags for d in decoded] == [post.tags for post in posts]
    return [float(d.relation or 0.0) > 0.5 for d in decoded] == [p.relation == 1 for p in posts]


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v not in BY_NETWORK], ids=named)
def test_text_of_any_kind_is_tagged(variant: Variant) -> None:
    texts = ["", " ", "\u200d", "😀👩‍👩‍👧", "a\x00b", "שלום עולם"]
    texts += ["ﷺ" * 50, "x" * 3000, "한국어 " * 100]
    predictions = Tagger(shared(variant), "cpu").predict_batch(texts)
    assert [p.text for p in predictions] == texts
    for prediction in predictions:
        for entity in prediction.entities:
            assert prediction.text[entity.start : entity.end] == entity.text
            assert 0 <= entity.score <= 1
