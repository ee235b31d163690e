"""What everybody waits for: reading a data folder, the import, `--help`, and memory that stays.

    python benchmarks/small_things.py [--folder 8000] [--posts 150000] [--rounds 5]

`import rpbert` and `rpbert --help` are run in fresh processes, beside a Python that does nothing;
`rpbert predict --input` tags a file of posts with a tiny model of random weights while its memory
is read after every hundredth answer. The slope is that of a line through all but the first third
of them (least squares): until then what is kept in bounded number, distinct words and oneDNN's
kernels for each shape, is filled.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import psutil
from common import in_turn, machine, options, publish, spread, start, table

from rpbert.benchmark import Work
from rpbert.data.readers import open_data
from rpbert.synthetic.controlled import Options, make_post

EVERY = 100
STARTS = {
    "`import rpbert`": ["-c", "import rpbert"],
    "`rpbert --help`": ["-m", "rpbert", "--help"],
    "Python alone": ["-c", "pass"],
}


def data_folder(folder: Path, count: int) -> Path:
    """Posts in the proportions of Twitter-2015: half to train on, an eighth, three eighths."""
    folder.mkdir()
    ends = {"train": count // 2, "valid": count * 5 // 8, "test": count}
    first = 0
    for split, end in ends.items():
        with (folder / f"{split}.txt").open("w", encoding="utf-8") as file:
            for number in range(first, end):
                tokens = make_post(number, Options(posts=count)).tokens
                words = "".join(f"{token.word}\t{token.tag}\n" for token in tokens)
                file.write(f"IMGID:{number}\n{words}\n")
        first = end
    return folder


def read(folder: Path) -> int:
    """How many posts a data folder holds."""
    source = open_data(folder)
    return sum(1 for split in source.splits for _ in source.read(split))


def memory(folder: Path, count: int) -> tuple[list[int], list[float]]:
    """How many posts were answered, and the MB that the process held then."""
    Work(size="tiny").model().save(folder / "model")
    with (folder / "posts.jsonl").open("w", encoding="utf-8") as file:
        for number in range(count):
            text = make_post(number, Options(posts=max(count, 10))).text
            file.write(json.dumps({"id": str(number), "text": text}) + "\n")
    command = [sys.executable, "-m", "rpbert", "predict", str(folder / "model")]
    command += ["--input", str(folder / "posts.jsonl")]
    answered, held = [], []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        watched = psutil.Process(process.pid)
        for number, _ in enumerate(process.stdout, 1):
            if number % EVERY == 0:
                answered.append(number)
                held.append(watched.memory_info().rss / 1e6)
        said = process.stderr.read().decode()
    if process.returncode:
        raise SystemExit(said)
    return answered, held


def main() -> None:
    parser = options(__file__, __doc__)
    parser.add_argument("--folder", type=int, default=8000, help="posts of the data folder")
    parser.add_argument("--posts", type=int, default=150_000, help="posts to tag, 500 or more")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as given:
        data = data_folder(Path(given) / "data", args.folder)
        calls: dict[str, Callable[[], object]] = {
            f"reading {args.folder:,} posts": partial(read, data)
        }
        for name, command in STARTS.items():
            calls[name] = partial(
                subprocess.run, [sys.executable, *command], check=True, stdout=subprocess.DEVNULL
            )
        in_turn(calls, 1)  # once, so that the files are in memory
        times = in_turn(calls, args.rounds)
        answered, held = memory(Path(given), args.posts)
    settled = len(answered) // 3
    slope, _ = np.polyfit(answered[settled:], held[settled:], 1)
    lines = [
        f"{machine()}\n",
        *table(["", "seconds"], [[name, spread(each, 3)] for name, each in times.items()]),
        f"\nMedians of {args.rounds} rounds that take turns, lowest and highest.\n",
        f"`predict --input` of {args.posts:,} posts: {held[0]:.0f} MB after {answered[0]:,}, "
        f"{held[settled]:.0f} after {answered[settled]:,}, {held[-1]:.0f} at the end, at most "
        f"{max(held):.0f}; slope {slope * 10_000:+.2f} MB per 10,000 posts over the last "
        f"{answered[-1] - answered[settled]:,}.",
    ]
    publish("Small things", lines, args.output)


if __name__ == "__main__":
    start(main)
