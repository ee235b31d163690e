"""Training: Algorithm 1's order, rates, and what a run leaves behind."""

from __future__ import annotations

import copy
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from accelerate.utils import set_seed
from pydantic import ValidationError
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from rpbert.config.run import Rates, TrainingSettings, load_run
from rpbert.data.readers import open_data
from rpbert.data.vocabulary import tag_set
from rpbert.errors import InputError
from rpbert.evaluation.scoring import score_tags
from rpbert.inference import Decoder, Tagger
from rpbert.models import parse_options
from rpbert.models.saved import TaggingModel
from rpbert.models.tagger import System
from rpbert.synthetic.controlled import make
from rpbert.synthetic.demo import settings_of as demo_settings
from rpbert.training.tasks import RelationTask, Schedule, TaggingTask, rate_factor, share_moments
from rpbert.training.train import expected_memory, train
from rpbert.training.trainer import Trainer, moving_average
from rpbert.types import Post
from tests.conftest import made_posts, tiny
from tests.training_runs import records, settings

RATES = settings(Path()).training.tagging


@pytest.mark.parametrize(
    ("interleaved", "relation", "size", "order"),
    [
        (False, 8, 3, ["relation"] * 3 + ["tagging"] * 3),
        (True, 4, 2, ["tagging", "relation", "tagging", "tagging", "relation", "tagging"]),
    ],
)
def test_an_epoch_is_task_after_task_or_turn_by_turn(
    interleaved: bool, relation: int, size: int, order: list[str]
) -> None:
    posts = {"relation": made_posts(relation), "tagging": made_posts(8)}
    tasks = [RelationTask(posts["relation"], RATES), TaggingTask(posts["tagging"], RATES)]
    schedule = Schedule(tasks, size, seed=1, interleaved=interleaved)
    orders = []
    for number in (1, 2):
        steps = list(schedule.epoch(number))
        assert [task.name for task, _ in steps] == order
        for name, given in posts.items():
            seen = [post.id for task, batch in steps for post in batch if task.name == name]
            assert sorted(seen) == sorted(post.id for post in given)
        orders.append([post.id for _, batch in steps for post in batch])
    assert orders[0] != orders[1]


@pytest.mark.parametrize(
    ("decay", "warmup"), [("constant", 0.1), ("linear", 0.0), ("linear", 0.25), ("cosine", 0.1)]
)
def test_rates_rise_from_the_first_step_then_decay(decay: str, warmup: float) -> None:
    chosen = TrainingSettings.model_validate({"decay": decay, "warmup": warmup})
    for total in (1, 7, 100):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        factor = rate_factor(optimizer, total, chosen)
        assert optimizer.param_groups[0]["initial_lr"] == 1.0
        warm = int(warmup * total)
        for step in range(total):
            left = (total - step) / max(total - warm, 1)
            cosine = (1 - math.cos(math.pi * left)) / 2  # Loshchilov and Hutter 2017, Eq. 5
            after = {"constant": 1.0, "linear": left, "cosine": cosine}[decay]
            expected = (step + 1) / warm if step < warm else after
            assert factor(step) == pytest.approx(expected, abs=1e-12)


def test_a_run_leaves_all_its_files(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = train(settings(data, epochs=3, tensorboard=True), run)
    lines = records(run)
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    best = max(lines, key=lambda line: line["dev"]["strict"]["f1"])
    assert (result.f1, result.epoch) == (best["dev"]["strict"]["f1"], best["epoch"])
    yaml.safe_load((run / "config.yaml").read_text())  # no Python object
    assert load_run(run / "config.yaml").training.epochs == 3
    kept = {"epoch-0002", "epoch-0003", f"epoch-{result.epoch:04d}"}  # the last two, and the best
    assert {path.name for path in (run / "checkpoints").iterdir()} == kept
    assert Tagger.from_pretrained(run).predict("RT @ user1 Lake Como").text
    assert not list(tmp_path.rglob("*.pt")) + list(tmp_path.rglob("*.bin"))
    events = EventAccumulator(str(run / "tensorboard" / "rpbert")).Reload()
    for name, values in (
        ("loss/tagging", [line["loss"]["tagging"] for line in lines]),
        ("dev/f1", [line["dev"]["strict"]["f1"] for line in lines]),
    ):
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert found == [(i, pytest.approx(value)) for i, value in enumerate(values, 1)]


def test_shared_moments_are_those_of_one_optimiser_with_changing_rates() -> None:
    model = tiny("rpbert")
    chosen = settings(Path(), moments="shared").training
    tasks = [RelationTask([], chosen.relation), TaggingTask([], chosen.tagging)]
    apart = [task.optimizer(model.system, chosen) for task in tasks]
    share_moments(apart)
    twin = copy.deepcopy(model.system)
    one = torch.optim.AdamW(twin.parameters())
    mine, others = list(model.system.parameters()), list(twin.parameters())
    for turn in (0, 1, 1, 0, 1):
        learning = {id(p): g["lr"] for g in apart[turn].param_groups for p in g["params"]}
        gradients = [torch.randn_like(parameter) for parameter in mine]
        for parameter, gradient in zip(mine, gradients, strict=True):
            parameter.grad = gradient.clone()
        apart[turn].step()
        for rate in {*learning.values()}:  # one optimiser, asked once for each rate
            for parameter, other, gradient in zip(mine, others, gradients, strict=True):
                other.grad = gradient if learning.get(id(parameter)) == rate else None
            one.param_groups[0]["lr"] = rate
            one.step()
    for parameter, other in zip(mine, others, strict=True):
        torch.testing.assert_close(parameter, other, atol=1e-6, rtol=1e-5)


def test_what_cannot_be_trained_is_refused_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rpbert.training.train.get_available_trackers", list)
    with pytest.raises(InputError, match=r"training\.track.*rpbert\[track\]"):
        train(settings(tmp_path, track=["tensorboard"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    none = RATES.model_copy(update=dict.fromkeys(RATES.model_dump(), 0.0))
    with pytest.raises(InputError, match=r"training\.tagging"):
        TaggingTask([], none).optimizer(tiny("bert").system, TrainingSettings())


@pytest.mark.parametrize(
    ("system", "found"), [("bert", "reads text alone"), ("lstm_cnn", "tags no")]
)
@pytest.mark.parametrize("options", [{"agreement": 1.0}, {"evidence_dropout": 0.5}], ids=str)
def test_two_views_need_words_and_evidence(
    data: Path, tmp_path: Path, system: str, found: str, options: dict[str, float]
) -> None:
    with pytest.raises(InputError, match=rf"training\.{next(iter(options))}: .*{found}"):
        train(settings(data, system, **options), tmp_path / "run")


def test_the_saved_config_gives_the_same_weights_again_with_two_threads(tmp_path: Path) -> None:
    # Batches large enough that PyTorch divides the gradient of indexing between threads.
    make(tmp_path / "data", posts=60, seed=0)
    demos = demo_settings("rpbert", tmp_path / "data", seed=5)
    training = demos.training.model_copy(update={"epochs": 1})
    annealed = {**demos.model, "gate": "gumbel"}
    once = demos.model_copy(update={"training": training, "model": annealed})
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        one = train(once, tmp_path / "one").model
        two = train(load_run(tmp_path / "one" / "config.yaml"), tmp_path / "two").model
    finally:
        torch.set_num_threads(threads)
    weights = [(model / "model.safetensors").read_bytes() for model in (one, two)]
    assert weights[0] == weights[1]
    assert not torch.are_deterministic_algorithms_enabled()  # left as it was found
    temperature = load_file(two / "model.safetensors")["gate.temperature"]
    assert float(temperature) == pytest.approx(0.1)  # fallen to its end


def test_the_gradient_is_clipped(data: Path, tmp_path: Path) -> None:
    """With a norm of nearly 0, Adam's epsilon outweighs the gradient and nothing moves."""
    weights = {}
    for norm in (1e-12, 1.0):
        run = tmp_path / str(norm)
        train(settings(data, "bilstm_crf", optimizer="adam", clip_norm=norm, epochs=1), run)
        weights[norm] = load_file(run / "checkpoints/epoch-0001/system.safetensors")
    set_seed(0)  # the start is drawn by the seed, as the runs drew theirs
    options = parse_options(settings(data, "bilstm_crf").model)
    new = TaggingModel.create(options, list(open_data(data).read("train"))).system.state_dict()
    moved = {n: max(float((w[k] - new[k]).abs().max()) for k in new) for n, w in weights.items()}
    assert moved[1e-12] < 1e-5 < 1e-3 < moved[1.0]


def test_bfloat16_learns(data: Path, tmp_path: Path) -> None:
    train(settings(data, "bert", epochs=3, precision="bf16"), tmp_path / "run")
    losses = [line["loss"]["tagging"] for line in records(tmp_path / "run")]
    assert losses[-1] < losses[0]


def test_posts_without_tags_are_named_and_malformed_gold_trains(tmp_path: Path) -> None:
    """Twitter-2015's gold has sequences that start with I-."""
    for split, tags in (("train", ["O", "I-LOC"]), ("dev", None)):
        rows = [{"id": str(i), "tokens": ["a", "Como"], "tags": tags} for i in range(4)]
        text = "\n".join(json.dumps({k: v for k, v in row.items() if v}) for row in rows)
        (tmp_path / f"{split}.jsonl").write_text(text)
    chosen = settings(tmp_path, "bilstm_crf", epochs=1)
    with pytest.raises(InputError, match=r"dev\.jsonl.*no tags"):
        train(chosen, tmp_path / "run")
    shutil.copy(tmp_path / "train.jsonl", tmp_path / "dev.jsonl")
    train(chosen, tmp_path / "run")
    assert 0 < records(tmp_path / "run")[0]["loss"]["tagging"] < 100


NAME = "tagger.to_tags.weight"


def moved(system: System, by: float) -> Tensor:
    """Move every weight, and give one of them."""
    with torch.no_grad():
        for parameter in system.parameters():
            parameter.add_(by)
    return system.get_parameter(NAME).detach().clone()


def test_the_moving_average_is_the_recurrence() -> None:
    system = tiny("bilstm_crf").system
    mean = moving_average(system, 0.5)
    expected = None
    for step in range(1, 9):
        value = moved(system, 1.0 / step)
        mean.update_parameters(system)
        keep = min(0.5, step / (9 + step))
        expected = value if expected is None else keep * expected + (1 - keep) * value
        torch.testing.assert_close(mean.module.get_parameter(NAME), expected)


def test_the_mean_computes_with_modules_of_its_own() -> None:
    """A caption encoder that shares the encoder's table reads that of the mean."""
    model = tiny("rpbert", evidence={"captions": {}})
    mean = moving_average(model.system, 0.9)
    mean.update_parameters(model.system)
    batch = model.collator()(made_posts())
    before = mean.module.eval()(batch).emissions
    moved(model.system, 1.0)
    torch.testing.assert_close(mean.module(batch).emissions, before)


def test_a_run_scores_and_saves_the_mean(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, scored = Decoder.decode, []

    def watched(self: Decoder, *rest: Any) -> Any:
        scored.append(self.model.system is self.system)  # and with its own CRF
        return decode(self, *rest)

    monkeypatch.setattr(Decoder, "decode", watched)
    chosen = settings(data, "bilstm_crf", average={"ema": 0.9}, epochs=3, keep_checkpoints=3)
    result = train(chosen, tmp_path / "run")
    assert all(scored)
    checkpoints = tmp_path / "run" / "checkpoints"
    saved = load_file(result.model / "model.safetensors")
    kept = load_file(checkpoints / f"epoch-{result.epoch:04d}" / "average.safetensors")
    assert torch.equal(saved[NAME], kept[f"module.{NAME}"])
    # The score that chose the epoch is that of the model as it is saved.
    dev = list(open_data(data).read("dev"))
    found = Tagger.from_pretrained(result.model, "cpu").decoder.decode(dev)
    scores = score_tags([post.tags or () for post in dev], [answer.tags for answer in found])
    last = load_file(checkpoints / f"epoch-{result.epoch:04d}" / "system.safetensors")
    (crf,) = (name for name in saved if name.endswith("transitions"))
    assert not torch.equal(last[crf], saved[crf])
    assert scores.strict.f1 == result.f1


def test_a_loss_or_weight_that_is_no_number_stops_a_run(data: Path, tmp_path: Path) -> None:
    """The last good checkpoint stays, and no line of metrics holds NaN."""
    for rate in (math.inf, math.nan):
        with pytest.raises(ValidationError, match="finite"):
            Rates(head=rate, encoder=0, projection=0, visual=0)
    rates = {"head": 1e30, "encoder": 0.0, "projection": 0.0, "visual": 0.0}
    given = settings(data, "bilstm_crf", epochs=3, tagging=rates)
    place = r"training\.tagging: .* not finite in step \d+ of epoch 1, rates [0-9.]+e\+\d+;"
    with pytest.raises(InputError, match=place + ".*no checkpoint is there yet: lower the rates"):
        train(given, tmp_path / "run")
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.parametrize("where", ["loss", "weight"])
def test_the_last_good_checkpoint_stays_where_numbers_are_lost_later(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    step, run = Trainer.step, tmp_path / "run"

    def failing(self: Trainer, task: Any, batch: Any) -> Tensor:
        summed = step(self, task, batch)
        if self.progress.epoch == 1:
            if where == "loss":
                return summed * math.nan
            if self.progress.step == 1:  # the last one of the epoch
                with torch.no_grad():
                    self.system.get_parameter(NAME)[0] = math.inf
        return summed

    monkeypatch.setattr(Trainer, "step", failing)
    with pytest.raises(InputError, match=f"a {where} .* of epoch 2, .*epoch-0001 is kept"):
        train(settings(data, "bilstm_crf", epochs=3), run)
    assert [record["epoch"] for record in records(run)] == [1]
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["epoch-0001"]
    assert Tagger.from_pretrained(run).model.notes["epoch"] == 1


def test_the_memory_of_long_posts_and_many_tags_is_told_before_the_first_step() -> None:
    model, usual = tiny("bert"), made_posts()
    assert expected_memory(model, usual, 8) == ""
    long = Post.from_words("long", ("word",) * 50_000, origin="train.txt:7")
    line = expected_memory(model, [*usual, long], 8)
    assert re.match(
        r"50,000 words in train\.txt:7 and \d+ tags: a step may take some [0-9.]+ GiB", line
    )
    tags = tag_set([str(number) for number in range(10_000)])
    known = copy.copy(model)
    known.vocabulary = replace(model.vocabulary, tags=tags)
    line = expected_memory(known, usual, 8)
    # Scores of steps from tag to tag alone: 2 · 20,001² · 8 numbers of 4 bytes.
    assert float(re.search(r"some ([0-9.]+) GiB", line)[1]) > 23  # type: ignore[index]
