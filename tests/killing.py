"""Ends processes and disks at chosen moments: what they leave must be whole.

`outcome` does work in a fork and gives its exit code; a `FaultyDisk` fails at its n-th operation,
or ends with it the process or the power.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import pytest
import torch
from safetensors.torch import save

from rpbert.errors import InputError
from rpbert.training.checkpoint import Checkpoints
from tests.training_runs import records

REFUSED, KILLED = 2, -signal.SIGKILL

Fault: TypeAlias = Literal["full", "broken", "kill", "power"]
"""No space left; an I/O error; SIGKILL; SIGKILL and what was not synced is cut."""
FAULTS: tuple[Fault, ...] = get_args(Fault)


def outcome(work: Callable[[], object]) -> int:
    """The exit code of a fork that does `work`: 0, `REFUSED` with one line, or a signal."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        torch.set_num_threads(1)  # the threads of the parent are not here
        work()
        code = 0
    except InputError as error:
        code = REFUSED if "\n" not in str(error) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


class FaultyDisk:
    """Counts operations (opening to write, writing, syncing, renaming) and fails at the `at`-th.

    At -1 it never fails. Where the power fails, what was not synced is lost in the folder `below`.
    """

    def __init__(self, below: Path, at: int, fault: Fault) -> None:
        self.below, self.at, self.fault = below, at, fault
        self.count = 0
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
                patch.setattr(f"{module}.save_file", lambda t, path: path.write_bytes(save(t)))
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


def left_by(run: Path) -> dict[str, str]:
    """What a run came to: digests of its model's and last checkpoint's files, its scores."""
    last = Checkpoints(run / "checkpoints")
    files = [*(run / "model").rglob("*"), *(last.folder / str(last.places()[-1])).glob("*.s*")]
    found = {
        path.relative_to(run).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in filter(Path.is_file, files)
    }
    return found | {str(one["epoch"]): json.dumps({**one, "seconds": 0}) for one in records(run)}
