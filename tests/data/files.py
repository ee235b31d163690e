"""Files written for a test, and what is read back from them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rpbert.data.readers import open_data
from rpbert.data.reading import Quirk
from rpbert.types import Post


def folder_of(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def jsonl(path: Path, rows: Iterable[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def table(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Rows as JSON lines or Parquet, by the suffix."""
    if path.suffix == ".jsonl":
        return jsonl(path, rows)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def read(path: Path, split: str = "all") -> tuple[list[Post], list[Quirk]]:
    quirks: list[Quirk] = []
    return list(open_data(path).read(split, quirks)), quirks


def kinds(quirks: Iterable[Quirk]) -> list[tuple[int, str]]:
    return [(quirk.line, quirk.kind) for quirk in quirks]
