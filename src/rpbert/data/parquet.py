"""Rows of Parquet files. A small file can claim or unpack to any size, so that sizes are checked
before values are made: those of row groups as the footer has them, then those of each row."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rpbert.data.formats import FOREIGN
from rpbert.data.images import BYTE_LIMIT
from rpbert.data.reading import LINE_LIMIT, ReadLog, Row, Values, quoted
from rpbert.errors import InputError

if TYPE_CHECKING:
    import pyarrow

_PLAIN = re.compile(
    "null|bool|u?int(8|16|32|64)|halffloat|float|double|(large_)?(string|binary)|(string|binary)_view"
)
_GROUP_NUMBERS = 2**27  # of a column in a row group
_GROUP_TEXTS = 2**30  # bytes of lists of texts or images in a row group: they are held together
_ROW_IMAGES = 16 * BYTE_LIMIT


def parquet_rows(
    path: Path, log: ReadLog, known: Collection[str], keys: Collection[str]
) -> Iterator[Row]:
    """The rows of a file: their values of `keys`, and unknown ones."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        footer = pq.read_metadata(path)
        leaves = [footer.schema.column(place) for place in range(len(footer.schema))]
        lists = [leaf.path for leaf in leaves if leaf.max_repetition_level]
        texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
        # Of a repeated text in a list one copy is held; a flat column is read row by row.
        held = {"read_dictionary": [name for name in texts if name in lists]}
        # Without a buffer, a whole column of a row group is read at once.
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=2**20, **held) as file:
            columns = _columns(file.schema_arrow, path, log, known, keys)
            for place in range(file.num_row_groups):
                group = footer.row_group(place)
                if fault := _oversized(group, columns, lists):
                    found = f"the rows up to {number + group.num_rows:,}, of {fault}"
                    log.fault(InputError(f"{path}:{number + 1}", found, "smaller row groups"))
                    number += group.num_rows
                    continue
                for batch in file.iter_batches(1, row_groups=[place], columns=columns):
                    number += 1
                    yield number, partial(_python, batch, f"{path}:{number}", keys)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # of names of columns, too
        found = f"no readable Parquet after row {number} ({quoted(str(error))})"
        raise InputError(path, found, "a Parquet file") from error


def _columns(
    schema: pyarrow.Schema, path: Path, log: ReadLog, known: Collection[str], keys: Collection[str]
) -> list[str]:
    """The columns to read, all of them of plain types."""
    wanted = []
    for name, kind in zip(schema.names, schema.types, strict=True):
        if _is_plain(kind):
            wanted += [name] * (name in keys or name not in known)
        elif name in keys:
            found = f"the column {quoted(name)} of type {quoted(str(kind))}"
            raise InputError(path, found, "text, numbers, bytes, or lists or structs of them")
        elif name not in known:
            log.note(path, 1, "unknown key", f"{quoted(name)} is not read")
    if ("id" not in wanted and not FOREIGN & {*wanted}) or len({*schema.names}) < len(schema):
        found = "a column twice" if "id" in wanted else "no column id"
        expected = "columns id, text and/or tokens, …"
        raise InputError(path, f"{found} among {quoted(schema.names)}", expected)
    return wanted


def class_features(path: Path) -> Any:
    """What `datasets` says of a file's columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        content = (pq.read_schema(path).metadata or {}).get(b"huggingface", b"{}")
        return json.loads(content).get("info")
    except (pa.ArrowException, OSError, ValueError, AttributeError, RecursionError):
        return None  # where it is needed, the reader says what is wrong


def _oversized(group: Any, columns: Sequence[str], lists: Sequence[str]) -> str:
    """Why a row group cannot be read, by the sizes of its columns."""
    for place in range(group.num_columns):
        of = group.column(place)
        name = of.path_in_schema
        if name.partition(".")[0] not in columns:
            continue
        size = of.total_uncompressed_size
        if of.num_values > _GROUP_NUMBERS or size > _ROW_IMAGES * max(group.num_rows, 1):
            return f"{of.num_values:,} values and {size:,} bytes of {quoted(name)}"
        if name in lists and size > _GROUP_TEXTS:
            return f"{size:,} bytes of lists in {quoted(name)}"
    return ""


def _python(batch: pyarrow.RecordBatch, where: str, keys: Collection[str]) -> Values:
    """The values of one row, if they are small enough."""
    small = []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        limit = _ROW_IMAGES if name == "image" else LINE_LIMIT
        if (size := _size(column)) <= limit:
            small.append(name)
        elif name in keys:
            raise InputError(where, f"{size:,} bytes in {name}", f"at most {limit:,}")
    try:
        return {name: values[0] for name, values in batch.select(small).to_pydict().items()}
    except UnicodeDecodeError:
        raise InputError(where, "a string that is no UTF-8", "UTF-8 text") from None


def _size(array: Any) -> int:
    """Bytes that an array's values take apart, which a dictionary holds once."""
    import pyarrow as pa
    from pyarrow import compute, types

    kind = array.type
    if types.is_list(kind) or types.is_large_list(kind):
        return _size(array.flatten())
    if types.is_struct(kind):
        return sum(_size(part) for part in array.flatten())
    if types.is_dictionary(kind) and not types.is_integer(kind.value_type):
        lengths = compute.binary_length(array.dictionary.cast(pa.large_binary()))
        return compute.sum(compute.take(lengths, array.indices)).as_py() or 0
    return max(int(array.nbytes), 8 * len(array))


def _is_plain(kind: pyarrow.DataType) -> bool:
    """Whether a type is of JSON or bytes; extension types bring code, and Ray's loads pickles."""
    from pyarrow import types

    if types.is_struct(kind):
        return all(_is_plain(kind.field(i).type) for i in range(kind.num_fields))
    if types.is_dictionary(kind) or types.is_list(kind) or types.is_large_list(kind):
        return _is_plain(kind.value_type)
    return _PLAIN.fullmatch(str(kind)) is not None
