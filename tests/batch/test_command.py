"""`rpbert predict --input` over shards as people type it: exit codes, lines, documents."""

from __future__ import annotations

import json
import os
import shlex
import signal
import tarfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.batch.made import Tag, add, answers, bytes_of, lines, parquet, rows, write
from tests.test_cli import run

Predict: TypeAlias = Callable[..., Any]


def test_a_run_over_shards_resumed(predict: Predict, source: Path, tmp_path: Path) -> None:
    given = ["--input", source, "--output", tmp_path / "out"]
    code, out, err = predict(*given)
    assert (code, out) == (0, "")
    for word in ("26 posts", "9 used", "17 none", "posts/s", "left", "a.jsonl", "b.parquet"):
        assert word in err
    code, out, _ = predict(*given, "--resume", "--json")
    assert code == 0
    assert json.loads(out) == {
        "output": str(tmp_path / "out"), "shards": 0, "skipped": 3, "rows": 26, "errors": 0,
        "images": {"used": 9, "none": 17}, "broken": {}, "lost": {},
    }  # fmt: skip
    assert predict(*given)[0] == 2  # never over earlier files
    for part in ("2/2", "1/2"):  # machines that do not talk do each shard once
        shared = [*given[:-1], tmp_path / "two", "--shard", part]
        assert predict(*shared)[0] == 0
    assert bytes_of(tmp_path / "two") == bytes_of(tmp_path / "out")


def test_failed_posts_are_exit_code_3(predict: Predict, source: Path, tmp_path: Path) -> None:
    with (source / "a.jsonl").open("a") as file:
        file.write("{\n")
    given = ["--input", source / "*.jsonl", "--output"]
    code, _, err = predict(*given, tmp_path / "out")
    assert (code, f"{tmp_path / 'out'}/*.errors.jsonl" in err) == (3, True)
    code, _, err = predict(*given, tmp_path / "strict", "--strict")
    assert (code, "a.jsonl:13: " in err) == (2, True)
    assert predict("--input", source / "a.jsonl", "--strict")[0] == 2
    code, out, err = predict("--input", source / "a.jsonl")
    assert (code, len(out.splitlines())) == (3, 12)
    assert '{"file": "a.jsonl", "line": 13, "reason": ' in err


def test_one_file_to_one_file_of_any_kind(predict: Predict, source: Path, tmp_path: Path) -> None:
    given = ["--input", source / "c.tar"]
    code, out, _ = predict(*given)
    found = [json.loads(line) for line in out.splitlines()]
    assert (code, [row["id"] for row in found]) == (0, [row["id"] for row in rows(6, 3)])
    assert json.loads(predict(*given, "--json")[1]) == found
    output = tmp_path / "x.parquet"
    code, out, _ = predict(*given, "--output", output, "--json")
    assert parquet(output) == found
    (tmp_path / "w.txt").write_text("Ada\tNNP\n\nx\tO\ny\tO\n")
    texts = [row["text"] for row in json.loads(predict("--input", tmp_path / "w.txt", "--json")[1])]
    assert texts == ["Ada", "x y"]
    assert json.loads(out) == {
        "output": str(output), "shards": 1, "skipped": 0, "rows": 6, "errors": 0,
        "images": {"used": 2, "none": 4}, "broken": {}, "lost": {},
    }  # fmt: skip
    # Into a folder, a file is a shard.
    folder = f"{tmp_path}/out/"
    assert predict(*given, "--output", folder, "--format", "parquet")[0] == 0
    assert sorted(bytes_of(tmp_path / "out")) == ["c.meta.json", "c.parquet"]
    (source / "c.tar").write_bytes((source / "c.tar").read_bytes()[:2048])
    given += ["--output", tmp_path / "y.jsonl"]
    assert predict(*given, "--strict")[0] == 2
    assert not (tmp_path / "y.jsonl").exists()
    assert predict(*given)[0] == 3
    assert len(lines(tmp_path / "y.errors.jsonl")) == 1


def test_a_threshold_and_what_should_be_looked_at(
    predict: Predict, source: Path, tmp_path: Path
) -> None:
    whole = [json.loads(line) for line in predict("--input", source / "a.jsonl")[1].splitlines()]
    output, aside = tmp_path / "x.jsonl", tmp_path / "look.jsonl"
    given = ["--input", source / "a.jsonl", "--threshold", 0.7, "--output", output]
    assert predict(*given, "--uncertain", aside)[0] == 0
    for found, row in zip(lines(output), whole, strict=True):
        assert found["entities"] == [e for e in row["entities"] if e["score"] >= 0.7]
    low = {row["id"] for row in whole if any(e["score"] < 0.7 for e in row["entities"])}
    half = {row["id"] for row in whole if row["image"] == "used" and 0.4 <= row["relation"] <= 0.6}
    listed = {row["id"]: row for row in lines(aside)}
    assert low
    assert listed.keys() == low | half
    for row in whole:  # the whole post, with what the threshold drops
        reasons = listed.get(row["id"], {}).pop("reasons", [])
        assert any("low score" in reason for reason in reasons) == (row["id"] in low)
        assert listed.get(row["id"], row) == row
    given = ["--input", source, "--output", tmp_path / "out"]
    assert predict(*given, "--threshold", 0.7)[0] == 0
    assert lines(tmp_path / "out" / "a.jsonl") == lines(output)
    assert predict(*given, "--resume")[0] == 2  # of another threshold


WRONG = [
    ("--input in --output in", "--output in: "),
    ("--input in", "--output"),
    ("--input no/*.jsonl --output out", "no/*.jsonl: "),
    ("--input in --output FILE", "FILE: "),
    ("--input in --output FILE/x", "FILE/x"),
    ("--input in --output out --shard 3/2", "--shard"),
    ("--input in --output out --workers 0", "--workers"),
    ("--input in --output out --workers 2", "--engine ray"),
    ("--input in --output out --gpus 999", "--gpus"),
    ("--input in/*.jsonl --output all.jsonl", "all.jsonl"),
    ("--input in/a.jsonl --output x --resume", "--output"),
    ("--input in/a.jsonl --output out", "out: "),
    ("--input in/a.jsonl --output a.csv", "--output a.csv: "),
    ("--input FILE --output x", "FILE: "),
    ("--input in/a.jsonl --output x.jsonl --format parquet", "x.jsonl"),
    ("--text a --lenient", "--lenient"),
    ("--text a --uncertain x", "--uncertain"),
    ("--input in --output out --uncertain x", "--uncertain"),
    ("--input in/a.jsonl --uncertain in/a.jsonl", "--uncertain in/a.jsonl"),
    ("--input in/a.jsonl --gpus -1", "--gpus"),
    ("--input in/a.jsonl --output in/../in/a.jsonl", "a.jsonl: "),
    ("--input x.errors.jsonl --output x.jsonl", "x.jsonl: "),
]


def test_wrong_options_get_one_line_and_exit_code_2(
    predict: Predict, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("FILE").write_text("something")
    Path("out").mkdir()
    write(Path("x.errors.jsonl"), rows(2, 1, images=False))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for arguments, named in WRONG:
        code, out, err = predict(*arguments.split())
        assert (code, out, len(err.splitlines())) == (2, "", 1), arguments
        assert named in err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.skipif(os.name != "posix", reason="names of files are bytes on POSIX systems alone")
def test_names_of_any_bytes_are_written_and_told(
    capfd: pytest.CaptureFixture[str], tag: Tag, tmp_path: Path
) -> None:
    """Of shards, and of the members of a tar."""
    predict = partial(run, capfd, "predict", tag.model, "--json", "--input", tmp_path / "in")
    name = "\udcff\x1b[31m.tar"
    write(tmp_path / "in" / name, [{"id": "\udcfe", "text": "Ada"}])
    with tarfile.open(tmp_path / "in" / name, "a") as tar:
        add(tar, "\udcfd.json", b"{")
    code, out, err = predict("--output", tmp_path / "out")
    assert (code, json.loads(out)["rows"], json.loads(out)["errors"]) == (3, 1, 1)
    assert "\x1b" not in err
    (fault,) = lines((tmp_path / "out" / name).with_suffix(".errors.jsonl"))
    assert (fault["file"], fault["key"]) == (name, "\udcfd")


def test_a_stopped_run_prints_the_command_that_goes_on(
    predict: Predict, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopping(*_: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    given = ["--input", source, "--output", tmp_path / "an out"]
    monkeypatch.setattr("rpbert.batch.output.Output.add", stopping)
    code, _, err = predict(*given)
    assert code == 130
    (line,) = [line for line in err.splitlines() if line.startswith("to go on: ")]
    again = shlex.split(line.removeprefix("to go on: "))
    assert (again[:2], again[3:]) == (["rpbert", "predict"], [*map(str, given), "--resume"])
    assert bytes_of(tmp_path / "an out") == {}
    monkeypatch.undo()
    assert predict(*again[3:])[0] == 0
    assert len(answers(tmp_path / "an out")) == 26
