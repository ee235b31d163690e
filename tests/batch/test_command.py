"""`rpbert predict --input` over shards as people type it: exit codes, lines, documents."""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import tarfile
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.batch.made import answers, bytes_of, lines, rows, write_jsonl, write_parquet, write_tar
from tests.test_cli import run


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "in" / "a.jsonl", rows(12, 1))
    write_parquet(tmp_path / "in" / "b.parquet", rows(8, 2))
    write_tar(tmp_path / "in" / "c.tar", rows(6, 3))
    return tmp_path / "in"


def test_a_run_over_shards_and_its_continuation(
    capsys: pytest.CaptureFixture[str], model: Path, source: Path, tmp_path: Path
) -> None:
    given = ["predict", model, "--input", source, "--output", tmp_path / "out"]
    code, out, err = run(capsys, *given)
    assert (code, out) == (0, "")
    assert "3 shards, 26 posts; images: 9 used, 17 none, 0 missing, 0 unreadable" in err
    assert "posts/s" in err
    assert "left" in err
    code, out, _ = run(capsys, *given, "--resume", "--json")
    assert code == 0
    assert json.loads(out) == {
        "output": str(tmp_path / "out"), "shards": 0, "skipped": 3, "rows": 26, "errors": 0,
        "images": {"used": 9, "none": 17}, "broken": {}, "lost": {},
    }  # fmt: skip
    assert run(capsys, *given)[0] == 2  # never over earlier files


def test_failed_posts_are_exit_code_3(
    capsys: pytest.CaptureFixture[str], model: Path, source: Path, tmp_path: Path
) -> None:
    with (source / "a.jsonl").open("a") as file:
        file.write("{\n")
    given = ["predict", model, "--input", source / "*.jsonl", "--output"]
    code, _, err = run(capsys, *given, tmp_path / "out")
    assert code == 3
    assert f"1 post failed: the reasons are in {tmp_path / 'out'}/*.errors.jsonl" in err
    code, _, err = run(capsys, *given, tmp_path / "strict", "--strict")
    assert code == 2
    assert "a.jsonl:13: found no JSON" in err
    code, _, err = run(capsys, "predict", model, "--input", source / "a.jsonl")
    assert code == 2
    code, out, err = run(capsys, "predict", model, "--input", source / "a.jsonl", "--lenient")
    assert (code, len(out.splitlines())) == (3, 12)
    assert '{"file": "a.jsonl", "line": 13, "reason": "found no JSON' in err


def test_one_file_to_one_file_of_any_kind(
    capsys: pytest.CaptureFixture[str], model: Path, source: Path, tmp_path: Path
) -> None:
    code, out, _ = run(capsys, "predict", model, "--input", source / "c.tar")
    found = [json.loads(line) for line in out.splitlines()]
    assert (code, [row["id"] for row in found]) == (0, [row["id"] for row in rows(6, 3)])
    output = tmp_path / "x.parquet"
    code, out, _ = run(
        capsys, "predict", model, "--input", source / "c.tar", "--output", output, "--json"
    )
    assert pq.read_table(output).to_pylist() == found
    assert json.loads(out) == {
        "output": str(output), "posts": 6, "failed": 0, "used": 2, "none": 4
    }  # fmt: skip
    code, out, _ = run(capsys, "predict", model, "--input", source / "c.tar", "--json")
    assert json.loads(out) == found
    (source / "c.tar").write_bytes((source / "c.tar").read_bytes()[:2048])
    given = ["predict", model, "--input", source / "c.tar", "--output", tmp_path / "y.jsonl"]
    assert run(capsys, *given)[0] == 2
    assert not (tmp_path / "y.jsonl").exists()
    code, _, err = run(capsys, *given, "--lenient")
    assert code == 3
    assert "no readable tar after member" in err
    assert "no readable tar" in lines(tmp_path / "y.errors.jsonl")[0]["reason"]


def test_a_file_into_a_folder_is_a_shard(
    capsys: pytest.CaptureFixture[str], model: Path, source: Path, tmp_path: Path
) -> None:
    given = ["predict", model, "--input", source / "a.jsonl", "--output", f"{tmp_path}/out/"]
    assert run(capsys, *given, "--format", "parquet")[0] == 0
    assert sorted(bytes_of(tmp_path / "out")) == ["a.meta.json", "a.parquet"]


def test_machines_that_do_not_talk_do_each_shard_once(
    capsys: pytest.CaptureFixture[str], model: Path, source: Path, tmp_path: Path
) -> None:
    given = ["predict", model, "--input", source, "--output"]
    run(capsys, *given, tmp_path / "one")
    for part in ("2/2", "1/2"):
        assert run(capsys, *given, tmp_path / "two", "--shard", part)[0] == 0
    assert bytes_of(tmp_path / "two") == bytes_of(tmp_path / "one")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--input", "in", "--output", "in"], "which is read"),
        (["--input", "in"], "--output: found nothing"),
        (["--input", "no/*.jsonl", "--output", "out"], "no/*.jsonl: found no such file"),
        (["--input", "in", "--output", "FILE"], "FILE: found a file"),
        (["--input", "in", "--output", "FILE/x"], "FILE/x"),
        (["--input", "in", "--output", "out", "--shard", "3/2"], "--shard: found 3/2"),
        (["--input", "in", "--output", "out", "--workers", "0"], "--workers: found 0"),
        (["--input", "in", "--output", "out", "--gpus", "-1"], "--gpus: found -1"),
        (["--input", "in", "--output", "out", "--engine", "spark"], "expected local or ray"),
        (["--input", "in", "--output", "out", "--format", "csv"], "expected jsonl or parquet"),
        (["--input", "in/a.jsonl", "--output", "x", "--resume"], "end --output with /"),
        (["--input", "in/a.jsonl", "--output", "out"], "end it with /"),
        (["--input", "FILE", "--output", "x"], "one of .jsonl, .parquet, .tar"),
        (["--input", "in/a.jsonl", "--output", "x.jsonl", "--format", "parquet"], "x.jsonl"),
        (["--input", "FIL*", "--output", "x/"], "other or hidden files"),
        (["--input", "FILE", "--output", "x/"], "other or hidden files"),
        (["--text", "a", "--format", "parquet"], "--format: found beside --text"),
        (["--text", "a", "--lenient"], "--lenient: found beside --text"),
        (["--text", "a", "--resume"], "--resume: found beside --text"),
        (["--text", "a", "--gpus", "0"], "--gpus: found beside --text"),
        (["--text", "a", "--workers", "2"], "--workers: found beside --text"),
        (["--input", "in", "--output", "out", "--gpus", "999"], "--gpus: found 999"),
        (["--input", "in/a.jsonl", "--gpus", "999"], "--gpus: found 999"),
        (["--input", "in/a.jsonl", "--gpus", "-1"], "--gpus: found -1"),
        (["--input", "in/a.jsonl", "--output", "in/../in/a.jsonl"], "which is read"),
        (["--input", "x.errors.jsonl", "--output", "x.jsonl"], "which is read"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_options_get_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str],
    model: Path,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("FILE").write_text("something")
    Path("out").mkdir(exist_ok=True)
    write_jsonl(Path("x.errors.jsonl"), rows(2, 1, images=False))
    given = Path("in/a.jsonl").read_bytes()
    code, out, err = run(capsys, "predict", model, *arguments)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert words in err
    assert Path("FILE").read_text() == "something"
    assert Path("in/a.jsonl").read_bytes() == given
    assert Path("x.errors.jsonl").exists()


@pytest.mark.skipif(os.name != "posix", reason="names of files are bytes on POSIX systems alone")
def test_names_of_any_bytes_are_written_and_told(
    capfd: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    """Of shards, and of the members of a tar."""
    name = "\udcff\x1b[31m.tar"
    write_tar(tmp_path / "in" / name, [{"id": "\udcfe", "text": "Ada"}])
    with tarfile.open(tmp_path / "in" / name, "a") as tar:
        info = tarfile.TarInfo("\udcfd.json")
        info.size = 1
        tar.addfile(info, io.BytesIO(b"{"))
    given = ["predict", model, "--input", tmp_path / "in", "--output", tmp_path / "out", "--json"]
    code, out, err = run(capfd, *given)
    assert (code, json.loads(out)["rows"], json.loads(out)["errors"]) == (3, 1, 1)
    assert "\x1b" not in err
    (fault,) = lines((tmp_path / "out" / name).with_suffix(".errors.jsonl"))
    assert (fault["file"], fault["key"]) == (name, "\udcfd")
    (tmp_path / "in" / name).write_bytes(b"torn")
    code, out, err = run(capfd, *given[:5], tmp_path / "torn", "--json")
    assert (code, list(json.loads(out)["broken"])) == (3, [name])
    assert "\x1b" not in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_prints_the_command_that_goes_on(
    capsys: pytest.CaptureFixture[str],
    model: Path,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    def stopping(*_: Any) -> Any:
        os.kill(os.getpid(), number)
        time.sleep(5)

    given = ["predict", model, "--input", source, "--output", tmp_path / "an out"]
    monkeypatch.setattr("rpbert.batch.finished.Source.is_still", stopping)
    code, _, err = run(capsys, *given)
    assert code == 130
    (line,) = [line for line in err.splitlines() if line.startswith("to go on: ")]
    again = shlex.split(line.removeprefix("to go on: "))
    assert again == ["rpbert", *map(str, given), "--resume"]
    assert bytes_of(tmp_path / "an out") == {}
    monkeypatch.undo()
    assert run(capsys, *again[1:])[0] == 0
    assert len(answers(tmp_path / "an out")) == 26


def test_an_output_that_was_meant_otherwise_is_refused(
    capsys: pytest.CaptureFixture[str], model: Path, source: Path, tmp_path: Path
) -> None:
    code, _, err = run(
        capsys, "predict", model, "--input", source / "a.jsonl", "--output", tmp_path / "a.csv"
    )
    assert (code, "a name that ends in '.csv'; expected .jsonl or .parquet" in err) == (2, True)
    code, _, err = run(
        capsys, "predict", model, "--input", source / "*.jsonl", "--output", tmp_path / "all.jsonl"
    )
    assert (code, "the name of a file" in err) == (2, True)
    assert not list(tmp_path.glob("a*"))
