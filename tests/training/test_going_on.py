"""A trained model as the start of another run, runs that end early, and what is told of them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rpbert.config.reading import write_yaml
from rpbert.config.run import load_run
from rpbert.inference import Tagger
from rpbert.models.saved import TaggingModel
from rpbert.training.checkpoint import Progress
from rpbert.training.progress import Callback, TrainingResult
from rpbert.training.train import train
from rpbert.types import Post
from tests.conftest import made_posts, tiny
from tests.test_cli import run as command
from tests.training_runs import data_folder, places, records, settings

NEW = Post.from_words("new", ("RT", "Zelda", "Zelda", "éé"), tags=("O", "B-GAME", "I-GAME", "O"))


@pytest.mark.parametrize("system", ["bilstm_crf", "rpbert", "vl_bert"])
def test_a_grown_model_reads_every_post_as_before(system: str, tmp_path: Path) -> None:
    """New tags, words and characters come behind the old ones, which keep their weights."""
    before = tiny(system)
    before.save(tmp_path / "model")
    after = TaggingModel.load(tmp_path / "model").grown([NEW, *made_posts()[:3]])
    known, added = before.vocabulary, after.vocabulary
    assert added.tags == (*known.tags, "B-GAME", "I-GAME")
    assert "zelda" in added.words
    assert "é" in added.characters
    assert added.words[: len(known.words)] == known.words
    posts = [*made_posts(4), NEW]
    old = before.system.eval()(before.collator()(posts))
    new = after.system.eval()(after.collator()(posts))
    torch.testing.assert_close(new.emissions[..., : len(known.tags)], old.emissions)
    if old.relation_score is not None:
        torch.testing.assert_close(new.relation_score, old.relation_score)
    same = TaggingModel.load(tmp_path / "model").grown(made_posts())
    taggers = [Tagger(model, device="cpu").predict_batch(made_posts(6)) for model in (before, same)]
    assert taggers[0] == taggers[1]


def test_a_run_goes_on_from_a_model_with_a_new_type(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = data_folder(tmp_path / "old"), data_folder(tmp_path / "new")
    for file in new.glob("*.txt"):
        file.write_text(file.read_text().replace("-ORG", "-group"))
    first = settings(old, "rpbert", epochs=1)
    train(first, tmp_path / "one")
    write_yaml(first, tmp_path / "run.yaml")
    given = ["train", tmp_path / "run.yaml", "--from", tmp_path / "one", f"data.path={new}"]
    code, _, err = command(capsys, *given, "model.gate=none", "--output", tmp_path / "two")
    assert (code, "--from" in err) == (2, True)
    shown = command(capsys, *given, "training.epochs=1", "--dry-run", "--json")
    assert shown[0] == 0, shown[2]
    assert "about " in shown[2]
    given += ["training.epochs=2", "--output", tmp_path / "two"]
    code, _, err = command(capsys, *given)
    assert code == 0, err
    assert "new types: group" in err
    assert err.count("about ") == 1
    losses = [line["loss"]["tagging"] for line in records(tmp_path / "two")]
    assert losses[1] < losses[0]
    model = TaggingModel.load(tmp_path / "two" / "model")
    assert {"B-ORG", "B-group", "I-group"} < {*model.vocabulary.tags}
    assert model.notes["initial_weights"] == str(tmp_path / "one")
    assert load_run(tmp_path / "two" / "config.yaml").start == str(tmp_path / "one")
    assert command(capsys, *given, "--resume")[0] == 0


def test_the_encoder_of_a_run_starts_another_system(tmp_path: Path) -> None:
    trained = tiny("bert")
    trained.save(tmp_path / "run" / "model")
    taken = tiny("rpbert", None, encoder={"pretrained": str(tmp_path / "run")})
    assert trained.system.encoder is not None
    assert taken.system.encoder is not None
    kept = trained.system.encoder.state_dict()
    assert kept.keys() == taken.system.encoder.state_dict().keys() - {"image_type.vector"}
    for name, value in kept.items():
        assert torch.equal(value, taken.system.encoder.state_dict()[name])
    words = ["RT", "Ada", "Lovelaces"]
    assert trained.tokenizer is not None
    assert taken.tokenizer is not None
    assert trained.tokenizer(words)["input_ids"] == taken.tokenizer(words)["input_ids"]
    assert taken.system.initial_weights == str(tmp_path / "run")


@pytest.mark.parametrize("f1", itertools.product([0.1, 0.2], repeat=4))
def test_patience_counts_epochs_without_a_better_one(f1: tuple[float, ...]) -> None:
    for patience, epochs in itertools.product((None, 1, 2), (2, 4)):
        progress, best = Progress("", {}), (-1.0, 0)
        while not progress.ended(epochs, patience):
            progress.epoch += 1
            if f1[progress.epoch - 1] > best[0]:
                best = progress.best = (f1[progress.epoch - 1], progress.epoch)
        expected = epochs
        for end in range(1, epochs):  # the first end with `patience` epochs behind its best one
            top = f1[:end].index(max(f1[:end])) + 1
            if patience and end - top >= patience:
                expected = end
                break
        assert progress.epoch == expected


class Watcher(Callback):
    def __init__(self, last: int) -> None:
        self.last, self.told = last, list[Any]()

    def on_step(self, epoch: int, step: int, task: str, loss: float) -> None:
        self.told.append((epoch, step, task, loss > 0))

    def on_epoch(self, record: Any) -> bool:
        self.told.append(record)
        return bool(record["epoch"] == self.last)

    def on_end(self, result: TrainingResult) -> None:
        self.told.append(result)


def test_a_callback_ends_a_run_which_goes_on_where_it_ended(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trackers and the callback are told the figures of metrics.jsonl."""
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/mlruns")
    chosen = settings(data, "bert", epochs=3, track=["tensorboard", "mlflow"])
    run, watcher = tmp_path / "run", Watcher(last=2)
    result = train(chosen, run, callbacks=[watcher])
    steps = [(epoch, step, "tagging", True) for epoch in (1, 2) for step in (1, 2)]
    assert [told for told in watcher.told if isinstance(told, tuple)] == steps
    lines = [told for told in watcher.told if isinstance(told, dict)]
    assert json.loads(json.dumps(lines)) == records(run)
    assert [line["epoch"] for line in lines] == [1, 2]
    assert watcher.told[-1] == result
    f1 = [(line["epoch"], pytest.approx(line["dev"]["strict"]["f1"])) for line in lines]
    events = EventAccumulator(str(run / "tensorboard" / "rpbert")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("dev/f1")] == f1
    (tracked,) = mlflow.search_runs(experiment_names=["rpbert"], output_format="list")
    history = mlflow.MlflowClient().get_metric_history(tracked.info.run_id, "dev/f1")
    assert [(metric.step, metric.value) for metric in history] == f1
    assert train(chosen, run, resume=True).model == run / "model"
    train(chosen, tmp_path / "whole")
    assert places(run)[-1] == "epoch-0003"
    last = ("checkpoints", "epoch-0003", "system.safetensors")
    weights = [load_file(folder.joinpath(*last)) for folder in (run, tmp_path / "whole")]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
