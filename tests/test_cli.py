"""The command line: what each command prints, and one line for what the user can fix."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from rpbert import cli
from tests.conftest import TAGGER, TINY, picture, tiny
from tests.training_runs import data_folder, records

Result = tuple[int, str, str]
Call = Callable[..., Result]


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> Result:
    """Exit code, standard output and standard error of a command."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stopped:
        patch.setattr(sys, "argv", ["rpbert", *map(str, arguments)])
        cli.main()
    out, err = capsys.readouterr()
    return int(stopped.value.code or 0), out, err


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    return partial(run, capsys)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    tiny("rpbert").save(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data_folder(tmp_path_factory.mktemp("posts") / "data")


@pytest.fixture
def config(tmp_path: Path, data: Path) -> Path:
    path = tmp_path / "run.yaml"
    content = {
        "preset": "tuned",
        "model": {"system": "rpbert", "tagger": TAGGER, **TINY["rpbert"]},
        "data": {"path": str(data)},
        "training": {"epochs": 1, "batch_size": 4},
    }
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_version_is_the_packages(call: Call) -> None:
    assert call("--version") == (0, f"rpbert {version('rpbert')}\n", "")


def test_train_evaluate_predict(call: Call, config: Path, data: Path, tmp_path: Path) -> None:
    run_folder = tmp_path / "run"
    code, out, err = call("train", config, "training.epochs=2", "--output", run_folder)
    assert (code, "best development F1" in out) == (0, True)
    assert "epoch 2/2: loss" in err
    assert all(line.strip() for line in err.splitlines())  # a log has no blank lines
    code, out, _ = call("evaluate", run_folder, data, "--json")
    scores = json.loads(out)
    assert (code, scores["tags"]["strict"]["support"], scores["relation"]["support"]) == (0, 8, 8)
    code, out, _ = call("evaluate", run_folder, data, "--by", "type")
    assert (code, "LOC" in out) == (0, True)
    code, out, _ = call("predict", run_folder, "--text", "RT Ada Lovelace", "--json")
    assert (code, json.loads(out)["image"]) == (0, "none")


def test_a_file_of_posts(call: Call, model: Path, tmp_path: Path) -> None:
    picture(1).save(tmp_path / "a.png")
    rows = [
        {"id": "1", "text": "Ada Lovelace at Lake Como", "image": "a.png"},
        {"id": "2", "text": "Acme", "image": "gone.png"},
        {"id": "3", "tokens": ["Ada", "Lovelace"], "tags": ["B-PER", "I-PER"]},
    ]
    source, target = tmp_path / "posts.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, err = call("predict", model, "--input", source)
    found = [json.loads(line) for line in out.splitlines()]
    states = [("1", "used"), ("2", "missing"), ("3", "none")]
    assert (code, [(row["id"], row["image"]) for row in found]) == (0, states)
    assert "1 used, 1 none, 1 missing, 0 unreadable" in err
    given = ["predict", model, "--input", source, "--output", target]
    assert call(*given)[0] == 0
    assert target.read_text() == out
    source.write_text((json.dumps(rows[2]) + "\n") * 600 + "{broken\n")
    code, _, err = call(*given, "--strict")
    assert (code, target.read_text()) == (2, out)
    assert "posts.jsonl:601" in err
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("data make FILE", "FILE"),
        ("tag", "tag"),
        ("serve NOWHERE", "NOWHERE"),
        ("benchmark --size huge", "huge"),
        ("convert uniter NOWHERE --output R", "NOWHERE"),
        ("analyze DATA NOWHERE --output R", "no such file"),
        ("train NOWHERE.yaml --output RUN", "NOWHERE.yaml"),
        ("train CONFIG --output FILE", "FILE"),
        ("train CONFIG model.gat=soft --output RUN", "gat"),
        ("train CONFIG", "--output"),
        ("train CONFIG model.system=rpbrt --output RUN", "rpbert?"),
        ("train CONFIG training.epochs=x --output RUN", "training.epochs"),
        ("train CONFIG data.relation_source=label --output RUN", "mismatch"),
        ("train CONFIG --output RUN --resume", "RUN"),
        ("train CONFIG model.evidence.blocks.shape=resnet-9 --output RUN", "resnet-9"),
        ("train CONFIG model.evidence=regions --output RUN", "regions"),
        ("train EMPTY.jsonl --output RUN", "EMPTY.jsonl"),
        ("evaluate NOWHERE DATA", "NOWHERE"),
        ("evaluate MODEL DATA --by colour", "colour"),
        ("evaluate MODEL DATA --split all", "all"),
        ("predict MODEL", "--text"),
        ("predict MODEL --text a --image NOWHERE.jpg", "NOWHERE.jpg"),
        ("predict MODEL --text a --input FILE", "--text"),
        ("predict MODEL --text a --caption b", "blocks"),
        ("predict MODEL --input NOWHERE.jsonl", "NOWHERE.jsonl"),
        ("predict MODEL --input DATA", "folder"),
        ("predict MODEL --input EMPTY.jsonl", "EMPTY.jsonl"),
        ("demo --output DATA", "other files"),
        ("reproduce table4 NOWHERE --output R", "NOWHERE"),
        ("reproduce table4 DATA --output R --config NO.yaml", "NO.yaml"),
        ("reproduce table4 DATA --output R --set model.tager=1", "tagger?"),
    ],
)
def test_wrong_input_gets_one_line_and_exit_code_2(
    call: Call,
    arguments: str,
    named: str,
    model: Path,
    data: Path,
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("FILE").write_text("something")
    Path("EMPTY.jsonl").touch()
    known = {"MODEL": str(model), "DATA": str(data), "CONFIG": str(config)}
    code, out, err = call(*(known.get(word, word) for word in arguments.split(" ")))
    assert (code, out) == (2, "")
    # What a run says before it meets the fault are lines of progress; the fault itself is one.
    (fault,) = [line for line in err.splitlines() if line.startswith("rpbert: ")]
    assert named in fault
    assert "Traceback" not in err
    assert Path("FILE").read_text() == "something"
    assert not Path("RUN").exists() | Path("R").exists()  # nothing is left of what never began


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("begun", [True, False])
def test_a_stopped_run_prints_the_command_that_goes_on(
    call: Call, config: Path, tmp_path: Path, begun: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    late, early = "rpbert.training.train.Trainer.fit", "rpbert.training.train.run_posts"
    monkeypatch.setattr(late if begun else early, interrupted)
    given = ["train", config, "model.tagger={dropout: 0.1}", "--output", tmp_path / "a run"]
    code, _, err = call(*given)
    *_, said, line = err.splitlines()
    again = shlex.split(line.removeprefix("to go on: "))
    assert (code, said) == (130, "rpbert: stopped")
    assert again == ["rpbert", *map(str, given), *(["--resume"] if begun else [])]
    monkeypatch.undo()
    assert call(*again[1:])[0] == 0
    monkeypatch.setattr("rpbert.models.saved.TaggingModel.load", interrupted)
    assert call("predict", tmp_path / "a run", "--text", "a") == (130, "", "rpbert: stopped\n")


def test_a_reader_that_has_seen_enough_is_no_fault() -> None:
    program = """if True:
        from rpbert import cli
        cli.app.command("many")(lambda: [print(n) for n in range(100_000)])
        cli.main()"""
    many = subprocess.Popen([sys.executable, "-c", program, "many"], stdout=subprocess.PIPE)
    with many:
        assert many.stdout
        many.stdout.readline()
    assert many.returncode == 0


def test_reproduce_prints_the_table_it_writes(
    call: Call, data: Path, config: Path, tmp_path: Path
) -> None:
    content = yaml.safe_load(config.read_text())
    del content["model"]["system"], content["data"]
    config.write_text(yaml.safe_dump(content))
    given = ["reproduce", "table6", data, "--output", tmp_path / "out", "--config", config]
    given += ["--seeds", 1]
    code, out, err = call(*given, "--set", "training.batch_size=8")
    assert (code, out) == (0, (tmp_path / "out" / "table6.md").read_text())
    assert "`rpbert-none`" in out
    assert "2 runs, 0 of them done" in err
    code, out, _ = call(*given, "--set", "training.batch_size=8", "--json")
    assert json.loads(out) == json.loads((tmp_path / "out" / "table6.json").read_text())
    code, _, err = call(*given)
    assert (code, "batch_size" in err) == (2, True)


def test_a_table_without_a_row_that_could_run_is_a_fault(
    call: Call, data: Path, tmp_path: Path
) -> None:
    given = ["reproduce", "table4", data, "--output", tmp_path / "out", "--seeds", 1]
    nowhere = ["--only", "bert", "--set", "model.encoder.pretrained=no/where"]
    code, out, err = call(*given, *nowhere)
    assert (code, "not run: " in out) == (2, True)
    line = err.splitlines()[-1]
    assert line.startswith("rpbert: table4: ")
    assert "no/where" in line


def test_the_relation_baseline_is_trained_and_scored_by_the_same_commands(
    call: Call, config: Path, data: Path, tmp_path: Path
) -> None:
    """Task#1 alone, on relations of another folder that, as TRC, has no development split."""
    system = f"model={{system: lstm_cnn, evidence: {json.dumps(TINY['lstm_cnn']['evidence'])}}}"
    other = data_folder(tmp_path / "other")
    (other / "valid.txt").unlink()
    (other / "train.txt").write_text("\n".join([(other / "train.txt").read_text()] * 3))
    given = ["train", config, system, "--output", tmp_path / "run"]
    code, out, err = call(*given, f"data.relations={other}")
    assert (code, "best development F1" in out) == (0, True)
    assert "Task#2 is skipped" in err
    assert "data.path is not read" in err
    (record,) = records(tmp_path / "run")
    assert (record["dev"], set(record["loss"])) == (None, {"relation"})
    assert record["dev_relation"]["support"] == 2
    code, out, _ = call("evaluate", tmp_path / "run", data, "--json")
    scores = json.loads(out)
    assert (code, scores["tags"], scores["relation"]["support"]) == (0, None, 8)
    code, out, _ = call("predict", tmp_path / "run", "--text", "a dog", "--json")
    prediction = json.loads(out)
    assert (prediction["entities"], prediction["relation"]) == ([], 0.0)
    bare, given[-1] = data_folder(tmp_path / "bare", relations=False), tmp_path / "never"
    code, _, err = call(*given, f"data.path={bare}")
    assert (code, "relation" in err, (tmp_path / "never").exists()) == (2, True, False)


@pytest.mark.parametrize(
    ("shell", "codes", "err"),
    [
        ("PYTHONIOENCODING=cp1252 {} data check 'x\U0001f4a9.jsonl'", (0,), ""),
        ("{} data check x\U0001f4a9.jsonl --json | true; exit ${{PIPESTATUS[0]}}", (0, 1), ""),
        ("{} data check x\U0001f4a9.jsonl >&-", (0,), ""),
        ("{} data check nothing >&-", (2,), "nothing"),
    ],
)
def test_any_standard_output_will_do(
    tmp_path: Path, shell: str, codes: tuple[int, ...], err: str
) -> None:
    """One that is not UTF-8, one whose reader has gone, and one that is closed."""
    (tmp_path / "x\U0001f4a9.jsonl").write_text('{"id": "1", "text": "x"}')
    line = shell.format(f"{sys.executable} -m rpbert")
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode in codes
    assert "Traceback" not in done.stderr
    assert "Error" not in done.stderr
    assert err in done.stderr
