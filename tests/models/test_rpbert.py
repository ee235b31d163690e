"""RpBERT: what the paper's equations demand of it."""

from __future__ import annotations

import pytest
import torch

from rpbert.config.run import Rates, TrainingSettings
from rpbert.evaluation.evaluate import evaluate_posts
from rpbert.inference import Tagger
from rpbert.models.rpbert import RpBert
from rpbert.models.saved import TaggingModel
from rpbert.training.tasks import RelationTask, TaggingTask, Task
from tests.conftest import NO_EVIDENCE, made_posts, tiny

RATES = Rates(head=1e-2, encoder=1e-2, projection=1e-2, visual=1e-2)


def system_of(model: TaggingModel) -> RpBert:
    assert isinstance(model.system, RpBert)
    return model.system


def gate_none_of(model: TaggingModel) -> TaggingModel:
    """The same weights without a gate."""
    other = tiny("rpbert", gate="none")
    other.system.load_state_dict(model.system.state_dict())
    return other


@pytest.mark.parametrize("relu", [False, True])
def test_r_is_the_softmax_of_the_classifier(relu: bool) -> None:
    """The first pass laid out by hand, post by post, without padding (Eq. 1, 2, 4)."""
    model = tiny("rpbert", classifier_relu=relu)
    system = system_of(model)
    weight, bias = (p * 20 for p in system.classifier.parameters())  # signs of both kinds
    for parameter, value in zip(system.classifier.parameters(), (weight, bias), strict=True):
        parameter.data.copy_(value)
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
        logits = weight @ hidden[0] + bias
        expected = torch.softmax(logits.relu() if relu else logits, -1)[1]
        torch.testing.assert_close(scores[i], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("gate", "start", "progress", "passes"),
    [
        *((gate, 0, 0, True) for gate in ("soft", "straight_through", "gumbel")),
        *(("soft", 0.5, progress, progress == 0.5) for progress in (0.4, 0.5)),
        *(("soft", 1, progress, False) for progress in (0.4, 1)),
    ],
)
def test_task_2_sends_its_gradient_through_r_from_when_it_should_and_task_1_always(
    gate: str, start: float, progress: float, passes: bool
) -> None:
    model = tiny("rpbert", gate=gate, propagation={"gradient_from": start})
    system, batch = system_of(model), model.collator().with_gold(made_posts())
    system.train()
    system.anneal(progress)
    with torch.no_grad():  # a hard gate that is closed has no gradient: nothing reads its image
        system.get_parameter("classifier.bias").copy_(torch.tensor([0.0, 2.0]))
    for task, teaches in (
        (TaggingTask(made_posts(), RATES), passes),
        (RelationTask(made_posts(), RATES), True),
    ):
        system.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):  # which keeps weights that it has cast
            losses = task.losses(system, batch)
        losses.sum().backward()  # type: ignore[no-untyped-call]
        gradient = system.get_parameter("classifier.weight").grad
        assert (gradient is not None and bool(gradient.any())) == teaches
        gradient = system.get_parameter("encoder.bert.encoder.layer.0.output.dense.weight").grad
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
    scored = evaluate_posts(tagger, posts)
    assert scored.relation is None  # no classifier, and so no score of one
    assert "relation" not in scored.calibration


@pytest.mark.parametrize(
    ("task", "frozen", "kept"),
    [
        (TaggingTask, False, ("classifier",)),
        (TaggingTask, True, ("classifier", "evidence")),
        (RelationTask, False, ("embeddings", "tagger")),
    ],
)
def test_a_task_updates_its_own_parameters_only(
    task: type[Task], frozen: bool, kept: tuple[str, ...]
) -> None:
    """Algorithm 1, line 5 against line 12; a frozen ResNet keeps its statistics as well."""
    model, posts = tiny("rpbert"), made_posts()
    if frozen:
        model.system.freeze({"visual"})
    before = {name: tensor.clone() for name, tensor in model.system.state_dict().items()}
    chosen = task(posts, RATES)
    optimizer = chosen.optimizer(model.system, TrainingSettings())
    model.system.train()
    for _ in range(2):
        chosen.losses(model.system, model.collator().with_gold(posts)).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        model.system.zero_grad()
    learning = dict(model.system.named_parameters())
    for name, tensor in model.system.state_dict().items():
        if name.startswith(kept):
            assert torch.equal(tensor, before[name]), name
        elif name in learning:
            assert not torch.equal(tensor, before[name]), name
