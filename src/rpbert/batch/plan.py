"""Which files a run reads, which it writes, and which of them fall to this machine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from glob import has_magic
from pathlib import Path

from rpbert.batch import Format, Shard
from rpbert.data.readers import SUFFIXES
from rpbert.errors import InputError


def find(pattern: str) -> tuple[Path, list[Path]]:
    """The folder above the shards that a file, a folder or a glob names, and these in order."""
    given = Path(pattern)
    expected = f"a file, a folder or a glob of {', '.join(SUFFIXES)}"
    if given.is_dir():
        base, found = given, list(given.iterdir())
    elif given.exists() or not has_magic(pattern):
        base, found = given.parent, [given]
    else:
        parts = given.parts
        fixed = next(i for i, part in enumerate(parts) if has_magic(part))
        base = Path(*parts[:fixed])
        found = list(base.glob(str(Path(*parts[fixed:]))))
    shards = sorted(path for path in found if _is_shard(path))
    if not shards:
        kind = "other or hidden files" if any(path.exists() for path in found) else "no such file"
        raise InputError(pattern, "a folder without any" if given.is_dir() else kind, expected)
    return base, shards


def _is_shard(path: Path) -> bool:
    # A name with a dot in front is that of a file that somebody is still writing.
    return path.suffix in SUFFIXES and not path.name.startswith(".") and path.is_file()


def plan(base: Path, sources: Sequence[Path], folder: Path, format: Format) -> list[Shard]:
    """The output of each shard, below `folder` under its name; never in place of another file."""
    shards = [
        Shard(source, (folder / source.relative_to(base)).with_suffix(f".{format}"))
        for source in sources
    ]
    target = folder.resolve()
    owner: dict[Path, Path] = {}
    for shard in shards:
        if shard.source.resolve().is_relative_to(target):
            found = f"the folder of {shard.source.name}, which is read"
            raise InputError(f"--output {folder}", found, "another folder than the input's")
        for written in (shard.output, shard.errors, shard.side):
            other = owner.setdefault(written, shard.source)
            if other != shard.source:
                found = f"{other.name} and {shard.source.name}, whose output would be one file"
                raise InputError(shard.source.parent, found, "shards of different names")
    return shards


def divide(shards: Sequence[Shard], part: str) -> list[Shard]:
    """Every n-th shard from the i-th on, for machine ``i/n`` of n that do not talk."""
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", part)
    number, of = (int(group) for group in match.groups()) if match else (0, 0)
    if not 1 <= number <= of:
        raise InputError("--shard", part, "i/n, from 1/n to n/n")
    return list(shards[number - 1 :: of])
