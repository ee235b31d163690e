"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from rpbert.errors import InputError


@contextmanager
def written_whole(path: Path) -> Iterator[TextIO]:
    """Open a text file that takes its name only once it is complete and on the disk.

    Raises:
        InputError: `path` is a folder, or its folder is missing or cannot be written.
    """
    if path.is_dir():
        raise InputError(path, "a folder", "a file that can be written")
    new = path.with_name(f".{path.name}.new-{os.getpid()}")
    try:
        file = new.open("w", encoding="utf-8")
    except OSError as error:
        raise InputError(path, error.strerror or str(error), "a file that can be written") from None
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
