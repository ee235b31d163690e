"""The predictions of one input in the making, and the posts of it that failed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TextIO

from rpbert.batch import Format, Shard, Tally
from rpbert.errors import InputError
from rpbert.storage.writing import bytes_written_whole, written_whole
from rpbert.types import Prediction


class Rows(Protocol):
    """A file of rows in some format; one of `finish` and `drop` is called at last."""

    def write(self, row: dict[str, Any]) -> None:
        """Add a row."""
        ...

    def finish(self) -> None:
        """Write what is still held."""
        ...

    def drop(self) -> None:
        """Write nothing more."""
        ...


class JsonRows:
    """One JSON object a line."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, row: dict[str, Any]) -> None:
        """Add a line."""
        self._file.write(json.dumps(row, ensure_ascii=False).encode("utf-8") + b"\n")

    def finish(self) -> None:
        """Nothing is held."""

    def drop(self) -> None:
        """Nothing is held."""


class HeldRows:
    """Rows kept in memory."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def write(self, row: dict[str, Any]) -> None:
        """Keep a row."""
        self.rows.append(row)

    def finish(self) -> None:
        """Nothing is to be written."""

    def drop(self) -> None:
        """Nothing is to be written."""


class ParquetRows:
    """A Parquet file, compressed with Zstandard, written a few thousand rows at a time."""

    held = 4096
    """Rows of a row group."""
    characters = 32 * 2**20
    """Of the texts of a row group, about; it is written once it holds so many."""

    def __init__(self, file: BinaryIO) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        text, number, place = pa.string(), pa.float64(), pa.int64()
        kinds = {"text": text, "label": text, "start": place, "end": place, "score": number}
        columns = {"id": text, "text": text, "entities": pa.list_(pa.struct(kinds))}
        self._schema = pa.schema({**columns, "relation": number, "image": text})
        self._writer = pq.ParquetWriter(file, self._schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []
        self._length = 0

    def write(self, row: dict[str, Any]) -> None:
        """Add a row."""
        self._rows.append(row)
        self._length += len(row["text"])
        if len(self._rows) == self.held or self._length >= self.characters:
            self._write_group()

    def finish(self) -> None:
        """Write the last rows and the footer."""
        if self._rows:
            self._write_group()
        self._writer.close()

    def drop(self) -> None:
        """Keep the library from writing a footer to a file that is gone."""
        self._writer.is_open = False

    def _write_group(self) -> None:
        import pyarrow as pa

        self._writer.write_table(pa.Table.from_pylist(self._rows, self._schema))
        self._rows.clear()
        self._length = 0


FORMATS: dict[Format, Callable[[BinaryIO], Rows]] = {"jsonl": JsonRows, "parquet": ParquetRows}


class Output:
    """Where predictions and faults of one input go.

    Attributes:
        rows: predictions so far.
        errors: posts that failed so far.
        images: how many posts have which image status.
        broken: why the input could not be read to its end; empty if it could.
    """

    def __init__(self, source: Path, predictions: Rows, errors: Callable[[], TextIO]) -> None:
        self.rows = self.errors = 0
        self._source = source
        self.images: Counter[str] = Counter()
        self.broken = ""
        self._predictions = predictions
        self._open_errors = errors
        self._faults: TextIO | None = None

    @property
    def tally(self) -> Tally:
        """What it came to so far."""
        return Tally(self.rows, self.errors, dict(self.images), self.broken)

    def add(self, prediction: Prediction) -> None:
        """Write a prediction."""
        self._predictions.write(prediction.to_dict())
        self.rows += 1
        self.images[prediction.image] += 1

    def fault(self, fault: InputError) -> None:
        """Write down a post that failed."""
        self.errors += 1
        self._write_fault(fault)

    def break_off(self, fault: InputError) -> None:
        """Write down that the input ends before its end."""
        self.broken = str(fault)
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
    """Write a shard's output, and its errors if there are any; at the end both take their names.

    Raises:
        InputError: the disk is full or fails; then nothing is left of either.
    """
    with ExitStack() as files:
        rows = FORMATS[format](files.enter_context(bytes_written_whole(shard.output)))
        out = Output(shard.source, rows, lambda: files.enter_context(written_whole(shard.errors)))
        try:
            yield out
            rows.finish()
        except BaseException:
            rows.drop()
            raise
    if not (out.errors or out.broken):
        shard.errors.unlink(missing_ok=True)  # of an earlier run


def clear(shards: Iterable[Shard]) -> None:
    """Remove what killed processes left half written of some shards."""
    names: dict[Path, set[str]] = {}
    for shard in shards:
        held = names.setdefault(shard.output.parent, set())
        held |= {f".{path.name}" for path in (shard.output, shard.errors, shard.side)}
    for folder, held in names.items():
        for path in folder.iterdir():
            name, new, _ = path.name.rpartition(".new-")
            if new and name in held:
                path.unlink(missing_ok=True)
