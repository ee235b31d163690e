"""Files that are written whole or not at all, and the line where a disk refuses them."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import BinaryIO, TextIO

from rpbert.errors import InputError, reason_of

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
def written_whole(path: Path) -> Iterator[TextIO]:
    """Open a text file that replaces `path` once it is complete and on the disk.
    A lone surrogate, as the name of a file may hold, is written as ``\\udcff``, as in JSON.
    Raises InputError: `path` is a folder, its folder is missing or cannot be written, or the disk
    is full or fails."""
    with bytes_written_whole(path) as file:
        text = io.TextIOWrapper(file, "utf-8", "backslashreplace", newline="\n")
        yield text
        text.detach()


@contextmanager
def bytes_written_whole(path: Path) -> Iterator[BinaryIO]:
    """The same for a file of bytes."""
    if path.is_dir():
        raise InputError(path, "a folder", "a file that can be written")
    new = path.with_name(f".{path.name}.new-{os.getpid()}")
    try:
        file = new.open("wb")
    except OSError as error:
        raise InputError(path, reason_of(error), "a file that can be written") from None
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        sync(path.parent)
    except OSError as error:
        if error.filename is not None and str(error.filename) != str(new):
            raise  # not of this file: the caller was reading something
        raise cannot_write(path, error) from error
    finally:
        new.unlink(missing_ok=True)


def stays_below(name: str) -> bool:
    """Whether a relative path stays below the folder it is relative to."""
    # The Windows reading splits at both slashes and knows drives, so it refuses on all systems.
    path = PureWindowsPath(name)
    return bool(path.parts) and not path.anchor and ".." not in path.parts and "\0" not in name
