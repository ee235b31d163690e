"""The model card says what the run was, and goes where the model goes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from rpbert.config.run import RunSettings
from rpbert.inference import Tagger
from rpbert.models.saved import TaggingModel
from rpbert.training.train import train
from tests.conftest import tiny
from tests.training_runs import data_folder, records, settings, with_data


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_card_gives_data_scores_and_parts_and_goes_with_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, run = data_folder(tmp_path / "posts|of|made"), tmp_path / "run"
    given = settings(data).model_dump(mode="json")
    train(RunSettings.model_validate({**given, "licence": "cc-by-4.0"}), run)
    card = (run / "model" / "README.md").read_text()
    lines = [line for line in card.splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    for name in ("train.txt", "valid.txt", "test.txt", "relations.tsv"):
        size = f"{(data / name).stat().st_size:,}"
        assert [name, size, f"`{digest(data / name)}`"] in rows
    best = [record for record in records(run) if record["best"]][-1]

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
    for words in ("gate soft", "evidence: blocks", "8 test", f"after epoch {best['epoch']}"):
        assert words in card
    assert "$" not in card
    head = ModelCard.load(run / "model" / "README.md").data
    assert (head.license, head.library_name) == ("cc-by-4.0", "rpbert")
    assert head.eval_results is not None
    f1 = TaggingModel.load(run / "model").notes["dev_f1"]
    assert head.eval_results[0].metric_value == pytest.approx(f1, abs=1e-4)

    edited = card + "\nMeasured on our own posts.\n"
    (run / "model" / "README.md").write_text(edited)
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
    tiny("bert").save(tmp_path / "model")
    assert not (tmp_path / "model" / "README.md").exists()  # nobody wrote one


def test_cards_of_other_systems(data: Path, unlabelled: Path, tmp_path: Path) -> None:
    """The classifier takes no other posts than those with relations, whatever the source."""
    with (unlabelled / "train.txt").open("a") as file:
        file.write("\n\n")
    chosen = settings(unlabelled, "lstm_cnn", epochs=1)
    chosen = with_data(chosen, relations=data, relation_source="mismatch")
    card = (train(chosen, tmp_path / "one").model / "README.md").read_text()
    assert digest(data / "train.txt") in card
    assert digest(unlabelled / "train.txt") not in card
    chosen = settings(unlabelled, "bilstm_crf", epochs=1)
    card = (train(chosen, tmp_path / "two").model / "README.md").read_text()
    assert "evidence: none, text only" in card
    assert "Relation:" not in card
