"""Tables end to end on made posts: resumed, partly impossible, and what is written of them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rpbert.config.run import RunSettings
from rpbert.data.readers import open_data
from rpbert.errors import InputError
from rpbert.evaluation.evaluate import evaluate_posts
from rpbert.evaluation.scoring import ADDS, DOES_NOT_ADD, Evaluation
from rpbert.inference import Tagger
from rpbert.models.saved import TaggingModel
from rpbert.reproduce.make import Request, reproduce
from rpbert.reproduce.rows import SOFT
from rpbert.reproduce.runs import PostScores
from rpbert.reproduce.settings import SharedSettings, load_shared, run_settings
from rpbert.reproduce.table import render
from rpbert.training.progress import Reporter
from rpbert.training.train import train
from rpbert.training.trainer import TrainingResult
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


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data_folder(tmp_path_factory.mktemp("posts") / "twitter2017")


def request_of(table: str, data: Path, output: Path, **changes: Any) -> Request:
    shared = SharedSettings.model_validate(SHARED)
    return replace(Request(table, [data], output, shared, seeds=2), **changes)


def silent(_: str) -> None:
    """Takes what is said."""


def evaluated(run: Path, data: Path) -> Evaluation:
    """What `rpbert evaluate` says of a run."""
    posts = list(open_data(data).read("test"))
    return evaluate_posts(Tagger.from_pretrained(run, "cpu"), posts)


def test_table_6_is_what_evaluate_says_of_each_run(data: Path, tmp_path: Path) -> None:
    said: list[str] = []
    result = reproduce(request_of("table6", data, tmp_path), said.append)
    written = json.loads((tmp_path / "table6.json").read_text())
    assert written == json.loads(json.dumps(result.to_dict()))
    assert (tmp_path / "table6.md").read_text() == render(result)
    with Image.open(tmp_path / "table6.png") as image:
        assert image.width > 200
    assert said[0] == "4 runs, 0 of them done"
    (of_data,) = result.data
    assert [row.row for row in of_data.rows] == ["rpbert-soft", "rpbert-none"]
    assert of_data.groups == "the labels of 8"
    for row in of_data.rows:
        runs = [tmp_path / "runs" / "twitter2017" / row.row / f"seed-{seed}" for seed in (0, 1)]
        tags = [evaluated(run, data).tags for run in runs]
        assert row.figures is not None
        for measure, group in (("f1", ""), ("adds", ADDS), ("does_not", DOES_NOT_ADD)):
            expected = [
                100 * (t.by_group[group] if group else t).strict.f1 for t in tags if t is not None
            ]
            figure = row.figures[measure]  # type: ignore[index]
            assert figure is not None
            assert list(figure.values) == pytest.approx(expected)
            assert figure.mean == pytest.approx(np.mean(expected))
            assert figure.sd == pytest.approx(np.std(expected, ddof=1))
            assert figure.paper is not None
            assert figure.difference == pytest.approx(figure.mean - figure.paper)
            assert (figure.p is None) == (row.row == "rpbert-soft")
        assert row.evidence == "blocks, 8 of 8 test posts"
        assert row.initial_weights == "encoder: random, blocks: random, word vectors: random"
        assert not any((run / "checkpoints").exists() for run in runs)


def test_a_gate_is_measured_between_text_alone_and_the_label(data: Path, tmp_path: Path) -> None:
    result = reproduce(request_of("gates", data, tmp_path, seeds=1, epochs=1), silent)
    (of_data,) = result.data
    names = ["bert", "rpbert-none", "rpbert-soft", "rpbert-mismatch", "rpbert-oracle"]
    assert [row.row for row in of_data.rows] == names
    runs = tmp_path / "runs" / "twitter2017"
    learnt_from = {
        name: TaggingModel.load(runs / name / "seed-0" / "model").notes.get("relation_source")
        for name in names
    }
    assert learnt_from == {
        **dict.fromkeys(names, None),
        "rpbert-soft": "the gate learns from labels (8 posts)",
        "rpbert-mismatch": "the gate learns from mismatch, 8 own and 8 exchanged images (16 posts)",
    }
    oracle = PostScores(**json.loads((runs / "rpbert-oracle/seed-0/test.json").read_text()))
    assert oracle.relation == oracle.gold_relation
    assert "paper" not in render(result)


def test_without_labels_the_rows_that_are_named_for_them_do_not_run(tmp_path: Path) -> None:
    """They would be the row of exchanged images, and an open gate."""
    bare = data_folder(tmp_path / "twitter2017", relations=False)
    request = request_of("gates", bare, tmp_path, seeds=1, epochs=1)
    only = ("rpbert-soft", "rpbert-mismatch", "rpbert-oracle")
    (of_data,) = reproduce(replace(request, only=only), silent).data
    reasons = {row.row: row.skip_reason for row in of_data.rows}
    assert [reasons[name] for name in only] == [
        "no relation labels in the training split",
        "",
        "no relation labels in the test split",
    ]
    assert of_data.groups == ""  # nothing told them apart


def test_some_rows_are_added_to_the_table_of_all_that_are_done(data: Path, tmp_path: Path) -> None:
    whole = request_of("table6", data, tmp_path, seeds=1, epochs=1)
    first = reproduce(replace(whole, only=("rpbert-none",)), silent)
    assert [row.skip_reason for row in first.data[0].rows] == ["not yet", ""]
    both = reproduce(replace(whole, only=("rpbert-soft",)), silent)
    assert [row.skip_reason for row in both.data[0].rows] == ["", ""]
    assert (tmp_path / "table6.md").read_text() == render(both)


def test_what_tells_rows_apart_cannot_be_shared(data: Path, tmp_path: Path) -> None:
    shared = SharedSettings.model_validate({**SHARED, "systems": {"rpbert": {"gate": "gumbel"}}})
    with pytest.raises(InputError, match=r"systems\.rpbert\.gate: found gumbel; expected nothing"):
        reproduce(request_of("gates", data, tmp_path, shared=shared), silent)


def test_a_table_that_was_stopped_goes_on_where_it_was(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = reproduce(request_of("table6", data, tmp_path / "whole", seeds=1), silent)
    request = request_of("table6", data, tmp_path / "stopped", seeds=1)
    evaluations = 0
    plain = Reporter.evaluated

    def stopping(self: Reporter, record: dict[str, Any]) -> None:
        nonlocal evaluations
        evaluations += 1
        if evaluations == 4:  # the second epoch of the second row
            raise KeyboardInterrupt
        plain(self, record)

    with monkeypatch.context() as patch:
        patch.setattr(Reporter, "evaluated", stopping)
        with pytest.raises(KeyboardInterrupt):
            reproduce(request, silent)
    half = json.loads((tmp_path / "stopped" / "table6.json").read_text())
    assert [row["skip_reason"] for row in half["data"][0]["rows"]] == ["", "not yet"]

    trained: list[tuple[str, bool]] = []

    def counting(settings: RunSettings, run: Path, *, resume: bool = False) -> TrainingResult:
        trained.append((run.parent.name, resume))
        return train(settings, run, resume=resume)

    monkeypatch.setattr("rpbert.reproduce.runs.train", counting)
    resumed = reproduce(request, silent)
    assert trained == [("rpbert-none", True)]
    lines = (tmp_path / "stopped/runs/twitter2017/rpbert-none/seed-0/metrics.jsonl").read_text()
    assert [json.loads(line)["epoch"] for line in lines.splitlines()] == [1, 2]
    figures = [[row.figures for row in r.data[0].rows] for r in (whole, resumed)]
    assert figures[0] == figures[1]
    trained.clear()
    assert reproduce(request, silent) == resumed
    assert trained == []


def test_rows_that_cannot_run_say_why_and_the_others_run(data: Path, tmp_path: Path) -> None:
    shared = {**SHARED, "systems": {"bert": {"encoder": {"pretrained": "no/where"}}}}
    request = request_of(
        "table4",
        data,
        tmp_path,
        seeds=1,
        epochs=1,
        shared=SharedSettings.model_validate(shared),
        only=("bilstm_crf", "bert", "rpbert-soft"),
    )
    said: list[str] = []
    (of_data,) = reproduce(request, said.append).data
    first, second, third = (row for row in of_data.rows if row.row in request.only)
    assert sum("bert: cannot run: " in line and "no/where" in line for line in said) == 1
    assert "no/where" in second.skip_reason
    assert first.figures is not None
    assert third.figures is not None
    assert first.evidence == "text only"
    assert first.figures["f1"] is not None
    assert first.figures["f1"].p is None
    assert third.figures["f1"] is not None
    assert third.figures["f1"].p is not None  # against the row above that ran
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
    request = request_of("table6", data, tmp_path, shared=shared)
    (of_data,) = reproduce(request, silent).data
    assert all(words in row.skip_reason for row in of_data.rows)
    assert not (tmp_path / "runs").exists()


def test_table_3_scores_the_relation(data: Path, tmp_path: Path) -> None:
    request = request_of("table3", data, tmp_path, seeds=1, only=("rpbert-soft",))
    (*_, row) = reproduce(request, silent).data[0].rows
    relation = evaluated(tmp_path / "runs/twitter2017/rpbert-soft/seed-0", data).relation
    assert relation is not None
    assert row.figures is not None
    assert row.figures["relation"] is not None
    assert row.figures["relation"].mean == pytest.approx(100 * relation.adds.f1)
    assert row.figures["relation"].paper is None  # which is TRC's


def test_table_3_reads_the_words_of_other_relations_as_the_model_knows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Posts as in Twitter-2017, and relations whose posts are raw text, as TRC's are."""
    data = data_folder(tmp_path / "twitter2017")  # there @ stands apart
    shutil.copytree(data / "images", tmp_path / "trc" / "images")
    for split in ("train", "dev", "test"):
        rows = [
            {"id": str(i), "text": "go #NBA", "image": f"images/{i}.jpg", "relation": i % 2}
            for i in range(2)
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "trc" / f"{split}.jsonl").write_text(lines)
    scored: list[Post] = []
    of = PostScores.of

    def watched(tagger: Tagger, posts: list[Post], *, attention: bool) -> PostScores:
        scored.extend(posts)
        return of(tagger, posts, attention=attention)

    monkeypatch.setattr(PostScores, "of", watched)
    request = request_of("table3", data, tmp_path / "out", seeds=1, epochs=1)
    request = replace(request, relations=tmp_path / "trc", only=("rpbert-soft",))
    (*_, row) = reproduce(request, silent).data[0].rows
    assert row.evidence == "blocks, 2 of 2 test posts"
    assert [post.words for post in scored] == [("go", "#", "NBA")] * 2


def test_a_post_of_several_images_is_of_its_strongest_relation() -> None:
    post, *_ = made_posts()
    shown = post.with_(images=(*post.images, PostImage(picture(3), relation=1.0)))
    scores = PostScores.of(Tagger(tiny("rpbert"), "cpu"), [post, shown], attention=False)
    assert scores.gold_relation == [0.0, 1.0]


def test_table_3_needs_labels(tmp_path: Path) -> None:
    bare = data_folder(tmp_path / "bare", relations=False)
    (row, *_) = reproduce(request_of("table3", bare, tmp_path / "out"), silent).data[0].rows
    assert row.skip_reason == "no relation labels in the test split"


def test_fig_3_is_the_mean_of_s_tv_by_r(data: Path, tmp_path: Path) -> None:
    from rpbert.analysis import explain_batch

    result = reproduce(request_of("fig3", data, tmp_path, seeds=1), silent)
    with Image.open(tmp_path / "fig3.png") as image:
        assert image.width > 200
    posts = list(open_data(data).read("test"))
    runs = tmp_path / "runs" / "twitter2017"
    soft, open_ = (
        explain_batch(Tagger.from_pretrained(runs / name / "seed-0", "cpu"), posts)
        for name in ("rpbert-soft", "rpbert-none")
    )
    for row, explained in zip(result.data[0].rows, (open_, soft), strict=True):
        groups: dict[bool, list[float]] = {True: [], False: []}
        for seen, own in zip(soft, explained, strict=True):
            assert seen.prediction.relation is not None
            assert own.s_tv_per_word is not None
            groups[seen.prediction.relation > 0.5].append(own.s_tv_per_word)
        assert row.figures is not None
        for measure, values in (("high", groups[True]), ("low", groups[False])):
            figure = row.figures[measure]  # type: ignore[index]
            assert (figure is None) == (not values)
            if figure is not None:
                assert figure.mean == pytest.approx(np.mean(values))


def test_a_quick_pass_takes_fewer_posts_and_its_folder_no_other_settings(
    data: Path, tmp_path: Path
) -> None:
    request = request_of("table4", data, tmp_path, seeds=1, only=("bilstm_crf",), posts=5, epochs=1)
    result = reproduce(request, silent)
    (of_data,) = result.data
    assert (of_data.train, of_data.test) == (5, 5)
    assert result.settings["training"]["epochs"] == 1  # and not the two of the settings
    run = tmp_path / "runs" / "twitter2017" / "bilstm_crf" / "seed-0"
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 1
    with pytest.raises(InputError, match="other settings of data: posts"):
        reproduce(replace(request, posts=None), silent)


@pytest.mark.parametrize("change", ["posts", "relations"])
def test_data_that_changed_meanwhile_are_told_before_anything_runs(
    data: Path, tmp_path: Path, change: str
) -> None:
    """Scores post by post of other posts would be paired with those of the next row."""
    copy = shutil.copytree(data, tmp_path / "twitter2017")
    request = request_of("table4", copy, tmp_path, seeds=1, only=("bilstm_crf",), epochs=1)
    reproduce(request, silent)
    if change == "posts":
        lines = (copy / "test.txt").read_text().split("\n\n")
        (copy / "test.txt").write_text("\n\n".join(lines[:-1]) + "\n")
    else:
        (copy / "relations.tsv").unlink()
    with pytest.raises(InputError, match="found scores of other posts; expected those of the"):
        reproduce(request, silent)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"table": "table7"}, "one of table3, table4"),
        ({"only": ("bort",)}, "found bort"),
        ({"data": "twice"}, "two folders named twitter2017"),
    ],
)
def test_a_request_for_what_is_not_there(
    data: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    if "data" in changes:
        changes = {"data": [data, data]}
    request = replace(request_of("table4", data, tmp_path), **changes)
    with pytest.raises(InputError, match=words):
        reproduce(request, silent)


def test_an_output_that_is_a_file_is_refused_before_anything_runs(
    data: Path, tmp_path: Path
) -> None:
    output = tmp_path / "tables"
    output.write_text("notes")
    request = replace(request_of("table4", data, tmp_path), output=output)
    said: list[str] = []
    with pytest.raises(InputError, match="no folder that can be written; expected one for DIR"):
        reproduce(request, said.append)
    assert said == []
    assert output.read_text() == "notes"


def test_shared_settings_are_the_papers_without_a_file(tmp_path: Path) -> None:
    shared = load_shared(None, ["model.encoder.pretrained=weights", "training.epochs=3"])
    assert shared.training.batch_size == 8
    assert shared.training.epochs == 3
    assert shared.model.encoder is not None
    assert shared.model.encoder.pretrained == "weights"
    assert shared.systems["rpbert"] == {"tagger": {"lstm_hidden": 1024}}
    assert list(shared.model.evidence.kinds) == ["blocks", "global"]
    (tmp_path / "shared.yaml").write_text("systems: {bort: {}}\n")
    with pytest.raises(InputError, match="bort, which is no system"):
        load_shared(tmp_path / "shared.yaml")
    (tmp_path / "shared.yaml").write_text("model: {evidence: {block: {}}}\n")
    with pytest.raises(InputError, match="did you mean blocks"):
        load_shared(tmp_path / "shared.yaml")


def test_shape_of_the_evidence_is_each_systems_own(data: Path, tmp_path: Path) -> None:
    """Of the kinds in the file a system takes the one its paper takes."""
    posts = list(open_data(data).read("train"))
    shared = SharedSettings.model_validate(SHARED)
    chosen = run_settings(SOFT, shared, {"path": data}, posts, {"seed": 3})
    shapes = {kind: given["shape"] for kind, given in chosen.model["evidence"].items()}
    found = shapes, chosen.training.seed, chosen.training.tagging
    assert found == ({"blocks": RESNET}, 3, shared.training.tagging)
