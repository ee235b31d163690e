"""Folders that are written whole or not at all, with a manifest that shows a changed byte.
``manifest.json`` lists every file of a folder with its length and SHA-256, and ends with the
SHA-256 of that list. It is written last, when all other files are on the disk: a folder whose
manifest holds is whole. Models and checkpoints are such folders."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from rpbert.errors import InputError
from rpbert.storage.writing import cannot_write, held, is_disk_fault, stays_below, sync

MANIFEST = "manifest.json"
CARD = "README.md"  # not listed, because people edit it
_AGAIN = "copy it again"


@contextmanager
def folder_written_whole(folder: Path) -> Iterator[Path]:
    """A new folder to write into, which replaces `folder` once it is on the disk; a link stays, and
    what it leads to is replaced. If that fails, the earlier folder is put back; after a killed
    process, `recover` does that. Raises InputError: `folder` is a file, another process writes it,
    or the disk is full, fails or may not be written."""
    folder = Path(os.path.realpath(folder))
    if folder.exists() and not folder.is_dir():
        raise InputError(folder, "a file", "a folder to write")
    new, _ = _beside(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _held(folder):
            shutil.rmtree(new, ignore_errors=True)  # of a killed process
            try:
                new.mkdir()
                yield new
                _seal(new)
                _replace(folder)
            finally:
                shutil.rmtree(new, ignore_errors=True)
    except Exception as error:
        if is_disk_fault(error):
            raise cannot_write(folder, error) from error
        raise


def verify(folder: Path, needed: Collection[str], hint: str = _AGAIN) -> list[str]:
    """Compare every file of a folder with its manifest, which has to list those `needed`; returns
    the files it lists. An unlisted file in the folder itself is ignored, because nothing reads it;
    one in a folder within, which a library reads as a whole, is refused. `hint` is for a missing
    manifest. Raises InputError: a file is missing, changed, cut, unlisted or outside; the line
    names it."""
    listed = _listed(folder / MANIFEST, hint)
    if not _lies_in(folder, folder / CARD):
        raise InputError(folder / CARD, "a link outside the folder", "a file within it")
    if lacking := sorted(set(needed) - set(listed)):
        expected = "all files that were saved"
        raise InputError(folder / MANIFEST, f"no entry of {lacking[0]}", expected)
    for name, entry in listed.items():
        path = folder / name
        if not stays_below(name) or not _lies_in(folder, path):
            found = f"{name!a}, outside the folder"
            raise InputError(folder / MANIFEST, found, "files within it")
        if not path.is_file():
            raise InputError(path, "no such file", "the file the manifest lists", _AGAIN)
        if (found_entry := entry_of(path)) != entry:
            found = f"changed content ({found_entry['bytes']:,} bytes)"
            raise InputError(path, found, "the bytes that were saved", _AGAIN)
    for inner in sorted({Path(name).parts[0] for name in listed if "/" in name}):
        for path in sorted((folder / inner).rglob("*")):
            known = path.relative_to(folder).as_posix() in listed
            if not known and (path.is_file() or path.is_symlink()):
                raise InputError(path, "a file the manifest does not list", "saved files alone")
    return sorted(listed)


def is_whole(folder: Path) -> bool:
    """Whether a folder has a manifest that holds."""
    try:
        verify(folder, ())
    except InputError:
        return False
    return True


def recover(folder: Path) -> None:
    """Repair what a process left that was killed while it wrote this folder."""
    folder = Path(os.path.realpath(folder))
    new, old = _beside(folder)
    if not (new.exists() or old.exists()):
        return
    with _held(folder):
        if old.exists() and not folder.exists():
            old.rename(folder)
        for left in (new, old):
            shutil.rmtree(left, ignore_errors=True)


def _beside(folder: Path) -> tuple[Path, Path]:
    """Where a folder is written, and where the earlier one is while they change places."""
    return folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")


def _held(folder: Path) -> AbstractContextManager[None]:
    return held(folder.with_name(f".{folder.name}.lock"), folder)


def _seal(folder: Path) -> None:
    """Write all files to the disk, and then the manifest. Libraries make files that their owner
    alone may read: all get the mode that the umask gave to the manifest."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path: path.relative_to(folder).as_posix() for path in files}
    listed = {name: entry_of(path) for path, name in names.items() if name != CARD}
    for path in (*files, *(path for path in folder.rglob("*") if path.is_dir())):
        sync(path)
    (folder / MANIFEST).write_bytes(_written(listed))
    for path in files:
        path.chmod((folder / MANIFEST).stat().st_mode)
    sync(folder / MANIFEST)
    sync(folder)


def _replace(folder: Path) -> None:
    """Put a finished folder in the place of an earlier one."""
    new, old = _beside(folder)
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)  # of a killed process
        folder.rename(old)
    try:
        new.rename(folder)
    except BaseException:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise
    sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def entry_of(path: Path) -> dict[str, Any]:
    """The length and the SHA-256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": file.tell(), "sha256": digest}


def _written(listed: dict[str, Any]) -> bytes:
    """The only bytes of a manifest of these entries."""
    entries = json.dumps(listed, indent=1, sort_keys=True)
    digest = hashlib.sha256(entries.encode()).hexdigest()
    return f'{{"files": {entries},\n"sha256": "{digest}"}}\n'.encode()


def _listed(manifest: Path, hint: str) -> dict[str, Any]:
    """The entries of a manifest."""
    try:
        content = manifest.read_bytes()
    except OSError:
        raise InputError(manifest, "no readable manifest", "a whole folder", hint) from None
    try:
        listed = json.loads(content)["files"]
        intact = isinstance(listed, dict) and _written(listed) == content
    except (ValueError, LookupError, TypeError, RecursionError):
        intact = False
    if not intact:
        raise InputError(manifest, "changed content", "the bytes that were saved", _AGAIN)
    return dict(listed)


def _lies_in(folder: Path, path: Path) -> bool:
    """Whether a file is in its folder, or in the store that a hub's folders link to."""
    real, target = folder.resolve(), path.resolve()
    if target.is_relative_to(real):
        return True
    return real.parent.name == "snapshots" and target.is_relative_to(real.parents[1] / "blobs")
