"""The files of one shard while it is tagged: predictions, and posts that failed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TextIO, TypeAlias

from rpbert.batch import Format, Shard, Tally
from rpbert.errors import InputError
from rpbert.storage.writing import bytes_written_whole, written_whole
from rpbert.types import Prediction

Write: TypeAlias = "Callable[[dict[str, Any]], object]"  # adds a row

GROUP_ROWS = 4096  # of a Parquet row group
GROUP_CHARACTERS = 32 * 2**20  # of its texts; whichever comes first


@contextmanager
def json_rows(file: BinaryIO) -> Iterator[Write]:
    """One JSON object a line."""
    yield lambda row: file.write(
        json.dumps(row, ensure_ascii=False, allow_nan=False).encode("utf-8") + b"\n"
    )


@contextmanager
def parquet_rows(file: BinaryIO) -> Iterator[Write]:
    """A Parquet file, compressed with Zstandard, written a few thousand rows at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, number, place = pa.string(), pa.float64(), pa.int64()
    entity = {"text": text, "label": text, "start": place, "end": place, "score": number}
    columns = {"id": text, "text": text, "entities": pa.list_(pa.struct(entity))}
    columns |= {"relation": number, "image": text, "image_reason": text}
    source = {"evidence": text, "image": place, "relation": number}
    schema = pa.schema({**columns, "sources": pa.list_(pa.struct(source))})
    writer = pq.ParquetWriter(file, schema, compression="zstd")
    rows: list[dict[str, Any]] = []
    characters = 0

    def write(row: dict[str, Any]) -> None:
        nonlocal characters
        rows.append(row)
        characters += len(row["text"])
        if len(rows) == GROUP_ROWS or characters >= GROUP_CHARACTERS:
            write_group()

    def write_group() -> None:
        nonlocal characters
        writer.write_table(pa.Table.from_pylist(rows, schema))
        rows.clear()
        characters = 0

    try:
        yield write
        if rows:
            write_group()
        writer.close()
    finally:
        writer.is_open = False  # else it writes a footer to a closed file after an error


FORMATS: dict[Format, Callable[[BinaryIO], AbstractContextManager[Write]]] = {
    "jsonl": json_rows,
    "parquet": parquet_rows,
}


class Output:
    """Takes the predictions and faults of one input; the file of faults is opened at the first."""

    def __init__(self, source: Path, write: Write, open_errors: Callable[[], TextIO]) -> None:
        self.tally = Tally()
        self._source, self._write, self._open_errors = source, write, open_errors
        self._faults: TextIO | None = None

    def add(self, prediction: Prediction) -> None:
        """Write a prediction."""
        self._write(prediction.to_dict())
        self.tally.rows += 1
        self.tally.images[prediction.image] += 1

    def fault(self, fault: InputError) -> None:
        """Write down a post that failed."""
        self.tally.errors += 1
        self._write_fault(fault)

    def break_off(self, fault: InputError) -> None:
        """Write down that the input cannot be read to its end."""
        self.tally.broken = str(fault)
        self._write_fault(fault)

    def _write_fault(self, fault: InputError) -> None:
        if self._faults is None:
            self._faults = self._open_errors()
        place = str(fault.where).removeprefix(f"{self._source}").removeprefix(":")
        named = {"key": place} if self._source.suffix == ".tar" else {"line": int(place or 0)}
        reason = str(fault).removeprefix(f"{fault.where}: ")
        record = {"file": self._source.name, **(named if place else {}), "reason": reason}
        self._faults.write(json.dumps(record, ensure_ascii=False) + "\n")


@contextmanager
def opened(shard: Shard, format: Format) -> Iterator[Output]:
    """Open a shard's output, and its errors if there are any; at the end both take their names.
    Raises InputError if the disk is full or fails; then neither is written."""
    with ExitStack() as files:
        file = files.enter_context(bytes_written_whole(shard.output))
        for suffix in ("new", "lock"):  # of a process that was killed; this one holds the shard
            name = f".{shard.errors.name}.{suffix}"
            shard.errors.with_name(name).unlink(missing_ok=True)
        write = files.enter_context(FORMATS[format](file))
        out = Output(shard.source, write, lambda: files.enter_context(written_whole(shard.errors)))
        yield out
    if not (out.tally.errors or out.tally.broken):
        shard.errors.unlink(missing_ok=True)  # of an earlier run
