"""The side file of a finished shard: what it was made from, and whether that is still so."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from rpbert import __version__
from rpbert.batch import Job, Shard, Tally
from rpbert.errors import InputError
from rpbert.storage.manifest import MANIFEST
from rpbert.storage.writing import written_whole

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Source:
    """A file as it was when its reading began."""

    size: int = 0  # bytes
    changed: int = 0  # when it was last written, in nanoseconds
    sha256: str = ""
    rows: int = 0  # about, for the progress; 0 where that is not known

    @classmethod
    def of(cls, path: Path) -> Source:
        """Read a file through."""
        digest, lines = hashlib.sha256(), 0
        status = path.stat()
        with path.open("rb") as file:
            while piece := file.read(2**20):
                digest.update(piece)
                lines += piece.count(b"\n")
        rows = lines if path.suffix == ".jsonl" else _parquet_rows(path)
        return cls(status.st_size, status.st_mtime_ns, digest.hexdigest(), rows)

    def is_still(self, path: Path) -> bool:
        """Whether the file looks as it did."""
        try:
            status = path.stat()
        except OSError:
            return False
        return (status.st_size, status.st_mtime_ns) == (self.size, self.changed)


def _parquet_rows(path: Path) -> int:
    from pyarrow import ArrowException
    from pyarrow.parquet import read_metadata

    try:
        return int(read_metadata(path).num_rows) if path.suffix == ".parquet" else 0
    except (ArrowException, OSError):  # the reader says what is wrong
        return 0


class _File(BaseModel):
    sha256: str


class _Side(BaseModel, strict=True):
    """What of a side file is read again."""

    format: Literal[1]
    input: _File
    output: _File
    rows: int
    errors: int
    images: dict[str, int]
    broken: str
    model: str
    settings: dict[str, Any]


def record(shard: Shard, job: Job, source: Source, tally: Tally) -> None:
    """Write the side file; all other files of the shard are in place."""
    output = Source.of(shard.output)
    content = {
        "format": FORMAT,
        "input": {"name": shard.source.name, "bytes": source.size, "sha256": source.sha256},
        "output": {"name": shard.output.name, "bytes": output.size, "sha256": output.sha256},
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
    for path, file in ((shard.output, side.output), (shard.source, side.input)):
        if not path.is_file() or sha256(path) != file.sha256:
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
    return sha256(manifest)


def sha256(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
