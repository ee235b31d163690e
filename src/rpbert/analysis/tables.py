"""Every post as CSV: a row a post, the attention of every block, the attention of every word."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO

from rpbert.analysis.summary import Seen, entity_errors, spans_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

OF_POST = ("id", "words", "image", "label", "outcome", "gold")
OF_MODEL = ("r", "s_tv", "s_tv_per_word", "entities", "errors")


class Tables:
    """Writes posts.csv, blocks.csv and words.csv as posts come.

    posts.csv: columns of a second model begin with ``against_``; `gold`, `entities` and `errors`
    are JSON, offsets in characters. blocks.csv: a_j^v (Eq. 11). words.csv: the attention of each
    word to the image and to each block.
    """

    FILES = ("posts.csv", "blocks.csv", "words.csv")

    def __init__(self, files: Sequence[TextIO], names: Sequence[str]) -> None:
        self._names = names
        self._posts, self._blocks, self._words = (csv.writer(file) for file in files)
        compared = [f"against_{name}" for name in OF_MODEL] if len(names) > 1 else []
        self._posts.writerow([*OF_POST, *OF_MODEL, *compared])
        self._blocks.writerow(["model", "id", "rows", "columns", "attention"])
        self._words.writerow(["model", "id", "index", "word", "sum", "attention"])

    def add(self, seen: Seen) -> None:
        """The rows of a post; a model without attention to its image has none but in posts.csv."""
        self._posts.writerow(_post(seen))
        for name, explanation in zip(self._names, seen.explanations, strict=True):
            heat, attention = explanation.heat, explanation.attention
            if heat is None or attention is None:
                continue
            self._blocks.writerow([name, seen.post.id, *heat.shape, _series(heat)])
            for index, (word, own) in enumerate(zip(seen.post.words, attention, strict=True)):
                row = [name, seen.post.id, index, word, _number(own.sum()), _series(own)]
                self._words.writerow(row)


def _post(seen: Seen) -> Iterator[Any]:
    post, gold = seen.post, seen.gold
    yield from (post.id, len(post.words), seen.explanations[0].prediction.image)
    yield from ("" if seen.label is None else int(seen.label), seen.outcome, _json(gold))
    for explanation in seen.explanations:
        entities = explanation.prediction.entities
        errors = None if gold is None else entity_errors(gold, spans_of(entities))
        figures = (explanation.prediction.relation, explanation.s_tv, explanation.s_tv_per_word)
        yield from map(_number, figures)
        yield _json([asdict(entity) for entity in entities])
        yield _json(None if errors is None else [asdict(error) for error in errors])


def _series(values: NDArray[np.float64]) -> str:
    """Blocks row by row, separated by blanks."""
    return " ".join(f"{value:.4g}" for value in values.ravel())


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _json(content: Any) -> str:
    return "" if content is None else json.dumps(content, ensure_ascii=False)
