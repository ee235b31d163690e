"""Ends processes and disks at chosen moments: what they leave must be whole.

`outcome` does work in a fork and gives its exit code; a `FaultyDisk` fails at its n-th operation,
or ends with it the process or the power. ``python -m tests.killing`` (see `main`) ends runs of
training, forks of a process that has imported everything: an end falls into no import.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import pytest
import torch
import transformers.models.bert.modeling_bert
import transformers.models.resnet.modeling_resnet  # noqa: F401 - before the forks
from safetensors.torch import save
from torch import Tensor

import rpbert.training.train  # noqa: F401
from rpbert import cli
from rpbert.errors import InputError
from rpbert.training.checkpoint import Checkpoints
from tests.training_runs import records

REFUSED, KILLED, STOPPED = 2, -signal.SIGKILL, 130
MOST_ENDS = 5  # of one run, before it may finish

Fault: TypeAlias = Literal["full", "broken", "kill", "power"]
"""No space left; an I/O error; SIGKILL; SIGKILL and what was not synced is cut."""
FAULTS: tuple[Fault, ...] = get_args(Fault)


def forked(work: Callable[[], int], log: Path | None = None) -> int:
    """A process that does `work` and ends with its code; what it prints goes to `log`."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        if log is not None:
            target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(target, 1)
            os.dup2(target, 2)
        code = work()
    except KeyboardInterrupt:
        code = STOPPED
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def exit_code(child: int) -> int:
    """The exit code of a process, or the signal that ended it below 0."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def outcome(work: Callable[[], object]) -> int:
    """The exit code of a fork that does `work`: 0, `REFUSED` with one line, or a signal."""

    def done() -> int:
        try:
            work()
        except InputError as error:
            return REFUSED if "\n" not in str(error) else 1
        return 0

    return exit_code(forked(done))


class FaultyDisk:
    """Counts operations (opening to write, writing, syncing, renaming) and fails at the `at`-th.

    At -1 it never fails. Where the power fails, what was not synced is lost in the folder `below`.
    """

    def __init__(self, below: Path, at: int, fault: Fault) -> None:
        self.below, self.at, self.fault = below, at, fault
        self.count = 0
        self.opened: dict[str, int] = {}  # files by the number of the operation that opened them
        self.unsynced: set[int] = set()
        self._open, self._fsync = io.open, os.fsync

    @contextmanager
    def in_place(self) -> Iterator[FaultyDisk]:
        """Every file of this process is on this disk, those of safetensors byte for byte."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(io, "open", self._open_file)
            patch.setattr(os, "fsync", self._sync)
            patch.setattr(os, "rename", partial(self._moving, os.rename))
            patch.setattr(os, "replace", partial(self._moving, os.replace))
            for module in ("rpbert.training.checkpoint", "rpbert.models.saved"):
                patch.setattr(f"{module}.save_file", _save_file)
            yield self

    def fails(self, before: Callable[[], Any] = lambda: None) -> None:
        """Count an operation, and fail where it is the one, after `before`."""
        self.count += 1
        if self.count - 1 != self.at:
            return
        before()
        if self.fault == "power":
            for path in self.below.rglob("*"):
                if path.is_file() and path.stat().st_ino in self.unsynced:
                    os.truncate(path, path.stat().st_size // 2)
        if self.fault in ("kill", "power"):
            os.kill(os.getpid(), signal.SIGKILL)
        number = errno.ENOSPC if self.fault == "full" else errno.EIO
        raise OSError(number, os.strerror(number))

    def _open_file(self, file: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
        if not set(mode) & set("wax"):
            return self._open(file, mode, *rest, **named)
        self.opened[Path(file).name.partition(".new-")[0]] = self.count
        self.fails()
        raw = _File(str(file), mode.replace("b", "").replace("t", ""))
        raw.disk = self
        buffered = io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding="utf-8")

    def _sync(self, handle: int) -> None:
        self.fails()
        self._fsync(handle)
        self.unsynced.discard(os.fstat(handle).st_ino)

    def _moving(self, move: Callable[[Any, Any], None], source: Any, target: Any) -> None:
        self.fails()
        move(source, target)


class _File(io.FileIO):
    disk: FaultyDisk

    def write(self, content: Any) -> int:
        half = bytes(content)[: len(content) // 2]
        self.disk.unsynced.add(os.fstat(self.fileno()).st_ino)
        self.disk.fails(lambda: half and super(_File, self).write(half))
        return super().write(content)


def _save_file(tensors: dict[str, Tensor], path: Path) -> None:
    with path.open("wb") as file:
        file.write(save(tensors))


def left_by(run: Path) -> dict[str, str]:
    """What a run came to: digests of its model's and last checkpoint's files, its scores."""
    last = Checkpoints(run / "checkpoints")
    files = [*(run / "model").rglob("*"), *(last.folder / str(last.places()[-1])).glob("*.s*")]
    found = {
        path.relative_to(run).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in filter(Path.is_file, files)
    }
    scores = [json.dumps({**record, "seconds": 0}) for record in records(run)]
    return {**found, **{f"epoch {number}": line for number, line in enumerate(scores, 1)}}


def trained(config: Path, run: Path) -> int:
    """The process of a run, begun or resumed; what it prints goes to a file beside RUN."""

    def work() -> int:
        torch.set_num_threads(1)
        resume = ["--resume"] if (run / "config.yaml").exists() else []
        sys.argv = ["rpbert", "train", str(config), "--output", str(run), *resume]
        with pytest.raises(SystemExit) as end:
            cli.main()
        return int(end.value.code or 0)

    return forked(work, run.with_suffix(".log"))


def main(config: Path, folder: Path, names: str, ends: int, seed: int) -> dict[str, Any]:
    """Train once undisturbed, then ended at random moments and resumed; gives the differences.

    Signals are named comma-separated; `ends` is how often a run must have been ended in its loop.
    """
    random.seed(seed)
    started, calm = time.monotonic(), folder / "undisturbed"
    assert exit_code(trained(config, calm)) == 0, calm.with_suffix(".log").read_text()
    seconds, expected = time.monotonic() - started, left_by(calm)
    counts: Counter[str] = Counter()
    differences: list[str] = []
    while counts["within"] < ends:
        run = folder / f"run{counts['runs']}"
        (log := run.with_suffix(".log")).touch()
        for turn in range(MOST_ENDS + 1):
            told, end = log.stat().st_size, signal.Signals[random.choice(names.split(","))]
            child = trained(config, run)
            if turn < MOST_ENDS:
                time.sleep(random.uniform(0, seconds / 2))  # a resumed run is shorter
                os.kill(child, end)
            if (code := exit_code(child)) == 0:
                break
            within = b"Task tagging" in log.read_bytes()[told:]
            # Before the command has taken over the signals, SIGTERM ends it as any process.
            allowed = {KILLED} if end == signal.SIGKILL else {STOPPED, STOPPED if within else -end}
            if turn == MOST_ENDS or code not in allowed:
                raise RuntimeError(f"{run} ends with {code}: {log.read_text()[-3000:]}")
            counts["within" if within else "before"] += 1
        counts["runs"] += 1
        differences += [f"{run}: {name}" for name, _ in expected.items() ^ left_by(run).items()]
    return {"differences": differences, **counts}


if __name__ == "__main__":
    given, where, which, count, start = sys.argv[1:]
    print(json.dumps(main(Path(given), Path(where), which, int(count), int(start))))
