"""What the scripts here share: options, rounds that take turns, and the Markdown they write."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from rpbert.benchmark.measures import machine as facts
from rpbert.benchmark.measures import seconds
from rpbert.errors import InputError

RESULTS = Path(__file__).parent / "results"


def options(script: str, about: str | None) -> argparse.ArgumentParser:
    """A parser that knows where a script's results go."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    written = RESULTS / f"{Path(script).stem}.md"
    parser.add_argument("--output", type=_page, default=written, help="default: %(default)s")
    return parser


def _page(given: str) -> Path:
    """A file that can be written: it is, after all is measured."""
    path = Path(given)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{given}: found a folder; expected a file")
    return path


def start(main: Callable[[], None]) -> None:
    """Run a script; wrong input, a disk fault and Ctrl-C end it with one line, as `rpbert`."""
    try:
        main()
        return
    except InputError as fault:
        line, code = str(fault), 2
    except OSError as fault:
        line, code = f"{fault.filename or 'system'}: {fault.strerror or fault}", 2
    except KeyboardInterrupt:
        line, code = "stopped", 130
    print(f"{Path(sys.argv[0]).name}: {line}", file=sys.stderr)
    raise SystemExit(code)


def machine(*packages: str) -> str:
    """Processor, threads and versions, in one line."""
    found = facts("cpu")
    names = ("torch", "transformers", *packages)
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    return (
        f"{found['processor']}, {found['cores']} cores, {found['threads']} threads, "
        f"{found['instructions']}, {found['system']}; Python {found['python']}, {versions}, "
        f"rpbert {found['rpbert']}."
    )


def in_turn(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call, round by round, so that what else the machine does falls on all."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(seconds(call))
    return times


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median and, in brackets, lowest and highest."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown, its first column to the left."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def publish(title: str, lines: Sequence[str], output: Path) -> None:
    """Print a page and write it."""
    text = "\n".join([f"# {title}", "", *lines])
    print(text)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text + "\n", "utf-8")
