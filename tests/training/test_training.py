"""Training: Algorithm 1's order, rates, and what a run leaves behind."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from rpbert.config.run import TrainingSettings, load_run
from rpbert.data.readers import open_data
from rpbert.errors import InputError
from rpbert.inference import Tagger
from rpbert.models import parse_options
from rpbert.storage.model_folder import TaggingModel
from rpbert.synthetic.controlled import make
from rpbert.synthetic.demo import settings_of as demo_settings
from rpbert.training.repeatable import seed_everything
from rpbert.training.tasks import (
    BlockSchedule,
    InterleavedSchedule,
    RelationTask,
    TaggingTask,
    share_moments,
)
from rpbert.training.train import train
from rpbert.training.trainer import rate_factor
from rpbert.types import Post
from tests.conftest import made_posts, tiny
from tests.training_runs import data_folder, settings


def test_an_epoch_is_all_of_task_1_then_all_of_task_2() -> None:
    posts = made_posts(8)
    rates = settings(Path()).training.tagging
    schedule = BlockSchedule([RelationTask(posts, rates), TaggingTask(posts, rates)], 3, seed=1)
    for number in (1, 2):
        steps = list(schedule.epoch(number))
        assert [task.name for task, _ in steps] == ["relation"] * 3 + ["tagging"] * 3
        for name in ("relation", "tagging"):
            seen = [post.id for task, batch in steps for post in batch if task.name == name]
            assert sorted(seen) == sorted(post.id for post in posts)
    first, second = (
        [post.id for _, batch in schedule.epoch(number) for post in batch] for number in (1, 2)
    )
    assert first != second


def test_interleaved_tasks_take_turns_however_long_they_are() -> None:
    long, short = made_posts(8), made_posts(4)
    rates = settings(Path()).training.tagging
    schedule = InterleavedSchedule([RelationTask(short, rates), TaggingTask(long, rates)], 2, 1)
    steps = list(schedule.epoch(1))
    names = [task.name for task, _ in steps]
    assert names == ["tagging", "relation", "tagging", "tagging", "relation", "tagging"]
    for name, posts in (("relation", short), ("tagging", long)):
        seen = [post.id for task, batch in steps for post in batch if task.name == name]
        assert sorted(seen) == sorted(post.id for post in posts)


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0.1), (4, 0.5), (9, 1.0), (10, 1.0), (55, 0.5), (99, 1 / 90)]
)
def test_rates_rise_then_fall(step: int, expected: float) -> None:
    schedule = TrainingSettings(warmup=0.1, decay="linear")
    assert rate_factor(step, 100, schedule) == pytest.approx(expected)


def test_cosine_decay_is_torchs() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    oracle = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40)
    chosen = TrainingSettings(decay="cosine")
    for step in range(40):
        assert rate_factor(step, 40, chosen) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        oracle.step()


def test_the_paper_has_constant_rates() -> None:
    assert {rate_factor(step, 50, TrainingSettings()) for step in range(50)} == {1.0}


def test_a_run_leaves_config_metrics_model_and_checkpoint(tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = train(settings(data_folder(tmp_path / "data")), run)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert {"relation", "tagging"} == set(lines[0]["loss"])
    best = max(lines, key=lambda line: line["dev"]["strict"]["f1"])
    assert result.f1 == best["dev"]["strict"]["f1"]
    assert result.epoch == best["epoch"]
    assert load_run(run / "config.yaml").training.epochs == 3
    kept = {"epoch-0002", "epoch-0003", f"epoch-{result.epoch:04d}"}  # the last two, and the best
    assert {path.name for path in (run / "checkpoints").iterdir()} == kept
    assert Tagger.from_pretrained(run).predict("RT @ user1 Lake Como").text
    assert not list(tmp_path.rglob("*.pt")) + list(tmp_path.rglob("*.bin"))


def test_shared_moments_are_those_of_one_optimiser_with_changing_rates() -> None:
    model = tiny("rpbert")
    chosen = settings(Path(), moments="shared").training
    tasks = [RelationTask([], chosen.relation), TaggingTask([], chosen.tagging)]
    apart = [task.optimizer(model.system, chosen) for task in tasks]
    share_moments(apart)
    twin = copy.deepcopy(model.system)
    one = torch.optim.AdamW(twin.parameters())
    for turn in (0, 1, 1, 0, 1):
        learning = {id(p): g["lr"] for g in apart[turn].param_groups for p in g["params"]}
        for mine, other in zip(model.system.parameters(), twin.parameters(), strict=True):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone() if id(mine) in learning else None
        apart[turn].step()
        rates = {learning.get(id(p)) for p in model.system.parameters()} - {None}
        for rate in rates:  # one optimiser, asked once for each rate
            kept = [p.grad for p in twin.parameters()]
            for mine, other in zip(model.system.parameters(), twin.parameters(), strict=True):
                if learning.get(id(mine)) != rate:
                    other.grad = None
            one.param_groups[0]["lr"] = rate
            one.step()
            for parameter, gradient in zip(twin.parameters(), kept, strict=True):
                parameter.grad = gradient
    for mine, other in zip(model.system.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-5)


def test_images_that_cannot_be_read_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = data_folder(tmp_path / "data")
    (data / "images" / "1.jpg").unlink()
    (data / "images" / "2.jpg").write_bytes(b"broken")
    train(settings(data, epochs=1), tmp_path / "run")
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())
    assert line["images"]["tagging"] == {"used": 6, "missing": 1, "unreadable": 1}
    assert "evidence of tagging: 1 missing, 1 unreadable, 6 used" in capsys.readouterr().err


def test_the_same_seed_gives_the_same_weights_with_two_threads(tmp_path: Path) -> None:
    # Batches large enough that PyTorch divides the gradient of indexing between threads.
    make(tmp_path / "data", posts=100, seed=0)
    demos = demo_settings("rpbert", tmp_path / "data", seed=5)
    once = demos.model_copy(update={"training": demos.training.model_copy(update={"epochs": 1})})
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        models = [train(once, tmp_path / name).model for name in ("one", "two", "three")]
    finally:
        torch.set_num_threads(threads)
    first, *others = (load_file(model / "model.safetensors") for model in models)
    for other in others:
        for name in first:
            assert torch.equal(first[name], other[name]), name
    assert not torch.are_deterministic_algorithms_enabled()  # left as it was found


def test_the_temperature_has_fallen_to_its_end_when_training_ends(tmp_path: Path) -> None:
    chosen = settings(data_folder(tmp_path / "data"), epochs=2)
    run = chosen.model_copy(update={"model": {**chosen.model, "gate": "gumbel"}})
    train(run, tmp_path / "run")
    weights = load_file(tmp_path / "run/checkpoints/epoch-0002/system.safetensors")
    assert float(weights["gate.temperature"]) == pytest.approx(0.1)


def test_the_gradient_is_clipped(tmp_path: Path) -> None:
    """With a norm of nearly 0, Adam's epsilon outweighs the gradient and nothing moves."""
    data = data_folder(tmp_path / "data")
    weights = {}
    for norm in (1e-12, 1.0):
        run = tmp_path / str(norm)
        train(settings(data, "bilstm_crf", optimizer="adam", clip_norm=norm, epochs=1), run)
        weights[norm] = load_file(run / "checkpoints/epoch-0001/system.safetensors")
    start = TaggingModel.create  # drawn by the seed, as the runs drew theirs
    seed_everything(0)
    source = list(open_data(data).read("train"))
    new = start(parse_options(settings(data, "bilstm_crf").model), source).system.state_dict()
    moved = {n: max(float((w[k] - new[k]).abs().max()) for k in new) for n, w in weights.items()}
    assert moved[1e-12] < 1e-5 < 1e-3 < moved[1.0]


@pytest.mark.parametrize(
    ("system", "told"),
    [
        ("bilstm_crf", (False, False, True, False)),
        ("bert", (True, False, True, False)),
        ("rpbert", (True, True, True, True)),
        ("lstm_cnn", (False, True, False, True)),
    ],
)
def test_a_run_tells_of_what_its_system_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], system: str, told: tuple[bool, ...]
) -> None:
    train(settings(data_folder(tmp_path / "data"), system, epochs=1), tmp_path / "run")
    said = capsys.readouterr().err
    parts = ("weights of the encoder", "evidence of ", "for the scores of spans", "for r\n")
    assert tuple(part in said for part in parts) == told


def test_posts_without_tags_are_named(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    row = json.dumps({"id": "1", "text": "hello"})
    for split in ("train", "dev"):
        (data / f"{split}.jsonl").write_text(row + "\n")
    with pytest.raises(InputError, match=r"train\.jsonl.*no tags"):
        train(settings(data, "bilstm_crf"), tmp_path / "run")


def test_the_saved_config_trains_the_same_run_again(tmp_path: Path) -> None:
    data = data_folder(tmp_path / "data")
    train(settings(data, "bilstm_crf", epochs=1), tmp_path / "first")
    again = load_run(tmp_path / "first" / "config.yaml")
    train(again, tmp_path / "second")
    weights = [
        load_file(tmp_path / name / "model" / "model.safetensors") for name in ("first", "second")
    ]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_a_run_written_as_yaml_holds_no_python_object(tmp_path: Path) -> None:
    train(settings(data_folder(tmp_path / "data"), "bilstm_crf", epochs=1), tmp_path / "run")
    yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())


def test_malformed_gold_trains_to_a_finite_loss(tmp_path: Path) -> None:
    """Twitter-2015's gold has sequences that start with I-."""
    data = tmp_path / "data"
    data.mkdir()
    rows = [Post.from_words(str(i), ("a", "Como"), tags=("O", "I-LOC")) for i in range(4)]
    text = "".join(
        json.dumps({"id": p.id, "tokens": list(p.words), "tags": list(p.tags or ())}) + "\n"
        for p in rows
    )
    for split in ("train", "dev"):
        (data / f"{split}.jsonl").write_text(text)
    train(settings(data, "bilstm_crf", epochs=1), tmp_path / "run")
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())
    assert 0 < line["loss"]["tagging"] < 100
