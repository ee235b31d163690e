"""One run of a table: trained, or taken up where it stopped, then scored once."""

from __future__ import annotations

import io
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rpbert.config.run import RunSettings
from rpbert.data.readers import open_data
from rpbert.data.words import SPLITTERS
from rpbert.errors import InputError, counted
from rpbert.inference import Tagger
from rpbert.models import parse_options
from rpbert.models.saved import TaggingModel
from rpbert.reproduce.rows import Row
from rpbert.reproduce.scores import PostScores
from rpbert.storage.manifest import recover
from rpbert.storage.writing import written_whole
from rpbert.training.train import check_settings, complete_settings, train
from rpbert.types import Post

TRAINED = "trained.json"


@dataclass(frozen=True)
class Job:
    """A row on some data with one seed.

    Attributes:
        folder: of the run; finished ones are found there again.
        data: the data set's name.
        posts: of the training split.
        test: the data set whose test posts are scored.
        scores: the file that keeps the scores.
        attention: whether S_TV is scored too.
    """

    row: Row
    data: str
    seed: int
    settings: RunSettings
    folder: Path
    posts: int
    test: Path
    scores: str
    attention: bool

    @property
    def trained(self) -> Mapping[str, Any] | None:
        """What the finished training came to, None before."""
        path = self.folder / TRAINED
        return json.loads(path.read_text("utf-8")) if path.is_file() else None

    def check(self, test: Sequence[Post]) -> None:
        """See that a run that was begun is this one.

        Args:
            test: the posts that are to be scored.

        Raises:
            InputError: it has other settings, or was scored on other posts.
        """
        if (self.folder / "config.yaml").is_file():
            check_settings(complete_settings(self.settings), self.folder / "config.yaml")
        path = self.folder / self.scores
        if path.is_file() and not self.finished().may_be_of(test):
            now = f"those of the {counted(len(test), 'test post')} that are there now"
            hint = "train into another --output where the data has changed"
            raise InputError(path, "scores of other posts", now, hint)

    def run(self) -> None:
        """Train and score, as far as that is not done yet.

        Raises:
            InputError: the settings do not go with the data, or a part cannot be had.
            KeyboardInterrupt: stopped; what was done is kept.
        """
        if self.trained is None:
            begun = (self.folder / "config.yaml").exists()
            result = train(self.settings, self.folder, resume=begun)
            found = {
                "seconds": round(result.seconds, 1),
                "epoch": result.epoch,
                "dev_f1": result.f1,
                "initial_weights": _initial_weights(self.settings, self.folder),
            }
            with written_whole(self.folder / TRAINED) as file:
                json.dump(found, file)
            # Finished: nothing goes on from there, and moments take more room than the model.
            shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
        recover(self.folder / "model")
        path = self.folder / self.scores
        if not path.is_file():
            tagger = Tagger.from_pretrained(
                self.folder / "model", "cpu" if self.settings.training.device == "cpu" else None
            )
            # Raw text is split as the model's training posts were, as `rpbert evaluate` does.
            source = open_data(self.test, SPLITTERS[tagger.model.vocabulary.marks])
            posts = list(islice(source.read("test"), self.settings.data.posts))
            PostScores.of(tagger, posts, attention=self.attention).write(path)

    def finished(self) -> PostScores:
        """The scores of a job that has run."""
        return PostScores.read(self.folder / self.scores)

    def evidence(self) -> str:
        """What the system takes, and how many of the test posts had it."""
        settings = parse_options(self.settings.model).evidence
        if settings is None:
            return "text only"
        scores = self.finished()
        used = scores.statuses().get("used", 0)
        return f"{settings.kind}, {used:,} of {len(scores.image):,} test posts"


def probe(job: Job, posts: int) -> float:
    """Seconds that a job would train, judged by one epoch over its first posts."""
    data = job.settings.data.model_copy(update={"posts": posts})
    training = job.settings.training.model_copy(update={"epochs": 1})
    short = job.settings.model_copy(update={"data": data, "training": training})
    with tempfile.TemporaryDirectory() as folder, redirect_stderr(io.StringIO()):
        result = train(short, Path(folder) / "run")
    return result.seconds * job.settings.training.epochs * max(job.posts / posts, 1)


def _initial_weights(settings: RunSettings, folder: Path) -> str:
    """Where encoder, image network and word vectors started."""
    options = parse_options(settings.model)
    known: dict[str, str] = {}
    encoder = options.encoder
    if encoder is not None:
        notes = TaggingModel.load(folder / "model").notes
        known["encoder"] = notes.get("initial_weights") or encoder.pretrained or "random"
    evidence = options.evidence
    source = evidence.source if evidence else None
    shape = getattr(source, "shape", None)
    if evidence is not None and (shape is not None or getattr(source, "pretrained", None)):
        known[evidence.kind] = getattr(source, "pretrained", None) or "random"
    if "word_vectors" in type(options.tagger).model_fields:
        vectors: Path | None = getattr(options.tagger, "word_vectors")  # noqa: B009
        known["word vectors"] = vectors.name if vectors else "random"
    return ", ".join(f"{part}: {name}" for part, name in known.items())
