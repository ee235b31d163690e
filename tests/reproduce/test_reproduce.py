"""Tables end to end on made posts: resumed, partly impossible, and what is written of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rpbert.analysis import explain_batch
from rpbert.config.reading import read_yaml
from rpbert.config.run import RunSettings
from rpbert.data.readers import open_data
from rpbert.errors import InputError
from rpbert.evaluation.evaluate import evaluate_posts
from rpbert.evaluation.scoring import ADDS, DOES_NOT_ADD, Evaluation
from rpbert.inference import Tagger
from rpbert.models.saved import TaggingModel
from rpbert.reproduce.make import Request, reproduce
from rpbert.reproduce.runs import PostScores
from rpbert.reproduce.settings import SharedSettings, load_shared
from rpbert.reproduce.table import Figure, RowResult, TableResult, render
from rpbert.training.progress import Reporter, TrainingResult
from rpbert.training.train import train
from rpbert.types import Post, PostImage
from tests.conftest import ENCODER, EVIDENCE, RESNET, TAGGER, made_posts, picture, tiny
from tests.training_runs import RATES, data_folder

SHARED: dict[str, Any] = {
    "preset": "tuned",
    "model": {
        "encoder": ENCODER,
        "evidence": {**EVIDENCE["blocks"], **EVIDENCE["global"]},
        "tagger": TAGGER,
    },
    "training": {
        "epochs": 2,
        "batch_size": 4,
        "relation": RATES,
        "tagging": RATES,
        "device": "cpu",
    },
}
GUMBEL = SharedSettings.model_validate({**SHARED, "systems": {"rpbert": {"gate": "gumbel"}}})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data_folder(tmp_path_factory.mktemp("posts") / "twitter2017")


def request_of(table: str, data: Path, output: Path, **changes: Any) -> Request:
    """Of one epoch, or of the two that the tables of one folder share."""
    shared = {**SHARED, "training": {**SHARED["training"], "epochs": changes.pop("epochs", 1)}}
    return replace(Request(table, [data], output, SharedSettings.model_validate(shared)), **changes)


def rows_of(request: Request, note: Callable[[str], None] = print) -> dict[str, RowResult]:
    """The rows of a table of one data set, after it is made."""
    (of_data,) = reproduce(request, note).data
    return {row.row: row for row in of_data.rows}


def figure_of(row: RowResult, measure: str) -> Figure:
    figure = (row.figures or {}).get(measure)  # type: ignore[call-overload]
    assert isinstance(figure, Figure)
    return figure


@pytest.fixture(scope="module")
def table6(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TableResult]:
    """Table 6 of two seeds; other tables can be made in its folder, from its runs."""
    said: list[str] = []
    output = tmp_path_factory.mktemp("table6")
    result = reproduce(
        request_of("table6", data, output, seeds=2, epochs=2, by="labels"), said.append
    )
    assert said[0] == "4 runs, 0 of them done"
    return output, result


def run_of(output: Path, row: str, seed: int = 0) -> Path:
    return output / "runs" / "twitter2017" / row / f"seed-{seed}"


def evaluated(run: Path, data: Path) -> Evaluation:
    """What `rpbert evaluate` says of a run."""
    posts = list(open_data(data).read("test"))
    return evaluate_posts(Tagger.from_pretrained(run, "cpu"), posts)


def test_table_6_is_what_evaluate_says_of_each_run(
    data: Path, table6: tuple[Path, TableResult]
) -> None:
    output, result = table6
    assert json.loads((output / "table6.json").read_text()) == json.loads(
        json.dumps(result.to_dict())
    )
    assert (output / "table6.md").read_text() == render(result)
    (of_data,) = result.data
    assert [row.row for row in of_data.rows] == ["rpbert-soft", "rpbert-none"]
    assert of_data.groups == "the labels of 8"
    for row in of_data.rows:
        runs = [run_of(output, row.row, seed) for seed in (0, 1)]
        tags = [evaluated(run, data).tags for run in runs]
        for measure, group in (("f1", ""), ("adds", ADDS), ("does_not", DOES_NOT_ADD)):
            expected = [
                100 * (t.by_group[group] if group else t).strict.f1 for t in tags if t is not None
            ]
            figure = figure_of(row, measure)
            assert list(figure.values) == pytest.approx(expected)
            assert figure.mean == pytest.approx(np.mean(expected))
            assert figure.sd == pytest.approx(np.std(expected, ddof=1))
            assert figure.paper is not None
            assert (figure.p is None) == (row.row == "rpbert-soft")
        assert row.evidence == "blocks, 8 of 8 test posts"
        assert row.initial_weights == "encoder: random, blocks: random, word vectors: random"
        assert not any((run / "checkpoints").exists() for run in runs)
        # Of the kinds in the settings a system takes the one its paper takes.
        settings = read_yaml(runs[1] / "config.yaml")
        assert list(settings["model"]["evidence"]) == ["blocks"]
        assert settings["model"]["evidence"]["blocks"]["shape"] == RESNET
        assert settings["training"]["seed"] == 1
        assert settings["training"]["tagging"]["head"] == RATES["head"]


def test_table_3_and_fig_3_score_the_same_runs(
    data: Path, table6: tuple[Path, TableResult]
) -> None:
    said: list[str] = []
    output, _ = table6
    changes: dict[str, Any] = {"epochs": 2}
    only = request_of("table3", data, output, only=("rpbert-soft",), **changes)
    row = rows_of(only, said.append)["rpbert-soft"]
    relation: Any = evaluated(run_of(output, "rpbert-soft"), data).relation
    assert figure_of(row, "relation").mean == pytest.approx(100 * relation.adds.f1)
    assert figure_of(row, "relation").paper is None  # which is TRC's

    rows = rows_of(request_of("fig3", data, output, **changes), said.append)
    assert said == ["1 runs, 1 of them done", "2 runs, 0 of them done"]  # none is trained again
    posts = list(open_data(data).read("test"))
    names = ("rpbert-soft", "rpbert-none")
    explained = [
        explain_batch(Tagger.from_pretrained(run_of(output, name), "cpu"), posts) for name in names
    ]
    high = np.array([(seen.prediction.relation or 0) > 0.5 for seen in explained[0]])
    for name, own in zip(names, explained, strict=True):
        values = np.array([seen.s_tv_per_word for seen in own])
        for measure, group in (("high", values[high]), ("low", values[~high])):
            figure = (rows[name].figures or {})[measure]  # type: ignore[index]
            mean = figure.mean if figure else None
            assert mean == (pytest.approx(group.mean()) if len(group) else None)


def test_a_gate_is_measured_between_text_alone_and_the_label(data: Path, tmp_path: Path) -> None:
    result = reproduce(request_of("gates", data, tmp_path), print)
    names = ["bert", "rpbert-none", "rpbert-soft", "rpbert-mismatch", "rpbert-oracle"]
    assert [row.row for row in result.data[0].rows] == names
    learnt_from = {
        name: TaggingModel.load(run_of(tmp_path, name) / "model").notes.get("relation_source")
        for name in names
    }
    assert learnt_from == {
        **dict.fromkeys(names, None),
        "rpbert-soft": "the gate learns from labels (8 posts)",
        "rpbert-mismatch": "the gate learns from mismatch, 8 own and 8 exchanged images (16 posts)",
    }
    scores = json.loads((run_of(tmp_path, "rpbert-oracle") / "test.json").read_text())
    assert scores["relation"] == scores["gold_relation"]
    assert "paper" not in render(result)


def test_without_labels_the_rows_that_are_named_for_them_do_not_run(tmp_path: Path) -> None:
    """They would be the row of exchanged images, and an open gate."""
    bare = data_folder(tmp_path / "twitter2017", relations=False)
    only = ("rpbert-soft", "rpbert-mismatch", "rpbert-oracle")
    (of_data,) = reproduce(request_of("gates", bare, tmp_path, only=only), print).data
    of_training, of_test = (f"no relation labels in the {s} split" for s in ("training", "test"))
    assert [r.skip_reason for r in of_data.rows if r.row in only] == [of_training, "", of_test]
    assert of_data.groups == ""  # nothing told them apart
    of_table3 = rows_of(request_of("table3", bare, tmp_path))
    assert {row.skip_reason for row in of_table3.values()} == {of_test}


def test_a_folder_takes_more_rows_and_no_other_settings_or_posts(
    data: Path, tmp_path: Path
) -> None:
    """Scores post by post of other posts would be paired with those of the next row."""
    copy = shutil.copytree(data, tmp_path / "twitter2017")
    quick = request_of("table6", copy, tmp_path, posts=5)
    first = rows_of(replace(quick, only=("rpbert-none",)))
    assert [row.skip_reason for row in first.values()] == ["not yet", ""]
    result = reproduce(replace(quick, only=("rpbert-soft",)), print)
    (of_data,) = result.data
    assert [row.skip_reason for row in of_data.rows] == ["", ""]
    assert (of_data.train, of_data.test) == (5, 5)
    assert result.settings["training"]["epochs"] == 1
    with pytest.raises(InputError, match=r"data: posts"):
        reproduce(replace(quick, posts=None), print)
    posts = (copy / "test.txt").read_text().split("\n\n")
    (copy / "test.txt").write_text("\n\n".join(posts[:4]) + "\n")
    with pytest.raises(InputError, match=r"test\.json: found scores of other posts"):
        reproduce(quick, print)


def test_a_table_that_was_stopped_goes_on_where_it_was(
    data: Path, tmp_path: Path, table6: tuple[Path, TableResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = request_of("table6", data, tmp_path, epochs=2)
    seen: list[dict[str, Any]] = []
    plain = Reporter.evaluated

    def stopping(self: Reporter, record: dict[str, Any]) -> None:
        seen.append(record)
        if len(seen) == 4:  # the second epoch of the second row
            raise KeyboardInterrupt
        plain(self, record)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Reporter, "evaluated", stopping)
        reproduce(request, print)
    half = json.loads((tmp_path / "table6.json").read_text())
    assert [row["skip_reason"] for row in half["data"][0]["rows"]] == ["", "not yet"]

    trained: list[tuple[str, bool]] = []

    def counting(settings: RunSettings, run: Path, *, resume: bool = False) -> TrainingResult:
        trained.append((run.parent.name, resume))
        return train(settings, run, resume=resume)

    monkeypatch.setattr("rpbert.reproduce.runs.train", counting)
    resumed = reproduce(request, print)
    assert reproduce(request, print) == resumed
    assert trained == [("rpbert-none", True)]
    for row in ("rpbert-soft", "rpbert-none"):
        whole, stopped = (run_of(out, row) / "test.json" for out in (table6[0], tmp_path))
        assert whole.read_text() == stopped.read_text()


def test_rows_that_cannot_run_say_why_and_the_others_run(data: Path, tmp_path: Path) -> None:
    shared = {**SHARED, "systems": {"bert": {"encoder": {"pretrained": "no/where"}}}}
    said: list[str] = []
    chosen = SharedSettings.model_validate(shared)
    only = ("bilstm_crf", "bert", "rpbert-soft")
    rows = rows_of(
        request_of("table4", data, tmp_path, shared=chosen, only=only, seeds=2), said.append
    )
    assert sum("bert: cannot run: " in line and "no/where" in line for line in said) == 1
    assert "no/where" in rows["bert"].skip_reason
    assert rows["bilstm_crf"].evidence == "text only"
    assert figure_of(rows["bilstm_crf"], "f1").p is None
    assert figure_of(rows["rpbert-soft"], "f1").p is None  # `bert` is not there
    assert "not run: " in (tmp_path / "table4.md").read_text()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"encoder": ENCODER, "evidence": "captions"}, "no training post has what captions"),
        ({"encoder": ENCODER, "evidence": "regions"}, "no training post has what regions"),
        ({"encoder": ENCODER}, "the settings offer none"),
        ({"evidence": EVIDENCE["blocks"]}, "no model.encoder"),
    ],
)
def test_a_part_that_cannot_be_had_is_named(
    data: Path, tmp_path: Path, model: dict[str, Any], words: str
) -> None:
    shared = SharedSettings.model_validate({**SHARED, "model": model})
    rows = rows_of(request_of("table6", data, tmp_path, shared=shared))
    assert all(words in row.skip_reason for row in rows.values())
    assert not (tmp_path / "runs").exists()


def test_table_3_reads_the_words_of_other_relations_as_the_model_knows_them(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Posts as in Twitter-2017, where @ stands apart, and relations of raw text, as TRC's are."""
    shutil.copytree(data / "images", tmp_path / "trc" / "images")
    rows = [
        {"id": str(i), "text": "go #NBA", "image": f"images/{i}.jpg", "relation": i}
        for i in range(2)
    ]
    for split in ("train", "dev", "test"):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "trc" / f"{split}.jsonl").write_text(lines)
    scored: list[Post] = []
    of = PostScores.of

    def watched(tagger: Tagger, posts: list[Post], *, attention: bool) -> PostScores:
        scored.extend(posts)
        return of(tagger, posts, attention=attention)

    monkeypatch.setattr(PostScores, "of", watched)
    changes = {"relations": tmp_path / "trc", "only": ("rpbert-soft",)}
    found = rows_of(request_of("table3", data, tmp_path / "out", **changes))
    assert found["rpbert-soft"].evidence == "blocks, 2 of 2 test posts"
    assert [post.words for post in scored] == [("go", "#", "NBA")] * 2


def test_a_post_of_several_images_is_of_its_strongest_relation() -> None:
    post, *_ = made_posts()
    shown = post.with_(images=(*post.images, PostImage(picture(3), relation=1.0)))
    scores = PostScores.of(Tagger(tiny("rpbert"), "cpu"), [post, shown], attention=False)
    assert scores.gold_relation == [0.0, 1.0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"table": "table7"}, "TABLE: found table7"),
        ({"only": ("bort",)}, "--only: found bort"),
        ({"data": "twice"}, "two folders named twitter2017"),
        ({"shared": GUMBEL, "table": "gates"}, r"systems\.rpbert\.gate: found gumbel"),
        ({"output": "notes"}, "notes: .* DIR"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused_before_anything_runs(
    data: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    (tmp_path / "notes").write_text("notes")
    given = {"data": [data, data], "output": tmp_path / "notes"}
    changes = {key: given.get(key, value) for key, value in changes.items()}
    request = replace(request_of("table4", data, tmp_path / "out"), **changes)
    with pytest.raises(InputError, match=words):
        reproduce(request, pytest.fail)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["notes"]


def test_shared_settings_are_the_papers_without_a_file(tmp_path: Path) -> None:
    shared = load_shared(None, ["model.encoder.pretrained=weights", "training.epochs=3"])
    assert (shared.training.batch_size, shared.training.epochs) == (8, 3)
    assert shared.model.encoder is not None
    assert shared.model.encoder.pretrained == "weights"
    assert shared.systems["rpbert"] == {"tagger": {"lstm_hidden": 1024}}
    assert list(shared.model.evidence.kinds) == ["blocks", "global"]
    for wrong, words in (
        ("systems: {bort: {}}", "bort"),
        ("model: {evidence: {block: {}}}", "did you mean blocks"),
    ):
        (tmp_path / "shared.yaml").write_text(wrong)
        with pytest.raises(InputError, match=words):
            load_shared(tmp_path / "shared.yaml")
