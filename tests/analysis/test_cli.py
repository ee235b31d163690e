"""`rpbert analyze` as people type it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.analysis.common import finder, posts_file
from tests.test_cli import run


def test_analyze(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    data = posts_file(tmp_path / "data")
    model, other = finder(tmp_path / "soft"), finder(tmp_path / "open", gate="none")
    arguments = ("analyze", model, data, "--output", tmp_path / "out", "--against", other)
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    assert "mean S_TV (Eq. 10)" in out
    assert "13 posts" in out
    first, second, *_ = out.splitlines()
    assert first.split() == ["model", "model"]
    assert second.split() == ["image", "posts", "open", "soft", "change", "paper"]
    assert "Not on the paper's scale" in out
    assert str(tmp_path / "out" / "report.html") in out.replace("\n", "")
    code, out, _ = run(capsys, *arguments, "--posts", 3, "--json")
    found = json.loads(out)
    assert (code, found["posts"], found["models"]) == (0, 13, ["soft", "open"])
    for path in found["files"]:
        assert Path(path).stat().st_size > 0
    assert "3 of 13 posts" in (tmp_path / "out" / "report.html").read_text("utf-8")


def test_what_cannot_be_analysed_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, out, err = run(capsys, "analyze", tmp_path, tmp_path / "no", "--output", tmp_path / "o")
    assert (code, out) == (2, "")
    assert err.startswith("rpbert: ")
    assert err.count("\n") == 1
    assert "no such file or folder" in err
    assert not (tmp_path / "o").exists()
