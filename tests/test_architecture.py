"""The house: imports run one way, and the light stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import rpbert

PACKAGE = Path(rpbert.__file__).parent

# From the front of the house to its back; a module imports from its own room or from one before.
ROOMS = [
    {"errors", "__init__"},
    {"settings", "refusals"},
    {"data_settings"},
    {"config", "storage"},
    {"types"},
    {"data", "evidence"},
    {"confidence", "scoring"},
    {"modules"},
    {"models"},
    {"published_names"},
    {
        "inference",
        "convert",
        "frames",
        "checkpoint",
        "state",
        "progress",
        "repeatable",
        "averaging",
    },
    {"relation_sources"},
    {"task_posts", "tasks", "calibration"},
    {"card"},
    {"trainer", "training"},
    {"evaluation", "analysis", "batch", "benchmark", "spacy_component"},
    {"demo", "reproduce"},
    {"service"},
    {"show", "score_table"},
    {"cli"},
    {"__main__"},
]


def room(module: str) -> int:
    """The number of the room a module of the package lies in."""
    parts = module.split(".")
    name = parts[1] if len(parts) > 1 else "__init__"
    return next(number for number, names in enumerate(ROOMS) if name in names)


def imports(path: Path) -> set[str]:
    """The package's modules that a file imports when it runs; for types alone does not count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return {name for name in found if name.split(".")[0] == "rpbert"}


def test_imports_run_one_way() -> None:
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(["rpbert", *path.relative_to(PACKAGE).with_suffix("").parts])
        if module == "rpbert.__init__":
            continue  # its names are imported when first used
        for imported in imports(path):
            if room(imported) > room(module):
                wrong.append(f"{module} imports {imported}")
    assert not wrong


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
