"""Posts in a table: pandas in, pandas out (extra ``pandas``)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, Protocol

import pandas as pd

from rpbert.errors import InputError
from rpbert.types import Post, Prediction

READ = ("id", "text", "tokens", "image", "caption")
"""Columns that tagging reads."""


class FrameTagger(Protocol):
    """What tags the rows: see `rpbert.inference.Tagger`."""

    def as_post(self, given: Any, index: int = 0) -> Post:
        """A row as a post."""

    def predict_stream(self, posts: Iterable[Any], batch_size: int) -> Iterator[Prediction]:
        """Tag posts in their order."""


def predict_frame(
    tagger: FrameTagger, frame: pd.DataFrame, prefix: str = "", batch_size: int = 32
) -> pd.DataFrame:
    """The rows of a frame with what the tagger says of them beside.

    Args:
        frame: a row a post: ``text`` and/or ``tokens``, and where there are any ``image`` (a
            path, bytes or a PIL image), ``caption`` and ``id``. Missing values stand for absent
            ones.
        prefix: of the new columns' names.

    Returns:
        A new frame: index, columns and rows as they were, then ``entities`` (dictionaries as in
        a prediction's JSON), ``relation`` (r, NaN without a relation gate) and ``image_status``.

    Raises:
        InputError: no column holds posts, a new column is there already, or a row is no post.
    """
    columns = [prefix + name for name in ("entities", "relation", "image_status")]
    if taken := [name for name in columns if name in frame.columns]:
        hint = "predict_frame(frame, prefix='predicted_')"
        raise InputError("frame", f"a column {taken[0]!r}", "free names for what is added", hint)
    if not {"text", "tokens"} & set(frame.columns):
        there = ", ".join(map(repr, frame.columns)) or "no columns"
        raise InputError("frame", there, "a column 'text' or 'tokens'")
    found = list(tagger.predict_stream(_posts(tagger, frame), batch_size))
    return frame.assign(**dict(zip(columns, _values(found, frame.index), strict=True)))


def _posts(tagger: FrameTagger, frame: pd.DataFrame) -> Iterator[Post]:
    read = [name for name in READ if name in frame.columns]
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


def _values(found: Sequence[Prediction], index: pd.Index) -> Iterator[pd.Series]:
    entities = [[asdict(entity) for entity in prediction.entities] for prediction in found]
    yield pd.Series(entities, index, dtype=object)
    yield pd.Series([prediction.relation for prediction in found], index, dtype="float64")
    yield pd.Series([prediction.image for prediction in found], index, dtype="str")
