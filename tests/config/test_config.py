"""Settings: presets, overrides, keys of earlier versions, and the one line for every fault."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from rpbert.config.model import Settings, TaggerSettings
from rpbert.config.reading import write_yaml
from rpbert.config.run import RunSettings, load_run
from rpbert.errors import InputError
from rpbert.models import SYSTEMS, parse_options
from rpbert.models.rpbert import RpBertOptions
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
    assert (run.preset, training.batch_size, training.optimizer) == ("paper", 8, "adam")
    for rates in (training.relation, training.tagging):
        assert rates.head == rates.projection == 1e-4  # what starts at random
        assert rates.encoder == rates.visual == 1e-6
    tagger = parse_options(run.model).tagger
    assert isinstance(tagger, TaggerSettings)
    assert (tagger.lstm_hidden, tagger.lstm_layers) == (256, 2)
    assert (tagger.word_dimension, tagger.character_dimension) == (300, 25)
    assert tagger.dropout == 0.5


@pytest.mark.parametrize(
    ("preset", "training", "acts", "detached", "lstm"),
    [
        ("authors-2021", (40, 4, 1e-4, 1e-6, 1e-4, 1e-6, 1.0), "input", True, (256, 3, 0.5)),
        ("authors-2022", (10, 16, 1e-3, 1e-5, 1e-3, 1e-5, 0.05), "before_norm", False, (256, 2, 0)),
    ],
)
def test_the_authors_presets_are_their_programs(
    preset: str, training: Any, acts: str, detached: bool, lstm: Any, tmp_path: Path
) -> None:
    """Training is that of the program; of the model, what there is a setting for."""
    model = with_evidence({"blocks": {"shape": "resnet-18"}})
    run = load_run(written(tmp_path, preset=preset, model=model))
    assert (run.training.moments, run.training.optimizer) == ("shared", "adam")
    epochs, batch, *rates, weight = training
    assert (run.training.epochs, run.training.batch_size) == (epochs, batch)
    for each in (run.training.relation, run.training.tagging):
        assert list(each.model_dump().values()) == rates
    assert run.training.relation_weight == weight
    options = parse_options(run.model)
    assert isinstance(options, RpBertOptions)
    kept = options.tagger
    assert (kept.lstm_hidden, kept.lstm_layers, kept.dropout) == lstm
    assert options.propagation.acts == acts
    assert options.propagation.gradient_from == (1 if detached else 0)
    over = load_run(written(tmp_path, preset=preset, model={**model, "gate": "none"}))
    assert over.model["gate"] == "none"
    other = load_run(written(tmp_path, preset=preset))  # a biLSTM-CRF has no gate
    assert (other.model, other.training) == (MINIMAL["model"], run.training)


def test_overrides_go_before_the_file_and_the_file_before_the_preset(tmp_path: Path) -> None:
    path = written(tmp_path, preset="tuned", training={"tagging": {"head": 7.0}})
    rates = "training.relation={head: &r 1, encoder: *r, projection: *r, visual: *r}"
    run = load_run(path, ["training.batch_size=3", "model.gate=soft", "data.path=/x", rates])
    assert run.training.relation.encoder == run.training.relation.head == 1
    assert (run.training.tagging.head, run.training.tagging.encoder) == (7.0, 1e-4)
    assert (run.training.epochs, run.training.batch_size) == (5, 3)
    assert (run.model["gate"], run.data.path) == ("soft", Path("/x"))
    write_yaml(run, tmp_path / "saved.yaml")
    assert load_run(tmp_path / "saved.yaml") == run
    for broken in ("epochs", "=3", "data.path.x=1", "training.epochs=["):
        with pytest.raises(InputError, match=re.escape(broken)):
            load_run(path, [broken])


def test_an_override_is_of_one_reading() -> None:
    changed = load_shared(None, ["model.encoder.pretrained=other", "training.epochs=3"])
    again = load_shared(None)
    assert changed.model.encoder != again.model.encoder
    assert (changed.training.epochs, again.training.epochs) == (3, 25)


def test_paths_are_relative_to_the_file_and_those_of_overrides_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("weights", "elsewhere"):
        (tmp_path / name).mkdir()
    evidence = {"global": {"pretrained": "weights"}, "blocks": {"pretrained": "hub/name"}}
    model = {"system": "rpbert", "evidence": evidence, "tagger": {"word_vectors": "a.vec"}}
    data = {"path": "posts", "relation_source": {"soft": {"path": "r.tsv"}}}
    path = written(tmp_path, model=model, data=data)
    monkeypatch.chdir(tmp_path / "elsewhere")
    run = load_run(path, ["data.relations=trc"])
    assert run.data.relations == tmp_path / "elsewhere" / "trc"
    assert run.data.relation_source is not None
    assert run.data.relation_source.soft is not None
    assert run.data.relation_source.soft.path == tmp_path / "r.tsv"
    assert run.data.path == tmp_path / "posts"
    assert run.model["tagger"]["word_vectors"] == str(tmp_path / "a.vec")
    assert run.model["evidence"]["global"] == {"pretrained": str(tmp_path / "weights")}
    assert run.model["evidence"]["blocks"] == {"pretrained": "hub/name"}


def test_a_key_of_an_earlier_version_is_read_at_the_value_that_is_left(tmp_path: Path) -> None:
    encoder = {"shape": {}, "summed_layers": 1, "longest": 64}
    model = {"system": "bert", "encoder": encoder}
    run = load_run(written(tmp_path, model=model, training={"layer_decay": 1.0}))
    assert "layer_decay" not in run.training.model_dump()
    assert parse_options(run.model).model_dump()["encoder"]["max_length"] == 64
    for changes in ("training.layer_decay=0.9", "model.encoder.summed_layers=2"):
        with pytest.raises(InputError, match=changes.partition("=")[0].replace(".", ".*")):
            parse_options(load_run(written(tmp_path, model=model), [changes]).model)


@pytest.mark.parametrize(
    ("changes", "found", "hint"),
    [
        ({"training": {"epochs": 0}}, "training.epochs = 0", "at least 1"),
        ({"training": {"seed": -1}}, "training.seed = -1", "at least 0"),
        ({"training": {"warmup": 1}}, "training.warmup = 1", "less than 1"),
        ({"training": {"precision": "bf61"}}, "training.precision = 'bf61'", "mean bf16?"),
        ({"training": {"average": {}}}, "no key training.average.ema", "a value for it"),
        ({"training": {"tagging": 3}}, "training.tagging = 3", "a block"),
        ({"data": {}}, "data.path", "a value"),
        ({"data": {"path": "a", "relation_source": "label"}}, "label", "mismatch"),
    ],
)
def test_a_fault_is_one_line_with_file_and_key(
    tmp_path: Path, changes: dict[str, Any], found: str, hint: str
) -> None:
    path = written(tmp_path, **changes)
    with pytest.raises(InputError) as raised:
        load_run(path)
    line = str(raised.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    assert found in line
    assert hint in line


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({}, "one of bilstm_crf"),
        ({"system": "rpbrt"}, "did you mean rpbert"),
        (with_evidence({"blocks": {"shape": 3}}), "blocks.shape = 3; expected .* or a block"),
        ({"system": "bert", "encoder": {}}, "exactly one of pretrained and shape"),
        ({"system": "bilstm_crf", "evidence": "captions"}, "evidence with"),
        (with_evidence({}), "one of blocks, global"),
        ({**with_evidence({"captions": {}, "regions": {}}), "system": "umt"}, "one kind"),
        (with_evidence({"regions": {"width": 3, "shape": {}}}), "at most one of pretrained"),
    ],
)
def test_a_system_refuses_what_it_does_not_read(model: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_options(model)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.name)
def test_every_config_of_the_project_is_valid(path: Path) -> None:
    if not path.name.startswith("reproduce-"):
        run = load_run(path.stem, ["data.path=posts"])
        assert run == load_run(path, ["data.path=posts"])
        if run.model:  # else it is that of the model to go on from
            parse_options(run.model)
        return
    # Shared by the rows of a table: each system there is finds what it needs.
    shared = load_shared(path)
    posts = made_posts()
    for row in ROWS.values():
        if row.system in SYSTEMS and not (row.large and shared.model.large is None):
            settings = run_settings(row, shared, {"path": "posts"}, posts, {})
            parse_options(settings.model)


@pytest.mark.parametrize("given", ["captions", {"captions": None}])
def test_evidence_is_a_kind_by_name_or_with_settings(given: Any) -> None:
    options = parse_options(with_evidence(given))
    saved = options.model_dump(mode="json")
    assert saved["evidence"].keys() == {"captions"}
    assert parse_options(saved) == options


def keys_of(kind: type[Settings], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key of settings and of the blocks within them, as the path to it."""
    for name, field in kind.model_fields.items():
        path = (*above, field.alias or name)
        yield path
        for inner in (field.annotation, *get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, Settings):
                yield from keys_of(inner, path)


@pytest.mark.parametrize("system", [None, *SYSTEMS])
def test_every_misspelt_key_is_refused_with_the_right_one(
    tmp_path: Path, system: str | None
) -> None:
    kind = SYSTEMS[system].system.Options if system else RunSettings
    unread = {
        k for k in ("encoder", "evidence") if system and not kind.model_fields[k].is_required()
    }
    for *blocks, key in keys_of(kind):
        if unread & {*blocks[:1]}:
            continue
        wrong = ".".join([*blocks, key + "x"])
        changes = f"model.{wrong}=1" if system else f"{wrong}=1"
        with pytest.raises(InputError) as refused:
            parse_options(load_run(written(tmp_path, model={"system": system}), [changes]).model)
        assert f"unknown key {wrong};" in str(refused.value)
        assert f"did you mean {key}?" in str(refused.value)
