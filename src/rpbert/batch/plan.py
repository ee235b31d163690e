"""Which files a run reads and writes, which of them fall to this machine, and which earlier runs
finished: the side file of such a shard says what it was made from."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from glob import has_magic
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from rpbert import __version__
from rpbert.batch import Format, Job, Shard, Tally
from rpbert.data.readers import SUFFIXES
from rpbert.errors import InputError
from rpbert.storage.manifest import MANIFEST, entry_of
from rpbert.storage.writing import written_whole

FORMAT = 1  # of side files


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


class _Side(BaseModel, strict=True):
    """What of a side file is read again."""

    format: Literal[1]
    input: Any  # as `entry_if_any` gives it
    output: Any
    rows: int
    errors: int
    images: dict[str, int]
    broken: str
    model: str
    settings: dict[str, Any]


def entry_if_any(path: Path) -> dict[str, Any]:
    """Name, length and SHA-256 of a file; of one that cannot be read the name alone."""
    try:
        return {"name": path.name, **entry_of(path)}
    except OSError:
        return {"name": path.name}


def record(shard: Shard, job: Job, source: dict[str, Any], tally: Tally) -> None:
    """Write the side file; all other files of the shard are in place."""
    content = {
        "format": FORMAT,
        "input": source,
        "output": entry_if_any(shard.output),
        **{key: getattr(tally, key) for key in ("rows", "errors", "images", "broken")},
        "model": job.digest,
        "settings": job.settings(),
        "rpbert": __version__,
    }
    with written_whole(shard.side) as file:
        json.dump(content, file, ensure_ascii=False, indent=1)


def check(shard: Shard, job: Job) -> Tally | None:
    """The counts of a finished shard; None for one that has to be tagged (again).
    One whose input breaks off is tagged again: the input may have been incomplete. Raises
    `InputError` if input, output, model or settings are not what they were."""
    if not shard.side.exists():
        return None
    try:
        side = _Side.model_validate(json.loads(shard.side.read_text("utf-8")))
    except (OSError, ValueError):
        raise _changed(shard.side, "no side file", f"one of format {FORMAT}") from None
    if side.broken:
        return None
    if side.model != job.digest:
        raise _changed(shard.side, "the predictions of another model", "those of this one")
    if side.settings != job.settings():
        raise _changed(shard.side, f"the settings {side.settings}", str(job.settings()))
    if side.errors and not shard.errors.is_file():
        raise _changed(shard.errors, "nothing", "the posts that failed")
    for path, saved in ((shard.output, side.output), (shard.source, side.input)):
        if entry_if_any(path) != saved:
            raise _changed(path, "changed bytes or no file", "the file that was finished")
    return Tally(side.rows, side.errors, Counter(side.images))


def _changed(path: Path, found: str, expected: str) -> InputError:
    hint = "remove the shard's .meta.json to tag it again, or take another --output"
    return InputError(path, found, expected, hint)


def digest_of(model: Path) -> str:
    """The SHA-256 of a model's manifest, which lists those of all its files."""
    manifest = model / MANIFEST
    if not manifest.is_file():
        hint = "give the RUN or RUN/model folder that `rpbert train` wrote"
        raise InputError(manifest, "no readable manifest", "a whole folder", hint)
    return str(entry_of(manifest)["sha256"])
