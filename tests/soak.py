"""A row a slow test for docs/reliability.md: printed by the tests, never written by hand.

A test says what its row is called and how large it is by its mark, and by the fixture `soak` what
it came to::

    @pytest.mark.slow("a byte changed or a file cut in a saved model", "500 models")
    def test_…(soak: Soak) -> None:
        …
        soak("500 refused, each by the name of the file")

A mark without arguments takes the name of the test. ``pytest -m slow --soak=docs/reliability.md``
(``make soak``) writes the rows between two marks of that page. Rows of tests that were not run
stay, unless they are of another machine or of other versions.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import pytest

Soak: TypeAlias = Callable[[str], None]
"""Takes what a slow test came to, in a few words."""

BEGIN, END = "<!-- make soak: begin -->", "<!-- make soak: end -->"
HEAD = "| test | size | result | seconds | day |\n|---|---|---|---:|---|"
VERSIONED = ("torch", "transformers", "safetensors", "pillow", "pyarrow")
_ROWS = pytest.StashKey["Rows"]()


@dataclass
class Rows:
    """The rows of one run of pytest by name, in the order in which the tests ended."""

    lines: dict[str, str] = field(default_factory=dict)

    def add(self, item: pytest.Item, report: pytest.TestReport) -> None:
        """Keep the row of a test that ran; one that failed says so."""
        mark = item.get_closest_marker("slow")
        if mark is None or report.skipped or (report.when != "call" and report.passed):
            return
        name, size = _row(item.name, *mark.args)
        said = [str(value) for key, value in item.user_properties if key == "soak"]
        result = "**failed**" if report.failed else "; ".join(said) or "passed"
        cells = (name, size, result, f"{report.duration:.0f}", date.today().isoformat())
        self.lines[name] = f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _row(test: str, *said: str) -> tuple[str, str]:
    """What the mark says of a test's row; a test of several settings has a row for each."""
    setting = test[test.find("[") :] if "[" in test else ""
    title = test.removesuffix(setting).removeprefix("test_").replace("_", " ")
    name, size = (*said, *(title, "")[len(said) :])
    return f"{name} {setting}".strip(), size


def written(page: str, machine: str, lines: dict[str, str]) -> str:
    """The page with the rows of a run put in.

    Raises:
        ValueError: the page has no place for them.
    """
    before, begin, rest = page.partition(BEGIN)
    old, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no {BEGIN} … {END}")
    kept: dict[str, str] = {}
    if machine in old:
        rows = [line for line in old.splitlines() if line.startswith("| ")][1:]
        kept = {row[2:].partition(" | ")[0]: row for row in rows}
    table = [line for _, line in sorted({**kept, **lines}.items())]
    return f"{before}{BEGIN}\n{machine}\n\n{HEAD}\n" + "\n".join(table) + f"\n{END}{after}"


def machine() -> str:
    """The processor, the accelerator and the versions that count; nobody's names or paths."""
    import torch

    processor = platform.processor() or platform.machine()
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            processor = next(
                line.partition(":")[2].strip() for line in file if line.startswith("model name")
            )
    except (OSError, StopIteration):  # not Linux, or a processor without such a line
        pass
    graphics = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU"
    versions = ", ".join(f"{name} {version(name)}" for name in VERSIONED)
    python = f"{platform.system()}, Python {platform.python_version()}"
    return f"{processor}, {os.cpu_count()} cores, {graphics}; {python}, {versions}."


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", metavar="PAGE", type=Path, help="write rows of slow tests to a page")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_ROWS] = Rows()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    item.config.stash[_ROWS].add(item, report)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    page: Path | None = session.config.getoption("--soak")
    lines = session.config.stash[_ROWS].lines
    if page is not None and lines:
        text = written(page.read_text("utf-8"), machine(), lines)
        page.write_text(text, "utf-8")


@pytest.fixture
def soak(record_property: Callable[[str, Any], None]) -> Soak:
    """Says what a slow test came to, for its row."""
    return lambda result: record_property("soak", result)
