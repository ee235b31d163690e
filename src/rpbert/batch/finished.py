"""The side file of a finished shard: what it was made from, and whether that is still so."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rpbert import __version__
from rpbert.batch import Job, Shard, Tally
from rpbert.errors import InputError
from rpbert.storage.manifest import MANIFEST
from rpbert.storage.writing import written_whole

FORMAT = 1
_PIECE = 2**20


@dataclass(frozen=True, slots=True)
class Source:
    """An input as it was when its reading began.

    Attributes:
        size: in bytes.
        changed: when the file was last written, in nanoseconds.
        sha256: of its bytes.
        rows: lines or rows, about, for the progress; 0 where that is not known.
    """

    size: int
    changed: int
    sha256: str
    rows: int

    @classmethod
    def of(cls, path: Path) -> Source:
        """Read a file through."""
        digest, lines = hashlib.sha256(), 0
        status = path.stat()
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
                lines += piece.count(b"\n")
        rows = lines if path.suffix == ".jsonl" else _rows(path)
        return cls(status.st_size, status.st_mtime_ns, digest.hexdigest(), rows)

    def is_still(self, path: Path) -> bool:
        """Whether the file looks as it did."""
        try:
            status = path.stat()
        except OSError:
            return False
        return (status.st_size, status.st_mtime_ns) == (self.size, self.changed)


def _rows(path: Path) -> int:
    if path.suffix != ".parquet":
        return 0
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowException, OSError):  # reading it tells what is wrong
        return 0


def record(shard: Shard, job: Job, source: Source, tally: Tally) -> None:
    """Write the side file; all else of the shard is in its place."""
    content = {
        "format": FORMAT,
        "input": {"name": shard.source.name, "bytes": source.size, "sha256": source.sha256},
        "output": {
            "name": shard.output.name,
            "bytes": shard.output.stat().st_size,
            "sha256": sha256(shard.output),
        },
        **asdict(tally),
        "model": job.digest,
        "settings": job.settings(),
        "rpbert": __version__,
    }
    with written_whole(shard.side) as file:
        json.dump(content, file, ensure_ascii=False, indent=1)


def check(shard: Shard, job: Job) -> Tally | None:
    """A shard that is finished, None for one that has to be tagged (again).

    One whose input breaks off is tagged again: the input may have been incomplete.

    Raises:
        InputError: input, output, model or settings are not what they were.
    """
    if not shard.side.exists():
        return None
    written = _read(shard.side)
    if written["broken"]:
        return None
    if written["model"] != job.digest:
        raise _changed(shard.side, "the predictions of another model", "those of this one")
    if written["settings"] != job.settings():
        raise _changed(shard.side, f"the settings {written['settings']}", str(job.settings()))
    if written["errors"] and not shard.errors.is_file():
        raise _changed(shard.errors, "nothing", "the posts that failed")
    for path, key in ((shard.output, "output"), (shard.source, "input")):
        if not path.is_file():
            raise _changed(path, "nothing", f"the {key} that was finished")
        if sha256(path) != written[key]["sha256"]:
            raise _changed(path, f"a changed {key}", "the bytes that were finished")
    return Tally(written["rows"], written["errors"], written["images"])


def digest_of(model: Path) -> str:
    """The SHA-256 of a model's manifest, which lists those of all its files.

    Raises:
        InputError: there is no manifest.
    """
    manifest = model / MANIFEST
    if not manifest.is_file():
        hint = "give the RUN or RUN/model folder that `rpbert train` wrote"
        raise InputError(manifest, "no readable manifest", "a whole folder", hint)
    return sha256(manifest)


def check_model(job: Job) -> None:
    """Once a model is loaded: see that no other was put in its place since the job began.

    Raises:
        InputError: one was.
    """
    if digest_of(job.model) != job.digest:
        found, expected = "another model than when the run began", "one that nobody writes to"
        raise InputError(job.model, found, expected, "copy it elsewhere, as from a run in training")


def sha256(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(side: Path) -> dict[str, Any]:
    kinds = {
        "input": dict, "output": dict, "rows": int, "errors": int, "images": dict,
        "broken": str, "model": str, "settings": dict,
    }  # fmt: skip
    try:
        content = json.loads(side.read_text("utf-8"))
        whole = (
            content["format"] == FORMAT
            and all(isinstance(content[key], kind) for key, kind in kinds.items())
            and all("sha256" in content[key] for key in ("input", "output"))
            and all(isinstance(count, int) for count in content["images"].values())
        )
    except (OSError, ValueError, LookupError, TypeError):
        whole = False
    if not whole:
        raise _changed(side, "no side file of a finished shard", f"one of format {FORMAT}")
    return dict(content)


def _changed(path: Path, found: str, expected: str) -> InputError:
    hint = "remove the shard's .meta.json to tag it again, or take another --output"
    return InputError(path, found, expected, hint)
