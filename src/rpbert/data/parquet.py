"""The rows of a Parquet file that nobody has looked at: a few at a time, of plain types only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rpbert.data.reading import Quirk, note, refuse_misspelt, shown
from rpbert.errors import InputError

if TYPE_CHECKING:
    import pyarrow

_ROWS = 64  # held at once; a row may carry the bytes of an image


def parquet_rows(
    path: Path, keys: frozenset[str], known: frozenset[str], quirks: list[Quirk] | None = None
) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file: of each column in `keys` its Arrow scalar.

    Args:
        known: columns that are not odd, though they may not be read.

    Raises:
        InputError: the file cannot be read, or a column to be read is of no plain type.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    done = 0
    try:
        # Without a buffer, a whole column of a row group is read at once.
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=2**20) as file:
            for name in file.schema_arrow.names:
                if name not in known:
                    refuse_misspelt(name, file.schema_arrow.names, known, path)
                    note(quirks, path, 1, "unknown key", f"{shown(name)} is not read")
            columns = _columns(file.schema_arrow, path, keys)
            for batch in file.iter_batches(_ROWS, columns=columns):
                for scalars in zip(*batch.columns, strict=True):
                    yield dict(zip(batch.schema.names, scalars, strict=True))
                    done += 1
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # of names of columns, too
        found = f"no readable Parquet after row {done} ({shown(str(error))})"
        raise InputError(path, found, "a Parquet file") from error


def _columns(schema: pyarrow.Schema, path: Path, keys: frozenset[str]) -> list[str]:
    """The columns to read, all of them of plain types."""
    names = list(schema.names)
    if "id" not in names or len(set(names)) < len(names):
        found = "a column twice" if "id" in names else "no column id"
        raise InputError(path, f"{found} among {shown(names)}", "columns id, text and/or tokens, …")
    columns = []
    for field in schema:
        if field.name not in keys:
            continue
        if not _is_plain(field.type):
            found = f"the column {shown(field.name)} of type {shown(str(field.type))}"
            raise InputError(path, found, "text, numbers, bytes, or lists or structs of them")
        columns.append(field.name)
    return columns


def _is_plain(kind: pyarrow.DataType) -> bool:
    """Whether values of a type are what JSON knows, or bytes.

    Above all no extension type: such a type brings code of its own, and Ray's loads pickles.
    """
    from pyarrow import types

    if types.is_struct(kind):
        return all(_is_plain(kind.field(i).type) for i in range(kind.num_fields))
    if types.is_dictionary(kind) or types.is_list(kind) or types.is_large_list(kind):
        return _is_plain(kind.value_type)
    return any(
        fits(kind)
        for fits in (
            types.is_null, types.is_boolean, types.is_integer, types.is_floating,
            types.is_string, types.is_large_string, types.is_string_view,
            types.is_binary, types.is_large_binary, types.is_binary_view,
        )
    )  # fmt: skip
