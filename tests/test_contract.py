"""The public contract: names, files and numbers that scripts of users rely on.

`tests/contract` holds what version 0.1.0 printed and wrote before the package was reorganised:
`golden.json`, three tiny models on made posts with their predictions, and a run with a checkpoint.
Only the command line and `rpbert.Tagger` are used here, so the tests run on any version.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors import safe_open

from rpbert import Entity, InputError, Prediction, Tagger
from tests.conftest import made_posts, tiny
from tests.test_cli import run as call

ROOT = Path(__file__).parents[1]
SAVED = Path(__file__).parent / "contract"
GOLDEN: dict[str, Any] = json.loads((SAVED / "golden.json").read_text("utf-8"))
MODELS = {"bert": "bert/model", "rpbert": "rpbert", "rpbert-evidence": "rpbert-evidence"}


def answer(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    """The JSON document that a command prints."""
    code, out, err = call(capsys, *arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


ROWS = json_lines((SAVED / "posts.jsonl").read_text("utf-8"))


def key_paths(value: Any, at: str = "") -> Iterator[str]:
    """Every key of a JSON document as a path: items of lists as `[]`, names of types as TYPE."""
    if isinstance(value, dict):
        for key, inner in value.items():
            name = "TYPE" if key in ("PER", "LOC", "ORG", "MISC") else key
            yield from key_paths(inner, f"{at}.{name}".lstrip("."))
    elif isinstance(value, list) and value:
        for inner in value:
            yield from key_paths(inner, f"{at}[]")
    else:
        yield at


def assert_keys(document: Any, name: str) -> None:
    missing = set(GOLDEN["keys"][name]) - set(key_paths(document))
    assert not missing


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def split_folder(folder: Path) -> Path:
    """The made posts as a folder of JSON lines whose splits are all the same."""
    shutil.copytree(SAVED / "images", folder / "images")
    for split in ("train", "dev", "test"):
        shutil.copy(SAVED / "posts.jsonl", folder / f"{split}.jsonl")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return split_folder(tmp_path_factory.mktemp("contract") / "data")


@pytest.mark.parametrize("command", GOLDEN["options"])
def test_a_command_takes_the_options_it_took(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    code, shown, _ = call(capsys, *command.split(), "--help")
    shown_names = re.findall(r"^ +(--[a-z-]+)(?: / (--[a-z-]+))?", shown, re.MULTILINE)
    assert code == 0
    assert set(GOLDEN["options"][command]) <= {name for pair in shown_names for name in pair}


def test_the_module_runs_as_the_command() -> None:
    command = [sys.executable, "-m", "rpbert", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^  ([a-z]+)  ", shown, re.MULTILINE)) >= {
        name.split()[0] for name in GOLDEN["options"]
    }


def test_every_config_is_read(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The fault of each is the missing data, not a setting."""
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        given = ["train", path, "data.path=NOWHERE"]
        if path.name == "more.yaml":
            given += ["--from", SAVED / "models" / "rpbert"]
        elif path.name.startswith("reproduce-"):
            given = ["reproduce", "table4", "NOWHERE", "--config", path]
        code, _, err = call(capsys, *given, "--output", tmp_path / "run")
        assert code == 2
        assert "NOWHERE" in err.splitlines()[-1], path.name


def test_systems(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = answer(capsys, "systems")
    assert_keys(rows, "systems")
    parameters = {row["name"]: row["parameters"] for row in rows}
    assert parameters == GOLDEN["systems"]
    # BERT-base has 109,482,240 parameters, 590,592 of them in the pooler that no tagger reads.
    assert parameters["bert"] - parameters["bilstm_crf"] > 109_482_240 - 590_592
    monkeypatch.setenv("COLUMNS", "50")  # in a narrow window too names and numbers are whole
    _, shown, _ = call(capsys, "systems")
    assert {row["name"] for row in rows} <= set(shown.split())
    assert len(re.findall(r"\d\.\d M\b", shown)) == len(rows)


def test_a_seed_makes_the_same_bytes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    told = answer(capsys, "data", "make", tmp_path / "made", "--posts", 20, "--seed", 3)
    assert_keys(told, "data make")
    files = [path for path in sorted((tmp_path / "made").rglob("*")) if path.is_file()]
    images = [path for path in files if path.parent.name == "images"]
    texts = [path for path in files if path not in images and path.suffix != ".md"]
    assert [path.name for path in texts] == GOLDEN["made"]["files"]
    for kind, paths in (("texts", texts), ("images", images)):
        digest = hashlib.md5(b"".join(path.read_bytes() for path in paths)).hexdigest()
        assert digest == GOLDEN["made"][kind]


def test_data_check(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    report = answer(capsys, "data", "check", data)
    assert call(capsys, "data", "check", data)[0] == 0
    assert_keys(report, "data check")
    assert sorted(report["splits"]) == sorted(GOLDEN["data check"])
    for name, split in report["splits"].items():
        expected = GOLDEN["data check"][name]
        assert {key: split[key] for key in expected} == expected


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_config_is_trained_and_its_model_evaluated_and_analyzed(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path, name: str
) -> None:
    run, config = tmp_path / "run", SAVED / "models" / name / "config.yaml"
    short = [f"data.path={data}", "training.epochs=1"]
    assert_keys(answer(capsys, "train", config, *short, "--output", run), "train")
    assert names(run) >= {"config.yaml", "metrics.jsonl", "model", "checkpoints"}
    assert names(run / "checkpoints") == {"epoch-0001"}
    if name != "rpbert":
        return
    assert names(run / "model") == set(GOLDEN["model files"])
    (line,) = (run / "metrics.jsonl").read_text().splitlines()
    assert_keys(json.loads(line), "metrics")
    assert_keys(answer(capsys, "evaluate", run, data), "evaluate")
    assert_keys(answer(capsys, "evaluate", run / "model", data, "--by", "type"), "evaluate by type")
    assert_keys(answer(capsys, "analyze", run, data, "--output", tmp_path / "out"), "analyze")
    assert names(tmp_path / "out") >= set(GOLDEN["analyze"])


def numbers(prediction: dict[str, Any]) -> list[float]:
    """The scores of a prediction, taken out of it."""
    found = [entity.pop("score") for entity in prediction["entities"]]
    found += [source.pop("relation") for source in prediction.get("sources", [])]
    relation = prediction.pop("relation")
    return found if relation is None else [*found, relation]


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_model_predicts_what_it_predicted(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    given = [SAVED / "models" / MODELS[name], "--input", SAVED / "input.jsonl"]
    code, out, _ = call(capsys, "predict", *given)
    assert code == 0
    before = json_lines((SAVED / f"{name}.predictions.jsonl").read_text("utf-8"))
    for new, old in zip(json_lines(out), before, strict=True):
        assert list(new)[:5] == ["id", "text", "entities", "relation", "image"]
        assert list(new) == list(old)
        for entity in new["entities"]:
            assert list(entity) == ["text", "label", "start", "end", "score"]
            assert new["text"][entity["start"] : entity["end"]] == entity["text"]
        scores = numbers(new)
        assert all(0 <= score <= 1 for score in scores)
        assert scores == pytest.approx(numbers(old), abs=1e-5)
        assert new == old


def test_a_faulty_row_of_a_lenient_batch_is_exit_code_3(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "posts").mkdir()
    (tmp_path / "posts" / "a.jsonl").write_text('{"id": "1", "text": "Ada"}\n{broken\n')
    given = ["--input", tmp_path / "posts", "--output", f"{tmp_path / 'out'}/"]
    code, _, _ = call(capsys, "predict", SAVED / "models/rpbert", *given)
    assert code == 3
    assert len((tmp_path / "out" / "a.jsonl").read_text().splitlines()) == 1
    assert list((tmp_path / "out").glob("*.errors.jsonl"))


def test_a_saved_run_is_resumed(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(SAVED / "models" / "bert", tmp_path / "run")
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("DATA", str(data)))
    code, _, err = call(capsys, "train", config, "--output", run, "--resume")
    assert code == 0, err
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["epoch"] == 16
    assert last["loss"]["tagging"] == pytest.approx(GOLDEN["resumed loss"], rel=1e-3)


@pytest.mark.parametrize("system", GOLDEN["parameters"])
def test_saved_parameters_keep_their_names(system: str, tmp_path: Path) -> None:
    """Weights of every system that earlier versions saved find their place."""
    tiny(system).save(tmp_path / "model")
    with safe_open(tmp_path / "model" / "model.safetensors", "pt") as file:
        found = {re.sub(r"\.\d+\.", ".#.", name) for name in file.keys()}  # noqa: SIM118
    assert sorted(found) == GOLDEN["parameters"][system]


def test_the_tagger_has_the_methods_it_had() -> None:
    for name, parameters in GOLDEN["tagger"].items():
        found = list(inspect.signature(getattr(Tagger, name)).parameters)
        assert found[: len(parameters)] == parameters


def test_the_tagger_in_python(tmp_path: Path) -> None:
    tagger = Tagger.from_pretrained(SAVED / "models" / "rpbert", device="cpu")
    path = SAVED / "images" / "1.png"
    text = "RT @user1 Lake Como again"
    images: list[Any] = [path, str(path), path.read_bytes(), Image.open(path)]
    first, *others = [tagger.predict(text, image=image) for image in images]
    assert isinstance(first, Prediction)
    assert all(isinstance(entity, Entity) for entity in first.entities)
    assert all(other.to_dict() == first.to_dict() for other in others)
    posts: list[Any] = [*made_posts(3), text, {"text": text, "image": path}]
    batch = tagger.predict_batch(posts)
    assert [found.text for found in batch] == [post.text for post in posts[:3]] + [text, text]
    assert list(tagger.predict_stream(iter(posts))) == batch
    assert "<mark" in first._repr_html_()
    assert first.to_displacy()["ents"][0].keys() == {"start", "end", "label"}
    tagger.save_pretrained(tmp_path / "copy")
    assert Tagger.from_pretrained(tmp_path / "copy", "cpu").predict(text, path) == first
    with pytest.raises(InputError):
        Tagger.from_pretrained(tmp_path / "nowhere")
