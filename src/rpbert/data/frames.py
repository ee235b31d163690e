"""Posts in a table: pandas in, pandas out (extra ``pandas``)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any, Protocol

import pandas as pd

from rpbert.errors import InputError
from rpbert.types import TEXTS, Post, Prediction

_READ = ("id", "text", "tokens", "image", *TEXTS)


class FrameTagger(Protocol):
    """What is needed of `rpbert.inference.Tagger`."""

    def as_post(self, given: Any, index: int = 0) -> Post: ...  # noqa: D102

    def predict_stream(self, posts: Iterable[Any], batch_size: int) -> Iterator[Prediction]: ...  # noqa: D102


def predict_frame(
    tagger: FrameTagger, frame: pd.DataFrame, prefix: str = "", batch_size: int = 32
) -> pd.DataFrame:
    """A new frame: index, columns and rows of `frame`, then the predictions.
    A row is a post: ``text`` and/or ``tokens``, and optionally ``image`` (a path, bytes or a PIL
    image), ``id`` and texts such as ``caption``. New columns: ``entities`` (dictionaries as in a
    prediction's JSON), ``relation`` (r, NaN without a gate) and ``image_status``, after `prefix`.
    Raises InputError: no column holds posts, a new column is there already, or a row is no post."""
    columns = [prefix + name for name in ("entities", "relation", "image_status")]
    if taken := [name for name in columns if name in frame.columns]:
        hint = "predict_frame(frame, prefix='predicted_')"
        raise InputError("frame", f"a column {taken[0]!r}", "free names for what is added", hint)
    if not {"text", "tokens"} & set(frame.columns):
        there = ", ".join(map(repr, frame.columns)) or "no columns"
        raise InputError("frame", there, "a column 'text' or 'tokens'")
    found = list(tagger.predict_stream(_posts(tagger, frame), batch_size))
    values = (
        pd.Series([list(map(asdict, one.entities)) for one in found], frame.index, dtype=object),
        pd.Series([one.relation for one in found], frame.index, dtype="float64"),
        pd.Series([one.image for one in found], frame.index, dtype="str"),
    )
    return frame.assign(**dict(zip(columns, values, strict=True)))


def _posts(tagger: FrameTagger, frame: pd.DataFrame) -> Iterator[Post]:
    read = [name for name in _READ if name in frame.columns]
    rows = zip(frame.index, *(frame[name] for name in read), strict=True)
    for number, (label, *cells) in enumerate(rows):
        values = {name: _plain(cell) for name, cell in zip(read, cells, strict=True)}
        try:
            yield tagger.as_post({k: v for k, v in values.items() if v is not None}, number)
        except InputError as error:
            raise InputError(f"frame, row {label}", error.found, error.expected) from None


def _plain(cell: Any) -> Any:
    """A cell as Python has it: None where it is missing, no type of NumPy."""
    if hasattr(cell, "tolist"):  # of an array, or of a number of NumPy
        cell = cell.tolist()
    missing = pd.api.types.is_scalar(cell) and pd.isna(cell)
    return None if missing else cell
