"""What the scripts here share: options, rounds that take turns, and the Markdown they write."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from rpbert import benchmark
from rpbert.benchmark import seconds
from rpbert.config.run import Backend
from rpbert.errors import InputError

WAYS: dict[str, Backend] = {
    "torch": "torch",
    "openvino": "openvino",
    "openvino, int8": "openvino",
    "onnx": "onnx",
}
"""The backends that take turns."""


def options(script: str, about: str | None) -> argparse.ArgumentParser:
    """A parser that knows where a script's results go."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    written = Path(__file__).parent / "results" / f"{Path(script).stem}.md"
    parser.add_argument("--output", type=_page, default=written, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5)
    return parser


def _page(given: str) -> Path:
    if Path(given).is_dir():
        raise argparse.ArgumentTypeError(f"{given}: found a folder; expected a file")
    return Path(given)


def start(main: Callable[[], None]) -> None:
    """Run a script; wrong input, a disk fault and Ctrl-C end it with one line, as `rpbert`."""
    try:
        main()
    except (InputError, OSError) as fault:
        print(f"{Path(sys.argv[0]).name}: {fault}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def machine(*packages: str) -> str:
    """Processor, threads and versions, in one line."""
    found = benchmark.machine()
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", *packages))
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


def ratio(values: Sequence[float], others: Sequence[float]) -> str:
    """The median of the ratios of each round."""
    return f"{statistics.median(a / b for a, b in zip(values, others, strict=True)):.2f}"


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
