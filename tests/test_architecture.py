"""What travels with the package, and what stays light; import-linter holds how imports run."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import rpbert

PACKAGE = Path(rpbert.__file__).parent


def test_what_is_no_python_travels_with_the_package() -> None:
    project = tomllib.loads((PACKAGE.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["rpbert"]
    taken = {path for pattern in patterns for path in PACKAGE.glob(pattern)}
    there = {path for path in PACKAGE.rglob("*.*") if path.suffix not in (".py", ".pyc")}
    assert there <= taken


def loaded_by(code: str) -> set[str]:
    """The modules a fresh interpreter has loaded after running some code."""
    command = [sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = {"torch", "transformers", "numpy", "PIL", "pyarrow", "pydantic", "typer"}
    assert not loaded_by("import rpbert; rpbert.Post") & heavy


def test_the_command_line_and_the_readers_start_without_torch() -> None:
    heavy = {"torch", "transformers"}
    assert not loaded_by("import rpbert.cli, rpbert.data.check, rpbert.evaluation.scoring") & heavy
