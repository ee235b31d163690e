"""What Task#1 learns from in training, and what a run says of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.numpy import save_file
from safetensors.torch import load_file

from rpbert.config.data import RelationSources
from rpbert.config.run import TrainingSettings, load_run
from rpbert.errors import InputError
from rpbert.inference import Tagger
from rpbert.storage.model_folder import TaggingModel
from rpbert.training.train import train
from rpbert.types import Regions
from tests.conftest import EVIDENCE, made_posts
from tests.training_runs import data_folder, settings, with_source


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
        assert isinstance(post.images[0].regions, Regions)
        regions[f"{post.id}/features"] = post.images[0].regions.features
        regions[f"{post.id}/boxes"] = post.images[0].regions.boxes
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


def test_relations_of_other_data_train_task_1(tmp_path: Path) -> None:
    data = data_folder(tmp_path / "data", relations=False)
    other = data_folder(tmp_path / "other")
    chosen = settings(data, epochs=1)
    chosen = chosen.model_copy(update={"data": chosen.data.model_copy(update={"relations": other})})
    train(chosen, tmp_path / "run")
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())
    assert set(line["loss"]) == {"relation", "tagging"}
