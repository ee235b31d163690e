"""A disk that fails at its n-th operation, or with it ends the process or the power.

It stands between Python and the disk: files opened to write, pieces written, syncs and renames
are its operations. What safetensors would write by itself is written through it, byte for byte.
"""

from __future__ import annotations

import errno
import io
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pytest
from safetensors.torch import save
from torch import Tensor

Fault: TypeAlias = Literal["full", "broken", "kill", "power"]
FAULTS: tuple[Fault, ...] = ("full", "broken", "kill", "power")
"""No space left; an I/O error; SIGKILL; SIGKILL and what was not synced is cut."""

KILLED = -signal.SIGKILL
REFUSED, SAVED = 2, 0


class FaultyDisk:
    """Counts operations and fails at one of them.

    Args:
        below: the folder in which files are lost where the power fails.
        at: the operation that fails, from 0.
    """

    def __init__(self, below: Path, at: int, fault: Fault) -> None:
        self.below, self.at, self.fault = below, at, fault
        self.count = 0
        self._unsynced: set[int] = set()
        self._open, self._fsync = io.open, os.fsync
        self._rename, self._replace = os.rename, os.replace

    @contextmanager
    def in_place(self) -> Iterator[FaultyDisk]:
        """Every file of this process is on this disk."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(io, "open", self._open_file)
            patch.setattr(os, "fsync", self._sync)
            patch.setattr(os, "rename", self._moving(self._rename))
            patch.setattr(os, "replace", self._moving(self._replace))
            for module in ("rpbert.training.checkpoint", "rpbert.storage.model_folder"):
                patch.setattr(f"{module}.save_file", _save_file)
            yield self

    def fails(self, part: Callable[[], None] = lambda: None) -> None:
        """Count an operation, and fail where it is the one; `part` is what is done of it."""
        self.count += 1
        if self.count - 1 != self.at:
            return
        part()
        if self.fault == "power":
            self._cut_unsynced()
        if self.fault in ("kill", "power"):
            os.kill(os.getpid(), signal.SIGKILL)
        number = errno.ENOSPC if self.fault == "full" else errno.EIO
        raise OSError(number, os.strerror(number))

    def dirty(self, handle: int) -> None:
        """Note that a file has content that no sync has brought to the disk."""
        self._unsynced.add(os.fstat(handle).st_ino)

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
        self._unsynced.discard(os.fstat(handle).st_ino)

    def _moving(self, move: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
        def moved(source: Any, target: Any) -> None:
            self.fails()
            move(source, target)

        return moved

    def _cut_unsynced(self) -> None:
        for path in self.below.rglob("*"):
            if path.is_file() and path.stat().st_ino in self._unsynced:
                os.truncate(path, path.stat().st_size // 2)


class _File(io.FileIO):
    disk: FaultyDisk

    def write(self, content: Any) -> int:
        half = bytes(content)[: len(content) // 2]
        self.disk.dirty(self.fileno())
        self.disk.fails(lambda: _write_all(super(_File, self).write, half))
        return super().write(content)


def _write_all(write: Callable[[bytes], int], content: bytes) -> None:
    if content:
        write(content)


def _save_file(tensors: dict[str, Tensor], path: Path) -> None:
    with path.open("wb") as file:
        file.write(save(tensors))


def outcome(work: Callable[[], None]) -> int:
    """What a process comes to that does `work` and nothing else: its exit code."""
    from rpbert.errors import InputError

    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = SAVED
        except InputError as error:
            code = REFUSED if "\n" not in str(error) else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
