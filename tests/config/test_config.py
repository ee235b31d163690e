"""Settings: presets, overrides, and the one line for every fault."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from rpbert.config.model import Settings, TaggerSettings
from rpbert.config.run import RunSettings, load_run, write_yaml
from rpbert.errors import InputError
from rpbert.models import SYSTEMS, parse_options
from rpbert.reproduce.rows import ROWS
from rpbert.reproduce.settings import load_shared, run_settings
from tests.conftest import made_posts

ROOT = Path(__file__).parents[2]
MINIMAL: dict[str, Any] = {"model": {"system": "bilstm_crf"}, "data": {"path": "posts"}}


def with_evidence(evidence: Any) -> dict[str, Any]:
    return {"system": "rpbert", "encoder": {"pretrained": "x"}, "evidence": evidence}


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({**MINIMAL, **changes}))
    return path


def test_the_paper_preset_is_table_2(tmp_path: Path) -> None:
    """The figures as Table 2 prints them; a biLSTM beside RpBERT has 1024 hidden units."""
    run = load_run(written(tmp_path))
    training = run.training
    assert run.preset == "paper"
    assert training.batch_size == 8
    assert training.optimizer == "adam"
    for rates in (training.relation, training.tagging):
        assert rates.head == 1e-4
        assert rates.encoder == rates.visual == rates.projection == 1e-6
    tagger = parse_options(run.model).tagger
    assert isinstance(tagger, TaggerSettings)
    assert (tagger.lstm_hidden, tagger.lstm_layers) == (256, 2)
    assert (tagger.word_dimension, tagger.character_dimension) == (300, 25)
    assert tagger.dropout == 0.5


def test_a_key_of_the_file_goes_before_the_preset(tmp_path: Path) -> None:
    run = load_run(written(tmp_path, preset="tuned", training={"tagging": {"head": 7.0}}))
    assert run.training.tagging.head == 7.0
    assert run.training.tagging.encoder == 1e-4  # the preset's
    assert run.training.epochs == 5


def test_overrides_go_before_the_file(tmp_path: Path) -> None:
    run = load_run(written(tmp_path), ["training.epochs=3", "model.gate=soft", "data.path=/x"])
    assert run.training.epochs == 3
    assert run.model["gate"] == "soft"
    assert run.data.path == Path("/x")


def test_paths_of_the_file_are_relative_to_it(tmp_path: Path) -> None:
    assert load_run(written(tmp_path)).data.path == tmp_path / "posts"


def test_what_is_saved_reads_back_the_same(tmp_path: Path) -> None:
    run = load_run(written(tmp_path, preset="tuned"))
    write_yaml(run, tmp_path / "saved.yaml")
    assert load_run(tmp_path / "saved.yaml") == run


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trainig": {}}, ["trainig", "did you mean training?"]),
        ({"training": {"epoch": 3}}, ["training.epoch", "did you mean epochs?"]),
        ({"training": {"tagging": {"heads": 1}}}, ["training.tagging.heads", "did you mean head?"]),
        ({"training": {"epochs": 0}}, ["training.epochs = 0", "expected at least 1"]),
        ({"training": {"epochs": "many"}}, ["training.epochs = 'many'", "expected a whole number"]),
        ({"preset": "best"}, ["preset = 'best'", "expected 'paper' or 'tuned'"]),
        ({"preset": "tunde"}, ["preset = 'tunde'", "did you mean tuned?"]),
        ({"training": {"precision": "bf61"}}, ["training.precision = 'bf61'", "mean bf16?"]),
        ({"training": {"warmup": 1}}, ["training.warmup = 1;", "expected less than 1"]),
        ({"training": {"epochs": 1.5}}, ["training.epochs = 1.5;", "expected a whole number"]),
        ({"training": {"tensorboard": "perhaps"}}, ["expected true or false"]),
        ({"data": {}}, ["data.path"]),
    ],
)
def test_a_fault_is_one_line_with_file_and_key(
    tmp_path: Path, changes: dict[str, Any], words: list[str]
) -> None:
    path = written(tmp_path, **changes)
    with pytest.raises(InputError) as raised:
        load_run(path)
    line = str(raised.value)
    assert "\n" not in line
    assert line.startswith(str(path))
    for word in words:
        assert word in line


def test_a_key_of_an_earlier_version_is_read_at_the_value_that_is_left(tmp_path: Path) -> None:
    encoder = {"shape": {}, "summed_layers": 1, "longest": 64}
    model = {"system": "bert", "encoder": encoder}
    run = load_run(written(tmp_path, model=model, training={"layer_decay": 1.0}))
    assert "layer_decay" not in run.training.model_dump()
    assert parse_options(run.model).model_dump()["encoder"]["max_length"] == 64
    for changes in ("training.layer_decay=0.9", "model.encoder.summed_layers=2"):
        with pytest.raises(InputError, match=changes.partition("=")[0].replace(".", ".*")):
            parse_options(load_run(written(tmp_path, model=model), [changes]).model)


@pytest.mark.parametrize("content", ["", "- a\n", "a: [", "\x00", "42"])
def test_a_file_that_is_no_mapping_is_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(content)
    with pytest.raises(InputError) as raised:
        load_run(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("override", ["epochs", "=3", "data.path.x=1", "training.epochs=["])
def test_a_broken_override_is_one_line(tmp_path: Path, override: str) -> None:
    with pytest.raises(InputError):
        load_run(written(tmp_path), [override])


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({}, "one of bilstm_crf"),
        ({"system": "bart"}, "system bart"),
        ({"system": "rpbrt"}, "vl_bert, .*; did you mean rpbert?"),
        (with_evidence({"blocks": {"shape": 3}}), "shape = 3; expected a text or a block"),
        ({"system": "bilstm_crf", "gate": "soft"}, "unknown key gate"),
        ({"system": "bert"}, "no key encoder"),
        ({"system": "bert", "encoder": {}}, "exactly one of pretrained and shape"),
        (
            {
                "system": "rpbert",
                "encoder": {"pretrained": "x"},
                "evidence": {"blocks": {"shap": 1}},
            },
            "shape?",
        ),
        (
            {"system": "bilstm_crf", "evidence": "captions"},
            "evidence with a value; expected nothing",
        ),
        ({"system": "bilstm_crf", "encoder": {"shape": {}}}, "encoder with a value"),
        (with_evidence("block"), "captions, global, ocr, regions; did you mean blocks"),
        (with_evidence({}), "evidence with no kind; expected one of blocks, global"),
        (
            {**with_evidence({"captions": {}, "regions": {}}), "system": "umt"},
            "regions and captions as evidence for umt; expected one kind",
        ),
        (with_evidence("blocks"), "exactly one of pretrained and shape"),
        (with_evidence({"global": {"widht": 3}}), "unknown key evidence.global.widht"),
        (with_evidence({"regions": {"width": 3, "shape": {}}}), "at most one of pretrained"),
    ],
)
def test_a_system_refuses_what_it_does_not_read(model: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words.replace("?", r"\?")):
        parse_options(model)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.name)
def test_every_config_of_the_project_is_valid(path: Path) -> None:
    if not path.name.startswith("reproduce-"):
        parse_options(load_run(path).model)
        return
    # Shared by the rows of a table: each system there is finds what it needs.
    shared = load_shared(path)
    posts = made_posts()
    for row in ROWS.values():
        if row.system in SYSTEMS and not (row.large and shared.model.large is None):
            settings = run_settings(row, shared, {"path": "posts"}, posts, {})
            parse_options(settings.model)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("captions", {"captions": {"longest": 64}}),
        ({"captions": None}, {"captions": {"longest": 64}}),
        ({"captions": {"longest": 5}}, {"captions": {"longest": 5}}),
        (
            "global",
            {
                "global": dict.fromkeys(
                    (
                        "pretrained",
                        "shape",
                        "image_size",
                        "mean",
                        "deviation",
                        "resampling",
                        "width",
                    )
                )
            },
        ),
    ],
)
def test_evidence_is_a_kind_by_name_or_with_settings(given: Any, expected: Any) -> None:
    options = parse_options(with_evidence(given))
    written = options.model_dump(mode="json")
    assert written["evidence"] == expected
    assert parse_options(written) == options


def test_a_folder_of_weights_beside_the_file_is_found_for_any_evidence(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    evidence = {"global": {"pretrained": "weights"}}
    content = {"model": {"system": "rpbert", "evidence": evidence}, "data": {"path": "."}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
    model = load_run(tmp_path / "run.yaml").model
    assert model["evidence"] == {"global": {"pretrained": str(tmp_path / "weights")}}


def keys_of(kind: type[Settings], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key of settings and of the blocks within them, as the path to it."""
    for name, field in kind.model_fields.items():
        path = (*above, field.alias or name)
        yield path
        for inner in (field.annotation, *get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, Settings):
                yield from keys_of(inner, path)


def test_every_misspelt_key_of_a_run_is_told_with_the_right_one(tmp_path: Path) -> None:
    for path in keys_of(RunSettings):
        *blocks, key = path
        override = ".".join([*blocks, key + "x"])
        with pytest.raises(InputError) as told:
            load_run(written(tmp_path), [override + "=1"])
        assert f"unknown key {override};" in str(told.value)
        assert f"did you mean {key}?" in str(told.value)


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_misspelt_key_of_a_model_is_told_with_the_right_one(system: str) -> None:
    for *blocks, key in keys_of(SYSTEMS[system].system.Options):
        given: dict[str, Any] = {"system": system}
        inner = given
        for block in blocks:
            inner = inner.setdefault(block, {})
        inner[key + "x"] = 1
        with pytest.raises(InputError) as told:
            parse_options(given)
        assert f"unknown key {'.'.join([*blocks, key])}x;" in str(told.value)
        assert f"did you mean {key}?" in str(told.value)
