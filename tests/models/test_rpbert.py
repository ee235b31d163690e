"""RpBERT: what the paper's equations demand of it."""

from __future__ import annotations

import pytest
import torch

from rpbert.config.run import Rates, TrainingSettings
from rpbert.evaluation.evaluate import evaluate_posts
from rpbert.inference import Tagger
from rpbert.models.rpbert import RpBert
from rpbert.models.saved import TaggingModel
from rpbert.modules.encoder import pool_words
from rpbert.training.tasks import RelationTask, TaggingTask, Task
from tests.conftest import NO_EVIDENCE, made_posts, tiny

RATES = Rates(head=1e-2, encoder=1e-2, projection=1e-2, visual=1e-2)


def system_of(model: TaggingModel) -> RpBert:
    assert isinstance(model.system, RpBert)
    return model.system


def force_relation(system: RpBert, *, adds: bool) -> None:
    """Make the classifier sure, so that r is 0 or 1 to the last bit."""
    with torch.no_grad():
        system.get_parameter("classifier.weight").zero_()
        sure = torch.tensor([-200.0, 200.0] if adds else [200.0, -200.0])
        system.get_parameter("classifier.bias").copy_(sure)


def gate_none_of(model: TaggingModel) -> TaggingModel:
    """The same weights without a gate."""
    other = tiny("rpbert", gate="none")
    other.system.load_state_dict(model.system.state_dict())
    return other


@pytest.mark.parametrize(
    ("adds", "floor", "share"), [(True, 0.0, 1.0), (False, 0.0, 0.0), (False, 0.25, 0.25)]
)
def test_r_and_the_floor_scale_the_blocks(adds: bool, floor: float, share: float) -> None:
    """As the same model without a gate whose W^v is that share of its own (Eq. 3)."""
    model = tiny("rpbert", propagation={"floor": floor})
    force_relation(system_of(model), adds=adds)
    batch = model.collator()(made_posts())
    gated, scaled = model.system(batch), gate_none_of(model)
    with torch.no_grad():
        system_of(scaled).get_parameter("projection.weight").mul_(share)
    assert torch.equal(gated.relation_score, torch.full((8,), float(adds)))
    expected = scaled.system(batch).emissions
    torch.testing.assert_close(gated.emissions, expected, atol=1e-6, rtol=1e-6)


def test_without_image_r_is_zero_and_the_text_alone_is_read() -> None:
    model = tiny("rpbert")
    system = system_of(model)
    batch = model.collator()(made_posts(images=False))
    output = system(batch)
    assert output.relation_score is not None
    assert not output.relation_score.any()
    hidden = system.encoder.bert(
        input_ids=batch.subwords, attention_mask=batch.subword_mask.long()
    ).last_hidden_state
    words = pool_words(hidden, batch.word_of_subword, *batch.forms.shape)
    expected = system.tag(batch, words).emissions
    torch.testing.assert_close(output.emissions, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("reads", ["cls", "mean"])
def test_r_is_the_softmax_of_the_classifier(reads: str) -> None:
    """The first pass laid out by hand, post by post, without padding (Eq. 1, 2, 4)."""
    model = tiny("rpbert", classifier_input=reads)
    system = system_of(model)
    posts = made_posts()
    scores = system(model.collator()(posts)).relation_score
    assert scores is not None
    for i, post in enumerate(posts):
        one = model.collator()([post])
        length = one.subwords.shape[1]
        text = system.encoder.bert.embeddings.word_embeddings(one.subwords)
        image = system.evidence(one).values @ system.get_parameter("projection.weight").T
        blocks = image.shape[1]
        hidden = system.encoder.bert(
            inputs_embeds=torch.cat([text, image], 1),
            token_type_ids=torch.tensor([[0] * length + [1] * blocks]),
            position_ids=torch.tensor([[*range(length), *[length] * blocks]]),
        ).last_hidden_state[0]
        summary = hidden[0] if reads == "cls" else hidden[:length].mean(0)
        expected = torch.softmax(system.classifier(summary), -1)[1]
        torch.testing.assert_close(scores[i], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("gate", "start", "progress", "passes"),
    [
        *((gate, 0, 0, True) for gate in ("soft", "straight_through", "gumbel")),
        *(("soft", 0.5, progress, progress == 0.5) for progress in (0.4, 0.5)),
        *(("soft", 1, progress, False) for progress in (0.4, 1)),
    ],
)
def test_task_2_sends_its_gradient_through_r_from_when_it_should(
    gate: str, start: float, progress: float, passes: bool
) -> None:
    model = tiny("rpbert", gate=gate, propagation={"gradient_from": start})
    system = system_of(model)
    system.train()
    system.anneal(progress)
    with torch.autocast("cpu", torch.bfloat16):  # which keeps weights that it has cast
        losses = system(model.collator().with_gold(made_posts())).losses
    losses.sum().backward()
    gradient = system.get_parameter("classifier.weight").grad
    assert (gradient is not None and bool(gradient.any())) == passes
    assert system.get_parameter("encoder.bert.encoder.layer.0.output.dense.weight").grad is not None


def test_task_1_learns_where_task_2_passes_no_gradient() -> None:
    model = tiny("rpbert", propagation={"gradient_from": 1})
    model.system.train()
    batch = model.collator().with_gold(made_posts())
    RelationTask(made_posts(), RATES).losses(model.system, batch).sum().backward()  # type: ignore[no-untyped-call]
    for name in ("classifier.weight", "encoder.bert.encoder.layer.0.output.dense.weight"):
        gradient = system_of(model).get_parameter(name).grad
        assert gradient is not None
        assert gradient.any()


def test_the_oracle_lets_through_what_the_labels_say() -> None:
    model = tiny("rpbert", gate="oracle")
    posts = made_posts()
    posts[1] = posts[1].with_(relation=None)
    posts[3] = posts[3].with_(**NO_EVIDENCE)
    output = model.system(model.collator()(posts))
    assert output.relation_score.tolist() == [0, 1, 0, 0, 0, 1, 0, 1]
    whole = gate_none_of(model)
    blind = [post.with_(**NO_EVIDENCE) for post in posts]
    for shown, rows in ((posts, [1, 5, 7]), (blind, [3])):
        emissions = whole.system(whole.collator()(shown)).emissions
        torch.testing.assert_close(output.emissions[rows], emissions[rows], atol=1e-6, rtol=1e-6)
    assert not model.system.has_relation  # nothing is left for Task#1 to learn
    tagger = Tagger(model, "cpu")
    decoded = tagger.decoder.decode(posts)
    assert [answer.relation for answer in decoded] == output.relation_score.tolist()
    scored = evaluate_posts(tagger, posts)
    assert scored.relation is None  # no classifier, and so no score of one
    assert "relation" not in scored.calibration


@pytest.mark.parametrize(
    ("task", "untouched"),
    [(TaggingTask, ("classifier",)), (RelationTask, ("embeddings", "tagger"))],
)
def test_a_task_updates_its_own_parameters_only(
    task: type[Task], untouched: tuple[str, ...]
) -> None:
    """Algorithm 1, line 5 against line 12."""
    model = tiny("rpbert")
    posts = made_posts()
    before = {name: p.detach().clone() for name, p in model.system.named_parameters()}
    chosen = task(posts, RATES)
    optimizer = chosen.optimizer(model.system, TrainingSettings())
    model.system.train()
    for _ in range(2):
        chosen.losses(model.system, model.collator().with_gold(posts)).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        model.system.zero_grad()
    for name, parameter in model.system.named_parameters():
        kept = name.split(".")[0] in untouched
        assert torch.equal(parameter, before[name]) == kept, name


def test_a_frozen_resnet_keeps_its_weights_and_statistics() -> None:
    """Of the parts that no task updates, nothing changes in training, gathered means included."""
    model = tiny("rpbert")
    before = {name: tensor.clone() for name, tensor in model.system.state_dict().items()}
    task = TaggingTask(made_posts(), Rates(head=1e-2, encoder=1e-2, projection=1e-2, visual=0))
    optimizer = task.optimizer(model.system, TrainingSettings())
    model.system.freeze({"visual"})
    model.system.train()
    losses = task.losses(model.system, model.collator().with_gold(made_posts()))
    losses.sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    changed = {
        name.split(".")[0]
        for name, tensor in model.system.state_dict().items()
        if not torch.equal(tensor, before[name])
    }
    assert changed == {"encoder", "projection", "embeddings", "tagger"}
