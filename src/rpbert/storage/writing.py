"""Files that are written whole or not at all, and the line where a disk refuses them."""

from __future__ import annotations

import io
import os
import platform
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path, PureWindowsPath
from typing import BinaryIO, TextIO

from filelock import FileLock, Timeout

from rpbert.errors import InputError, reason_of

LOCK = ".lock"  # in a folder that a run writes
FREE_SPACE = "free some space or repair the disk, and try again; the earlier content is unchanged"


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    if path.is_dir() and os.name != "posix":
        return  # other systems cannot open a folder
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_disk_fault(error: Exception) -> bool:
    """Whether a disk or system refused to write; libraries in Rust wrap its error."""
    return isinstance(error, OSError) or "(os error " in str(error)


def cannot_write(path: Path, error: Exception, hint: str = FREE_SPACE) -> InputError:
    """The line that says why `path` could not be written."""
    return InputError(
        path, f"{reason_of(error)} while it was written", "a disk that takes it", hint
    )


def check_writable(folder: Path, name: str) -> None:
    """Check that a folder, called `name` in messages, can be written, or made where there is none.
    Raises InputError: it, or the nearest folder above it, is none or cannot be written."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise InputError(there, "no folder that can be written", f"one for {name}")


@contextmanager
def held(lock: Path, of: Path) -> Iterator[None]:
    """Keep other processes off `of`, by a lock that ends with this process at the latest, in a file
    whose line says who holds it.
    Raises InputError: another one holds it, or the file cannot be written."""
    own = FileLock(lock, blocking=False)
    try:
        own.acquire()
    except Timeout:
        holder = lock.read_text("utf-8", "replace") if lock.is_file() else ""
        found = f"another run that writes it ({holder.strip() or 'it has just ended'})"
        hint = f"wait for it, or give another --output; the lock is {lock}"
        raise InputError(of, found, "one at a time", hint) from None
    except OSError as error:
        raise InputError(of, reason_of(error), "a file that can be written") from None
    try:
        try:
            since = datetime.now().isoformat(" ", "seconds")
            lock.write_text(f"process {os.getpid()} on {platform.node()}, since {since}\n")
        except OSError as error:
            raise cannot_write(of, error) from error
        yield
    finally:
        lock.unlink(missing_ok=True)  # who waits for its lock finds that it is gone, and tries anew
        own.release()


@contextmanager
def written_whole(path: Path) -> Iterator[TextIO]:
    """Open a text file that replaces `path` once it is complete and on the disk.
    A lone surrogate, as the name of a file may hold, is written as ``\\udcff``, as in JSON.
    Raises InputError: `path` is a folder, its folder is missing or cannot be written, another
    process writes it, or the disk is full or fails."""
    with bytes_written_whole(path) as file:
        text = io.TextIOWrapper(file, "utf-8", "backslashreplace", newline="\n")
        yield text
        text.detach()


@contextmanager
def bytes_written_whole(path: Path) -> Iterator[BinaryIO]:
    """The same for a file of bytes. A link stays, and what it leads to is replaced. A pipe, a
    device or what standard output goes to is not replaced: bytes go into it as they come."""
    if path.is_dir():
        raise InputError(path, "a folder", "a file that can be written")
    with _in_one_line(path, path):
        if stream := _stream(path):
            with stream:
                yield stream
            return
    target = Path(os.path.realpath(path))
    new = target.with_name(f".{target.name}.new")
    with held(target.with_name(f".{target.name}.lock"), path), _in_one_line(path, new):
        new.unlink(missing_ok=True)  # of a process that was killed
        try:
            with new.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            new.replace(target)
            sync(target.parent)
        finally:
            new.unlink(missing_ok=True)


@contextmanager
def _in_one_line(path: Path, opened: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.filename is not None and str(error.filename) != str(opened):
            raise  # not of this file: the caller was reading something
        raise cannot_write(path, error) from error


def _stream(path: Path) -> BinaryIO | None:
    """Standard output or what is no regular file, open; None for what is written whole."""
    try:
        status = path.stat()
    except OSError:  # nothing is there
        return None
    with suppress(OSError):  # standard output is closed
        if os.path.samestat(status, os.fstat(1)):
            return os.fdopen(os.dup(1), "wb")
    return None if stat.S_ISREG(status.st_mode) else path.open("ab")


def stays_below(name: str) -> bool:
    """Whether a relative path stays below the folder it is relative to."""
    # The Windows reading splits at both slashes and knows drives, so it refuses on all systems.
    path = PureWindowsPath(name)
    return bool(path.parts) and not path.anchor and ".." not in path.parts and "\0" not in name
