"""One run of a table: trained, or resumed where it stopped, then scored once, post by post."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rpbert.analysis.attention import explain_batch
from rpbert.config.run import RunSettings
from rpbert.data.collate import batches
from rpbert.data.labels import strict_spans
from rpbert.data.readers import open_data
from rpbert.data.words import SPLITTERS
from rpbert.errors import InputError, counted
from rpbert.evaluation.scoring import RELATION_THRESHOLD
from rpbert.inference import Tagger
from rpbert.models import parse_options
from rpbert.reproduce.rows import ATTENTION, Grouping, Measure, Row
from rpbert.storage.manifest import recover
from rpbert.storage.writing import written_whole
from rpbert.training.train import check_settings, complete_settings, train
from rpbert.types import Post

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class PostScores:
    """One value a test post, in the order of the split."""

    entities: Sequence[tuple[int, int, int]]  # strict IOB2: gold, predicted, correct
    gold_relation: Sequence[float | None]
    relation: Sequence[float | None]  # r
    image: Sequence[str]  # status
    s_tv: Sequence[float | None]  # S_TV / words (Eq. 10)

    @classmethod
    def of(cls, tagger: Tagger, posts: Sequence[Post], *, attention: bool) -> PostScores:
        """Run a model over posts; `attention` adds S_TV, which takes several times as long."""
        s_tv: list[float | None] = [None] * len(posts)
        if attention:
            explained = (explain_batch(tagger, batch) for batch in batches(posts, 16))
            s_tv = [found.s_tv_per_word for batch in explained for found in batch]
        decoded = tagger.decoder.decode(posts)
        return cls(
            [_entities(post.tags or (), d.tags) for post, d in zip(posts, decoded, strict=True)],
            [post.relation for post in posts],
            [d.relation for d in decoded],
            [d.image for d in decoded],
            s_tv,
        )

    def outcomes(
        self, measure: Measure, by: Grouping, reference: PostScores | None
    ) -> NDArray[np.float64]:
        """Numerators and denominators of a measure for each post; zeros where it is not of it.
        Posts are grouped by their labels, or, also where there are none, by the r of `reference`,
        RpBERT's scores of the same posts. Shape: (posts, 2), (posts, 2 k) for k ratios."""
        # F1 is 2 · correct to gold + predicted.
        counts = np.array(self.entities, dtype=np.float64).reshape(-1, 3)
        f1 = np.stack([2 * counts[:, 2], counts[:, 0] + counts[:, 1]], axis=1)
        if measure == "f1":
            return f1
        if measure in ("relation", "no_relation"):
            return self._relation_f1(measure == "relation")
        if measure == "relations":
            return np.concatenate([self._relation_f1(adds) for adds in (True, False)], axis=1)
        scored = reference.relation if reference else [None] * len(self.image)
        labelled = by == "labels" and any(label is not None for label in self.gold_relation)
        chosen = _chosen(self.gold_relation if labelled else scored, measure in ("adds", "high"))
        if measure in ATTENTION:
            s_tv = np.array([[v or 0.0, v is not None] for v in self.s_tv], dtype=np.float64)
            return s_tv.reshape(-1, 2) * chosen
        return f1 * chosen

    def _relation_f1(self, of: bool) -> NDArray[np.float64]:
        """2 · correct, gold + predicted of "image adds", or of "image doesn't add", of posts with a
        label and a usable image. Shape: (posts, 2)."""
        rows = np.zeros((len(self.image), 2))
        known = zip(self.gold_relation, self.relation, self.image, strict=True)
        for row, (gold, r, image) in zip(rows, known, strict=True):
            if gold is not None and image == "used":
                true, found = ((v > RELATION_THRESHOLD) == of for v in (gold, r or 0.0))
                row[:] = 2.0 * (true and found), float(true) + float(found)
        return rows


@dataclass(frozen=True)
class Run:
    """A row of the table on one data set with one seed."""

    row: Row
    data: str  # name of the data set
    seed: int
    settings: RunSettings
    folder: Path
    test: Path  # data set whose test posts are scored
    scores: str  # file in `folder`

    @property
    def trained(self) -> Mapping[str, Any] | None:
        """Seconds, best epoch, dev F1 and initial weights of the training; None before its end."""
        path = self.folder / "trained.json"
        return json.loads(path.read_text("utf-8")) if path.is_file() else None

    @property
    def done(self) -> bool:
        """Whether it is trained and scored."""
        return self.trained is not None and (self.folder / self.scores).is_file()

    def check(self, test: Sequence[Post]) -> None:
        """Refuse a folder that holds a run of other settings, or scores of other posts."""
        if (self.folder / "config.yaml").is_file():
            check_settings(complete_settings(self.settings), self.folder / "config.yaml")
        path = self.folder / self.scores
        relations = [post.relation for post in test]
        if path.is_file() and list(self.finished().gold_relation) != relations:
            now = f"those of the {counted(len(test), 'test post')} that are there now"
            hint = "train into another --output where the data has changed"
            raise InputError(path, "scores of other posts", now, hint)

    def run(self) -> None:
        """Train and score, as far as that is not done yet. Raises InputError: the settings do not
        suit the data; KeyboardInterrupt: stopped, and the next call resumes."""
        if self.trained is None:
            begun = (self.folder / "config.yaml").exists()
            result = train(self.settings, self.folder, resume=begun)
            found = {
                "seconds": round(result.seconds, 1),
                "epoch": result.epoch,
                "dev_f1": result.f1,
                "initial_weights": _initial_weights(self.settings, self.folder),
            }
            with written_whole(self.folder / "trained.json") as file:
                json.dump(found, file)
            # A finished run is never resumed, and Adam's moments take more room than the model.
            shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
        recover(self.folder / "model")
        if (self.folder / self.scores).is_file():
            return
        device = "cpu" if self.settings.training.device == "cpu" else None
        tagger = Tagger.from_pretrained(self.folder / "model", device)
        # Raw text is split as the model's training posts were, as `rpbert evaluate` does.
        source = open_data(self.test, SPLITTERS[tagger.model.vocabulary.marks])
        posts = list(islice(source.read("test"), self.settings.data.posts))
        scores = PostScores.of(tagger, posts, attention=self.scores == "attention.json")
        with written_whole(self.folder / self.scores) as file:
            json.dump(asdict(scores), file)

    def finished(self) -> PostScores:
        """The scores of a run that is done."""
        return PostScores(**json.loads((self.folder / self.scores).read_text("utf-8")))

    def evidence(self) -> str:
        """The kind of evidence, and how many of the test posts had it."""
        settings = parse_options(self.settings.model).evidence
        if settings is None:
            return "text only"
        images = list(self.finished().image)
        return f"{settings.kind}, {images.count('used'):,} of {len(images):,} test posts"


def _initial_weights(settings: RunSettings, folder: Path) -> str:
    """Where encoder, image network and word vectors started."""
    options = parse_options(settings.model)
    known: dict[str, str] = {}
    if options.encoder is not None:
        notes = json.loads((folder / "model" / "model.json").read_text("utf-8"))["notes"]
        known["encoder"] = notes["initial_weights"] or options.encoder.pretrained or "random"
    for kind, source in options.evidence.kinds.items() if options.evidence else ():
        if source.initial_weights:
            known[kind] = source.initial_weights
    if "word_vectors" in type(options.tagger).model_fields:
        vectors: Path | None = options.tagger.model_dump()["word_vectors"]
        known["word vectors"] = vectors.name if vectors else "random"
    return ", ".join(f"{name}: {weights}" for name, weights in known.items())


def _entities(gold: Sequence[str], predicted: Sequence[str]) -> tuple[int, int, int]:
    true, found = set(strict_spans(gold)), set(strict_spans(predicted))
    return len(true), len(found), len(true & found)


def _chosen(values: Sequence[float | None], above: bool) -> NDArray[np.float64]:
    """1 for posts whose value lies above the threshold, or not above it; 0 without a value."""
    chosen = [v is not None and (v > RELATION_THRESHOLD) == above for v in values]
    return np.array(chosen, dtype=np.float64)[:, None]
