"""What was seen of every post as CSV: a row a post, and the attention of every block."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO

from rpbert.analysis.attention import Explanation
from rpbert.analysis.errors import entity_errors
from rpbert.analysis.summary import Seen

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

OF_POST = ("id", "words", "image", "label", "outcome", "gold")
OF_MODEL = ("r", "s_tv", "s_tv_per_word", "entities", "errors")


class PostTable:
    """posts.csv: a row a post; the columns of a second model begin with ``against_``.

    `label` is the data's relation, 1 where the image adds; `gold`, `entities` and `errors` are
    JSON, offsets in characters.
    """

    def __init__(self, file: TextIO, models: int) -> None:
        self._rows = csv.writer(file)
        compared = [f"against_{name}" for name in OF_MODEL] if models > 1 else []
        self._rows.writerow([*OF_POST, *OF_MODEL, *compared])

    def add(self, seen: Seen) -> None:
        """The row of a post."""
        post, gold = seen.post, seen.gold
        label = "" if seen.label is None else int(seen.label)
        status = seen.explanations[0].prediction.image
        row: list[Any] = [post.id, len(post.words), status, label, seen.outcome, _json(gold)]
        for explanation, found in zip(seen.explanations, seen.found, strict=True):
            errors = None if gold is None else [asdict(e) for e in entity_errors(gold, found)]
            entities = [asdict(entity) for entity in explanation.prediction.entities]
            figures = (explanation.prediction.relation, explanation.s_tv, explanation.s_tv_per_word)
            row += [*map(_number, figures), _json(entities), _json(errors)]
        self._rows.writerow(row)


class BlockTable:
    """blocks.csv: a_j^v (Eq. 11) of every post and model."""

    def __init__(self, file: TextIO, names: Sequence[str]) -> None:
        self._rows = csv.writer(file)
        self._names = names
        self._rows.writerow(["model", "id", "rows", "columns", "attention"])

    def add(self, seen: Seen) -> None:
        """A row for each model that has attention to the image."""
        for name, explanation in zip(self._names, seen.explanations, strict=True):
            if explanation.heat is not None:
                row = [*explanation.heat.shape, _series(explanation.heat)]
                self._rows.writerow([name, explanation.post.id, *row])


class WordTable:
    """words.csv: the attention of every word to the image, and to each block of it."""

    def __init__(self, file: TextIO, names: Sequence[str]) -> None:
        self._rows = csv.writer(file)
        self._names = names
        self._rows.writerow(["model", "id", "index", "word", "sum", "attention"])

    def add(self, seen: Seen) -> None:
        """A row for each word, of each model that has attention to the image."""
        for name, explanation in zip(self._names, seen.explanations, strict=True):
            for row in _words(explanation):
                self._rows.writerow([name, explanation.post.id, *row])


def _words(explanation: Explanation) -> list[tuple[Any, ...]]:
    if explanation.attention is None:
        return []
    words = zip(explanation.post.words, explanation.attention, strict=True)
    return [(i, word, _number(a.sum()), _series(a)) for i, (word, a) in enumerate(words)]


def _series(values: NDArray[np.float64]) -> str:
    """Blocks row by row, separated by blanks."""
    return " ".join(f"{value:.4g}" for value in values.ravel())


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _json(content: Any) -> str:
    return "" if content is None else json.dumps(content, ensure_ascii=False)
