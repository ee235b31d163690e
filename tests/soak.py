"""The mark `slow(row, size)` and the fixture `soak`: each slow test is a row of a page.

``pytest -m slow --soak=docs/reliability.md`` (``make soak``) writes the rows between two marks of
that page; rows of tests that were not run stay, unless they are of another machine.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Generator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import pytest

Soak: TypeAlias = Callable[[str], None]

BEGIN, END = "<!-- make soak: begin -->", "<!-- make soak: end -->"
HEAD = "| test | size | result | seconds | day |\n|---|---|---|---:|---|"
VERSIONED = ("torch", "transformers", "safetensors", "pillow", "pyarrow")
_ROWS = pytest.StashKey[dict[str, str]]()


def machine() -> str:
    """The processor, the accelerator and the versions that count."""
    import torch

    processor = platform.processor() or platform.machine()
    if (file := Path("/proc/cpuinfo")).exists():
        names = [line for line in file.read_text().splitlines() if line.startswith("model name")]
        processor = names[0].partition(":")[2].strip() if names else processor
    graphics = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU"
    versions = ", ".join(f"{name} {version(name)}" for name in VERSIONED)
    python = f"{platform.system()}, Python {platform.python_version()}"
    return f"{processor}, {os.cpu_count()} cores, {graphics}; {python}, {versions}."


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", metavar="PAGE", type=Path, help="write rows of slow tests to a page")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    mark = item.get_closest_marker("slow")
    if mark and not report.skipped and (report.when == "call" or report.failed):
        _, bracket, setting = item.name.partition("[")
        name, size = f"{mark.args[0]} {bracket}{setting}".strip(), mark.args[1]
        results = [str(value) for key, value in item.user_properties if key == "soak"]
        result = "**failed**" if report.failed else "; ".join(results) or "passed"
        cells = (name, size, result, f"{report.duration:.0f}", date.today().isoformat())
        rows = item.config.stash.setdefault(_ROWS, {})
        rows[name] = f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    page: Path | None = session.config.getoption("--soak")
    rows = session.config.stash.get(_ROWS, {})
    if page is None or not rows:
        return
    before, _, rest = page.read_text("utf-8").partition(BEGIN)
    old, _, after = rest.partition(END)
    kept = [line for line in old.splitlines() if line.startswith("| ")][1:]
    if machine() in old:
        rows = {**{row[2:].partition(" | ")[0]: row for row in kept}, **rows}
    table = "\n".join(row for _, row in sorted(rows.items()))
    page.write_text(f"{before}{BEGIN}\n{machine()}\n\n{HEAD}\n{table}\n{END}{after}", "utf-8")


@pytest.fixture
def soak(record_property: Callable[[str, Any], None]) -> Soak:
    """Gives the result of a slow test, for its row."""
    return lambda result: record_property("soak", result)
