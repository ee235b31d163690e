"""Training: Algorithm 1's order, rates, resuming, and what a run leaves behind."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pydantic import ValidationError
from safetensors.numpy import save_file
from safetensors.torch import load_file

from rpbert.config import DataSettings, RelationSources, RunSettings, TrainingSettings, load_run
from rpbert.data import Post
from rpbert.data.controlled import make
from rpbert.data.readers import open_data
from rpbert.data.regions import Regions
from rpbert.demo import settings_of as demo_settings
from rpbert.errors import InputError
from rpbert.inference import Tagger
from rpbert.models import parse_options
from rpbert.models.saved import TaggingModel
from rpbert.repeatable import seed_everything
from rpbert.tasks import (
    BlockSchedule,
    InterleavedSchedule,
    RelationTask,
    TaggingTask,
    share_moments,
)
from rpbert.trainer import Trainer, rate_factor
from rpbert.training import train
from tests.conftest import EVIDENCE, TAGGER, TINY, made_posts, tiny

RATES = {"head": 1e-2, "encoder": 1e-3, "projection": 1e-3, "visual": 1e-3}


def data_folder(folder: Path, *, relations: bool = True) -> Path:
    """Made posts as a data folder."""
    (folder / "images").mkdir(parents=True)
    posts = made_posts(8)
    lines, labels = [], []
    for post in posts:
        lines.append(f"IMGID:{post.id}")
        lines += [f"{word}\t{tag}" for word, tag in zip(post.words, post.tags or (), strict=True)]
        lines.append("")
        labels.append(f"{post.id}\t{int(post.relation or 0)}")
        post.image.save(folder / "images" / f"{post.id}.jpg")  # type: ignore[union-attr]
    for split in ("train", "valid", "test"):
        (folder / f"{split}.txt").write_text("\n".join(lines))
    if relations:
        (folder / "relations.tsv").write_text("\n".join(labels))
    return folder


def settings(data: Path, system: str = "rpbert", **training: Any) -> RunSettings:
    return RunSettings.model_validate(
        {
            "preset": "tuned",
            "model": {"system": system, "tagger": TAGGER, **TINY[system]},
            "data": {"path": data},
            "training": {
                "epochs": 3,
                "batch_size": 4,
                "relation": RATES,
                "tagging": RATES,
                "device": "cpu",
                **training,
            },
        }
    )


def with_source(chosen: RunSettings, source: Any) -> RunSettings:
    """The run with another relation source."""
    data = {**chosen.data.model_dump(), "relation_source": source}
    return chosen.model_copy(update={"data": DataSettings.model_validate(data)})


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


@pytest.mark.parametrize(
    ("system", "moments"), [("rpbert", "task"), ("rpbert", "shared"), ("bert", "task")]
)
def test_resuming_gives_the_weights_of_the_undisturbed_run(
    system: str, moments: str, tmp_path: Path
) -> None:
    """Bit for bit, dropout and all; the disturbed run is stopped after its first epoch."""
    data = data_folder(tmp_path / "data")
    train(settings(data, system, moments=moments), tmp_path / "whole")
    stopped = settings(data, system, moments=moments)

    class Stop(Exception):
        pass

    epoch = Trainer._epoch

    def stopping(self: Trainer, *rest: Any) -> None:
        if self.progress.epoch == 1:
            raise Stop
        epoch(self, *rest)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        patch.setattr(Trainer, "_epoch", stopping)
        train(stopped, tmp_path / "resumed")
    torch.manual_seed(99)
    train(stopped, tmp_path / "resumed", resume=True)
    file = Path("checkpoints/epoch-0003/system.safetensors")
    whole, resumed = load_file(tmp_path / "whole" / file), load_file(tmp_path / "resumed" / file)
    assert whole.keys() == resumed.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name


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


def test_a_run_stopped_before_its_first_checkpoint_starts_anew(tmp_path: Path) -> None:
    data = data_folder(tmp_path / "data")
    chosen = settings(data, "bilstm_crf", epochs=1)
    train(chosen, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    train(chosen, tmp_path / "run", resume=True)
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 1


def test_a_run_killed_while_it_wrote_a_record_or_its_model_goes_on(tmp_path: Path) -> None:
    data, run = data_folder(tmp_path / "data"), tmp_path / "run"
    train(settings(data, "bilstm_crf", epochs=2), run)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "secon')
    (run / "model").rename(run / ".model.old-1234")  # between the two renames of a save
    (run / ".model.new-1234").mkdir()
    result = train(settings(data, "bilstm_crf", epochs=2), run, resume=True)
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
    assert Tagger.from_pretrained(result.model).predict("Ada").text == "Ada"
    assert not list(run.glob(".model*"))


def test_resuming_what_is_no_run_leaves_it_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "run" / ".model.old-1").mkdir(parents=True)
    with pytest.raises(InputError, match="no run"):
        train(settings(tmp_path, "bilstm_crf"), tmp_path / "run", resume=True)
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".model.old-1"]


def test_a_lost_model_is_written_again_from_the_checkpoint_of_the_best_epoch(
    tmp_path: Path,
) -> None:
    data, run = data_folder(tmp_path / "data"), tmp_path / "run"
    result = train(settings(data, "bilstm_crf", epochs=1), run)
    before = load_file(result.model / "model.safetensors")
    shutil.rmtree(run / "model")
    again = train(settings(data, "bilstm_crf", epochs=1), run, resume=True)
    after = load_file(again.model / "model.safetensors")
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert (again.epoch, again.f1) == (result.epoch, result.f1)


def test_a_finished_run_without_its_model_and_its_best_checkpoint_says_so(tmp_path: Path) -> None:
    """The weights of the last epoch are not those of the best."""
    data, run = data_folder(tmp_path / "data"), tmp_path / "run"
    chosen = settings(data, "bilstm_crf", epochs=4, keep_checkpoints=1)
    result = train(chosen, run)
    assert result.epoch < 4
    shutil.rmtree(run / "model")
    shutil.rmtree(run / "checkpoints" / f"epoch-{result.epoch:04d}")
    with pytest.raises(InputError, match="no whole model"):
        train(chosen, run, resume=True)


def test_a_damaged_record_is_named_by_its_line(tmp_path: Path) -> None:
    data, run = data_folder(tmp_path / "data"), tmp_path / "run"
    train(settings(data, "bilstm_crf", epochs=1), run)
    (run / "metrics.jsonl").write_text("{broken\n")
    with pytest.raises(InputError, match=r"metrics\.jsonl:1"):
        train(settings(data, "bilstm_crf", epochs=1), run, resume=True)


def test_a_damaged_checkpoint_is_one_line(tmp_path: Path) -> None:
    data = data_folder(tmp_path / "data")
    chosen = settings(data, "bilstm_crf", epochs=1)
    train(chosen, tmp_path / "run")
    weights = tmp_path / "run" / "checkpoints" / "epoch-0001" / "system.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(InputError, match="epoch-0001"):
        train(chosen, tmp_path / "run", resume=True)


def test_bfloat16_learns_and_a_run_in_another_precision_follows(tmp_path: Path) -> None:
    data = data_folder(tmp_path / "data")
    for precision in ("bf16", "fp32"):
        train(settings(data, epochs=3, precision=precision), tmp_path / precision)
        lines = (tmp_path / precision / "metrics.jsonl").read_text().splitlines()
        losses = [json.loads(line)["loss"]["tagging"] for line in lines]
        assert losses[-1] < losses[0]


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


def test_labels_without_images_are_told_from_no_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = data_folder(tmp_path / "data")
    shutil.rmtree(data / "images")
    train(settings(data, epochs=1), tmp_path / "run")
    assert "relation labels but no image" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["captions", "stored-regions"])
def test_the_relation_is_learnt_from_evidence_that_is_no_image(tmp_path: Path, kind: str) -> None:
    """Task#1 trains on the posts that have the evidence, whatever it is."""
    data = data_folder(tmp_path / "data")
    shutil.rmtree(data / "images")
    regions, captions = {}, []
    for post in made_posts(8)[:6]:
        assert isinstance(post.regions, Regions)
        regions[f"{post.id}/features"] = post.regions.features
        regions[f"{post.id}/boxes"] = post.regions.boxes
        captions.append(f"{post.id}\t{post.caption}")
    save_file(regions, data / "regions.safetensors")
    (data / "captions.tsv").write_text("\n".join(captions))
    chosen = settings(data, epochs=1)
    model = {**chosen.model, "evidence": EVIDENCE[kind]}
    train(chosen.model_copy(update={"model": model}), tmp_path / "run")
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())
    assert line["images"] == {"relation": {"used": 6}, "tagging": {"used": 6, "none": 2}}
    assert line["loss"]["relation"] > 0
    assert line["dev_relation"]["support"] == 6
    predictions = Tagger.from_pretrained(tmp_path / "run").predict_batch(made_posts(8)[5:7])
    assert [p.image for p in predictions] == ["used", "used"]


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


def test_a_system_without_a_relation_classifier_says_that_task_1_is_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = settings(data_folder(tmp_path / "data"), "bert", epochs=1)
    other = chosen.data.model_copy(update={"relations": tmp_path / "trc"})
    train(chosen.model_copy(update={"data": other}), tmp_path / "run")
    assert "Task#1 is skipped; data.relations is not read" in capsys.readouterr().err


def test_an_oracle_without_labels_is_refused(tmp_path: Path) -> None:
    chosen = settings(data_folder(tmp_path / "data", relations=False), epochs=1)
    oracle = chosen.model_copy(update={"model": {**chosen.model, "gate": "oracle"}})
    with pytest.raises(InputError, match="no training post with a relation; expected relation lab"):
        train(oracle, tmp_path / "run")


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


def test_relations_may_come_from_posts_with_tags_of_other_types(tmp_path: Path) -> None:
    data, other = data_folder(tmp_path / "data"), data_folder(tmp_path / "other")
    for split in ("train", "valid", "test"):
        file = other / f"{split}.txt"
        file.write_text(file.read_text().replace("-PER", "-PERSON"))
    chosen = settings(data, epochs=1)
    relations = chosen.data.model_copy(update={"relations": other})
    train(chosen.model_copy(update={"data": relations}), tmp_path / "run")
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())
    assert line["loss"]["relation"] > 0


def test_without_relation_labels_the_pairs_are_made_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = data_folder(tmp_path / "data", relations=False)
    result = train(settings(data, epochs=1), tmp_path / "run")
    said = "the gate learns from mismatch, 8 own and 8 exchanged images (16 posts)"
    assert said in capsys.readouterr().err
    assert TaggingModel.load(result.model).notes["relation_source"] == said
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())
    assert line["images"] == {"relation": {"used": 16}, "tagging": {"used": 8}}


def test_labels_that_no_source_asks_for_are_not_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = data_folder(tmp_path / "data", relations=False)
    chosen = settings(data, epochs=1)
    beside = chosen.model_copy(update={"data": chosen.data.model_copy(update={"relations": data})})
    train(with_source(beside, "mismatch"), tmp_path / "run")
    assert "8 exchanged images (16 posts); data.relations is not read" in capsys.readouterr().err
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert card.count("train.txt") == 1  # of the posts, and not of the labels again
    probabilities = tmp_path / "soft.tsv"
    probabilities.write_text("1\t0.3\n")
    for source, read in (
        ("labels", True),
        ("soft", True),
        ({"soft": {"path": probabilities}}, False),
        ({"mismatch": None, "labels": None}, True),
        ("none", False),
        (None, True),
    ):
        asked = with_source(beside, source).data
        assert asked.relations_read == (data if read else None)
    with pytest.raises(InputError, match="no post with both image and relation"):
        train(with_source(beside, "labels"), tmp_path / "other")


def test_task_1_can_be_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = with_source(settings(data_folder(tmp_path / "data"), epochs=1), "none")
    train(chosen, tmp_path / "run")
    assert "Task#1 is skipped" in capsys.readouterr().err
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())
    assert set(line["loss"]) == {"tagging"}


def test_sources_that_are_mixed_all_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = data_folder(tmp_path / "data")
    (tmp_path / "soft.tsv").write_text("1\t0.25\n3\t0.5\n99\t1\n")
    sources = {
        "labels": {"weight": 2},
        "soft": {"path": tmp_path / "soft.tsv"},
        "mismatch": {"negatives": 3, "weight": 0.5},
    }
    train(with_source(settings(data, epochs=1), sources), tmp_path / "run")
    said = capsys.readouterr().err
    assert "labels (8 posts, each counted 2 times)" in said
    assert "probabilities (2 posts)" in said
    assert "mismatch, 0 own and 24 exchanged images (24 posts, each counted 0.5 times)" in said
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())
    assert line["images"]["relation"] == {"used": 34}
    saved = load_run(tmp_path / "run" / "config.yaml").data.relation_source
    assert saved == RelationSources.model_validate(sources)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("labels", "no training post with both image and relation"),
        ({"soft": {"path": "/nowhere"}}, "no such file"),
    ],
)
def test_a_source_with_nothing_to_learn_from_is_told(
    tmp_path: Path, source: Any, words: str
) -> None:
    data = data_folder(tmp_path / "data", relations=False)
    with pytest.raises(InputError, match=words):
        train(with_source(settings(data), source), tmp_path / "run")


def test_exchanged_images_are_the_same_after_resuming_and_other_in_each_epoch(
    tmp_path: Path,
) -> None:
    data = data_folder(tmp_path / "data")
    chosen = with_source(settings(data, epochs=2, checkpoint_steps=5), "mismatch")
    train(chosen, tmp_path / "whole")
    train(chosen, tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / "checkpoints" / "epoch-0002")
    train(chosen, tmp_path / "resumed", resume=True)
    file = Path("checkpoints/epoch-0002/system.safetensors")
    whole, resumed = load_file(tmp_path / "whole" / file), load_file(tmp_path / "resumed" / file)
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


def test_the_weight_of_task_1_counts_where_moments_are_shared(tmp_path: Path) -> None:
    data, weights = data_folder(tmp_path / "data"), []
    for weight in (1.0, 0.05):
        chosen = settings(data, epochs=1, moments="shared", relation_weight=weight)
        train(chosen, tmp_path / str(weight))
        file = tmp_path / str(weight) / "checkpoints/epoch-0001/system.safetensors"
        weights.append(load_file(file)["encoder.bert.encoder.layer.0.output.dense.weight"])
    assert (weights[0] - weights[1]).abs().max() > 1e-4
    with pytest.raises(ValidationError, match="moments: shared"):
        TrainingSettings(relation_weight=0.05)


def test_an_earlier_run_is_never_written_over(tmp_path: Path) -> None:
    data = data_folder(tmp_path / "data")
    train(settings(data, "bilstm_crf", epochs=1), tmp_path / "run")
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    with pytest.raises(InputError, match="an earlier run"):
        train(settings(data, "bilstm_crf", epochs=1), tmp_path / "run")
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


def test_resuming_with_other_settings_is_refused(tmp_path: Path) -> None:
    data = data_folder(tmp_path / "data")
    train(settings(data, "bilstm_crf", epochs=1), tmp_path / "run")
    with pytest.raises(InputError, match="batch_size"):
        train(settings(data, "bilstm_crf", epochs=1, batch_size=2), tmp_path / "run", resume=True)


def test_posts_without_tags_are_named(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    row = json.dumps({"id": "1", "text": "hello"})
    for split in ("train", "dev"):
        (data / f"{split}.jsonl").write_text(row + "\n")
    with pytest.raises(InputError, match=r"train\.jsonl.*no tags"):
        train(settings(data, "bilstm_crf"), tmp_path / "run")


def test_relations_of_other_data_train_task_1(tmp_path: Path) -> None:
    data = data_folder(tmp_path / "data", relations=False)
    other = data_folder(tmp_path / "other")
    chosen = settings(data, epochs=1)
    chosen = chosen.model_copy(update={"data": chosen.data.model_copy(update={"relations": other})})
    train(chosen, tmp_path / "run")
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())
    assert set(line["loss"]) == {"relation", "tagging"}


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
