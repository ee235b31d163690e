"""The model card says what the run was, and goes where the model goes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from rpbert.config.data import DataSettings
from rpbert.config.run import RunSettings
from rpbert.inference import Tagger
from rpbert.storage.model_folder import TaggingModel
from rpbert.training.train import train
from tests.training_runs import data_folder, settings


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("carded")
    data = data_folder(folder / "posts|of|made")
    chosen = settings(data, epochs=2)
    chosen = RunSettings.model_validate({**chosen.model_dump(mode="json"), "licence": "cc-by-4.0"})
    train(chosen, folder / "run")
    return folder / "run"


def rows_of(card: str) -> list[list[str]]:
    """Every row of the card's tables."""
    lines = [line for line in card.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_the_card_tells_data_scores_and_parts(run: Path) -> None:
    card = (run / "model" / "README.md").read_text()
    rows = rows_of(card)
    data = run.parent / "posts|of|made"
    for name in ("train.txt", "valid.txt", "test.txt", "relations.tsv"):
        content = (data / name).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        assert [name, f"{len(content):,}", f"`{digest}`"] in rows
    lines = (run / "metrics.jsonl").read_text().splitlines()
    best = [record for record in map(json.loads, lines) if record["best"]][-1]

    def shown(scores: dict[str, Any]) -> list[str]:
        shares = [f"{100 * scores[key]:.2f}" for key in ("precision", "recall", "f1")]
        return [*shares, str(scores["support"])]

    for key, scorer in (("strict", "seqeval, strict IOB2"), ("lenient", "conlleval")):
        assert ["all entities", scorer, *shown(best["dev"][key])] in rows
        for label, scores in best["dev"][key]["by_type"].items():
            assert [label, scorer, *shown(scores)] in rows
        for group in ("image adds", "image doesn't add"):
            assert [group, scorer, *shown(best["dev"]["by_group"][group][key])] in rows
    assert ["image adds", "r > 0.5", *shown(best["dev_relation"]["adds"])] in rows
    for words in (
        "# rpbert, gate soft",
        "evidence: blocks",
        "the gate learns from labels (8 posts)",
        "initial weights of the encoder: random",
        "as in Twitter-2017",
        "8 training, 8 development, 8 test",
        f"after epoch {best['epoch']}",
        "Of these weights: cc-by-4.0.",
    ):
        assert words in card


def test_hubs_read_the_head(run: Path) -> None:
    from huggingface_hub import ModelCard

    head = ModelCard.load(run / "model" / "README.md").data
    assert head.license == "cc-by-4.0"
    assert head.library_name == "rpbert"
    assert head.eval_results is not None
    f1 = TaggingModel.load(run / "model").notes["dev_f1"]
    assert head.eval_results[0].metric_value == pytest.approx(f1, abs=1e-4)
    assert yaml.safe_load((run / "model" / "README.md").read_text().split("---")[1])


def test_the_card_goes_with_the_model_and_may_be_edited(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = run / "model" / "README.md"
    edited = card.read_text() + "\nMeasured on our own posts.\n"
    card.write_text(edited)
    tagger = Tagger.from_pretrained(run)
    tagger.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "README.md").read_text() == edited

    sent: dict[str, bytes] = {}

    class Hub:
        def create_repo(self, name: str, **rest: Any) -> str:
            return name

        def upload_folder(self, repo_id: str, folder_path: Path) -> None:
            sent.update({p.name: p.read_bytes() for p in folder_path.iterdir() if p.is_file()})

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    tagger.push_to_hub("you/model")
    assert sent["README.md"] == edited.encode()
    assert "README.md" not in sent["manifest.json"].decode()


def test_a_model_nobody_wrote_a_card_for_has_none(tmp_path: Path) -> None:
    from tests.conftest import tiny

    tiny("bert").save(tmp_path / "model")
    assert not (tmp_path / "model" / "README.md").exists()


def test_relations_that_are_all_a_system_reads_are_listed(tmp_path: Path) -> None:
    """Relation classifiers take no other posts, whatever the source."""
    data: dict[str, Any] = {
        "path": data_folder(tmp_path / "unread"),
        "relations": data_folder(tmp_path / "read"),
        "relation_source": "mismatch",
    }
    with (data["path"] / "train.txt").open("a") as file:
        file.write("\n\n")
    chosen = settings(tmp_path, "lstm_cnn", epochs=1).model_copy(
        update={"data": DataSettings.model_validate(data)}
    )
    card = (train(chosen, tmp_path / "run").model / "README.md").read_text()
    listed = [
        hashlib.sha256((data[name] / "train.txt").read_bytes()).hexdigest() in card
        for name in ("relations", "path")
    ]
    assert listed == [True, False]


def test_text_only_systems_have_cards_without_a_relation(tmp_path: Path) -> None:
    data = data_folder(tmp_path / "data", relations=False)
    result = train(settings(data, "bilstm_crf", epochs=1), tmp_path / "run")
    card = (result.model / "README.md").read_text()
    assert "evidence: none, text only" in card
    assert "Relation:" not in card
    assert "not stated by who trained it" in card
