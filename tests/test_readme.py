"""The README's commands are understood, and its map of the code is true."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from rpbert.cli import app
from rpbert.config.run import load_run
from rpbert.models import parse_options

ROOT = Path(__file__).parents[1]
VARIABLES = {"$V": "model.tagger.word_vectors=crawl-300d-2M.vec", "$G": "gumbel"}


def commands() -> list[list[str]]:
    """Every call of rpbert in the README's consoles, as words."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    consoles = "\n".join(re.findall(r"```console\n(.*?)```", readme, re.DOTALL))
    joined = re.sub(r"\\\n(> )?\s*", "", consoles)
    lines = [line.lstrip("$> ") for line in joined.splitlines() if line.startswith(("$ ", "> "))]
    found = []
    for line in lines:
        for name, value in VARIABLES.items():
            line = line.replace(name, value)
        if line.startswith("rpbert "):
            found.append(shlex.split(line, comments=True))
    assert {words[1] for words in found} >= {"train", "evaluate", "predict", "data"}
    return found


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_a_command_of_the_readme_is_understood(words: list[str]) -> None:
    group = typer.main.get_command(app)
    name, *rest = words[1:]
    context = group.make_context("rpbert", [name], resilient_parsing=True)
    command = group.get_command(context, name)  # type: ignore[attr-defined]
    if hasattr(command, "get_command"):
        command = command.get_command(context, rest.pop(0))
    parsed = command.make_context(name, rest).params
    if name == "train":
        settings = load_run(parsed["config"], parsed["overrides"] or ())
        parse_options(settings.model)


NAMED = re.compile(r"`([a-z_/0-9]+\.py):([A-Za-z_.]+)`")


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/readings.md"])
def test_every_named_function_is_where_the_page_says(page: str) -> None:
    named = NAMED.findall((ROOT / page).read_text("utf-8"))
    assert len(named) > 8
    for file, name in named:
        body: Any = ast.parse((ROOT / "src/rpbert" / file).read_text("utf-8")).body
        for part in name.split("."):
            found = [node for node in body if part in names_of(node)]
            assert found, f"{page}: {file} has no {name}"
            body = getattr(found[0], "body", [])


def names_of(node: ast.stmt) -> set[str]:
    """What a statement defines."""
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    return {getattr(node, "name", ""), *(t.id for t in targets if isinstance(t, ast.Name))}
