"""What a run came to on test posts, post by post, kept beside its model as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rpbert.analysis.attention import explain_batch
from rpbert.data.collate import batches
from rpbert.data.labels import strict_spans
from rpbert.evaluation.scoring import RELATION_THRESHOLD
from rpbert.inference import Tagger
from rpbert.storage.writing import written_whole
from rpbert.types import Post

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rpbert.reproduce.rows import Measure


@dataclass(frozen=True)
class PostScores:
    """One value a test post, in the order of the split.

    Attributes:
        entities: entities of strict IOB2 in the gold, predicted, and predicted right.
        gold_relation: its label, of several images the highest, None where the data has none.
        relation: r, None for a system without a gate.
        image: what became of its image.
        s_tv: S_TV / words (Eq. 10), None where it was not asked for or there is no image.
    """

    entities: Sequence[tuple[int, int, int]]
    gold_relation: Sequence[float | None]
    relation: Sequence[float | None]
    image: Sequence[str]
    s_tv: Sequence[float | None]

    @classmethod
    def of(cls, tagger: Tagger, posts: Sequence[Post], *, attention: bool) -> PostScores:
        """Run a model over posts.

        Args:
            attention: also work out S_TV, which takes several times as long.
        """
        s_tv: list[float | None] = [None] * len(posts)
        if attention:
            explained = (explain_batch(tagger, batch) for batch in batches(posts, 16))
            s_tv = [found.s_tv_per_word for batch in explained for found in batch]
        decoded = list(tagger.decode(posts))
        return cls(
            [_entities(post.tags or (), d.tags) for post, d in zip(posts, decoded, strict=True)],
            [post.relation for post in posts],
            [d.relation for d in decoded],
            [d.image for d in decoded],
            s_tv,
        )

    @classmethod
    def read(cls, path: Path) -> PostScores:
        """Read what `write` wrote."""
        return cls(**json.loads(path.read_text("utf-8")))

    def write(self, path: Path) -> None:
        """Write them whole or not at all."""
        with written_whole(path) as file:
            json.dump(asdict(self), file)

    def may_be_of(self, posts: Sequence[Post]) -> bool:
        """Whether they are of so many posts, of the same relations."""
        return list(self.gold_relation) == [post.relation for post in posts]

    def outcomes(self, measure: Measure, reference: PostScores | None) -> NDArray[np.float64]:
        """Numerator and denominator of a measure for each post; zeros where a post is not of it.

        Posts are grouped by their labels; where there are none, and in Fig. 3, which is about r,
        by the r of `reference`.

        Args:
            reference: the same posts as RpBERT sees them.

        Shape: (posts, 2).
        """
        if measure == "f1":
            return self._f1()
        if measure == "relation":
            return self._relation_f1()
        scored = reference.relation if reference else [None] * len(self.image)
        if measure in ("low", "high"):
            s_tv = np.array([[v or 0.0, v is not None] for v in self.s_tv], dtype=np.float64)
            return s_tv.reshape(-1, 2) * _chosen(scored, measure == "high")
        labelled = any(label is not None for label in self.gold_relation)
        groups = self.gold_relation if labelled else scored
        return self._f1() * _chosen(groups, measure == "adds")

    def statuses(self) -> Mapping[str, int]:
        """How many posts had their image used, and so on."""
        return Counter(self.image)

    def _f1(self) -> NDArray[np.float64]:
        """2 · correct to gold + predicted."""
        counts = np.array(self.entities, dtype=np.float64).reshape(-1, 3)
        return np.stack([2 * counts[:, 2], counts[:, 0] + counts[:, 1]], axis=1)

    def _relation_f1(self) -> NDArray[np.float64]:
        """The same of "image adds", over posts with a label and an image that could be read."""
        rows = []
        for gold, r, image in zip(self.gold_relation, self.relation, self.image, strict=True):
            if gold is None or image != "used":
                rows.append((0.0, 0.0))
                continue
            adds, said = gold > RELATION_THRESHOLD, (r or 0.0) > RELATION_THRESHOLD
            rows.append((2.0 * (adds and said), float(adds) + float(said)))
        return np.array(rows, dtype=np.float64).reshape(-1, 2)


def _entities(gold: Sequence[str], predicted: Sequence[str]) -> tuple[int, int, int]:
    true, found = set(strict_spans(gold)), set(strict_spans(predicted))
    return len(true), len(found), len(true & found)


def _chosen(values: Sequence[float | None], above: bool) -> NDArray[np.float64]:
    """1 for posts whose value lies above the threshold, or not above it; 0 without a value."""
    chosen = [v is not None and (v > RELATION_THRESHOLD) == above for v in values]
    return np.array(chosen, dtype=np.float64)[:, None]
