"""Tag shards of posts: each shard's output is written whole or not at all.

`plan` names inputs and outputs, `finished` finds what earlier runs did, `run` tags a shard and the
shards of a run one after the other, `ray_engine` maps the same function over Ray actors, `output`
writes the predictions and faults of a shard, and `watch` shows the progress.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from rpbert.config.run import Backend, Precision

Format: TypeAlias = Literal["jsonl", "parquet"]


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of posts, and the file its predictions go to."""

    source: Path
    output: Path

    @property
    def errors(self) -> Path:
        """Posts that failed, one JSON object a line; absent where none did."""
        return self.output.with_suffix(".errors.jsonl")

    @property
    def side(self) -> Path:
        """What the output was made from; written last, it marks the shard as finished."""
        return self.output.with_suffix(".meta.json")


@dataclass(frozen=True, slots=True)
class Job:
    """What is the same for all shards of a run.

    Attributes:
        digest: SHA-256 of the model's manifest, which lists the SHA-256 of all its files.
        batch_size: posts that go through the model together.
        lenient: whether a faulty row is set aside; else it stops the run.
        captioner: captions images that come without a caption.
        ocr: whether to look for text in images.
        backend: computes the model.
    """

    model: Path
    digest: str
    format: Format = "jsonl"
    precision: Precision = "fp32"
    batch_size: int = 32
    lenient: bool = True
    captioner: str | None = None
    ocr: bool = False
    backend: Backend = "torch"

    def settings(self) -> dict[str, str | int]:
        """The settings that change predictions or how they are written."""
        kept = ["format", "precision", "batch_size"]
        kept += [name for name in ("captioner", "ocr") if getattr(self, name)]
        kept += ["backend"] if self.backend != "torch" else []
        return {name: getattr(self, name) for name in kept}


@dataclass(slots=True)
class Tally:
    """Counts of one shard.

    Attributes:
        rows: predictions.
        errors: posts that failed.
        images: posts by image status.
        broken: why the input could not be read to its end; empty if it could.
    """

    rows: int = 0
    errors: int = 0
    images: Counter[str] = field(default_factory=Counter)
    broken: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """Progress of one shard.

    Attributes:
        shard: its number in the run.
        posts: how many more are tagged.
        share: how much more of the shard is done, in [0, 1].
        tally: its counts, once its files are in place.
        lost: why it was given up, with nothing of it written; else empty.
    """

    shard: int
    posts: int = 0
    share: float = 0.0
    tally: Tally | None = None
    lost: str = ""


Engine: TypeAlias = Callable[[Job, Sequence[Shard]], Iterator[Event]]
"""Tags shards; the last event of each has its `tally` or says why it is `lost`."""


@dataclass
class Summary:
    """Counts of a run, over the shards finished now and before.

    Attributes:
        shards: finished now.
        skipped: finished before.
        broken: shards whose input breaks off, with the reason.
        lost: shards that were given up, with the reason.
    """

    shards: int = 0
    skipped: int = 0
    rows: int = 0
    errors: int = 0
    images: Counter[str] = field(default_factory=Counter)
    broken: dict[str, str] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether every post of every shard was tagged."""
        return not (self.errors or self.broken or self.lost)

    def add(self, shard: Shard, tally: Tally) -> None:
        """Count a shard in."""
        self.rows += tally.rows
        self.errors += tally.errors
        self.images.update(tally.images)
        if tally.broken:
            self.broken[shard.source.name] = tally.broken

    def to_dict(self) -> dict[str, Any]:
        """The summary as JSON types."""
        return {**vars(self), "images": dict(self.images)}
