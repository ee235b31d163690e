"""The side file of a finished shard: what it was made from, and whether that is still so."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from rpbert import __version__
from rpbert.batch import Job, Shard, Tally
from rpbert.errors import InputError
from rpbert.storage.manifest import MANIFEST, entry_of
from rpbert.storage.writing import written_whole

FORMAT = 1


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
