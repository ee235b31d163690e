"""Tag shards of posts: each shard's output is written whole or not at all.
`plan` names inputs and outputs and finds what earlier runs did, `run` tags a shard and the shards
of a run one after the other and shows the progress, `ray_engine` maps the same function over
Ray actors, and `output` writes the predictions and faults of a shard."""

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
    """What is the same for all shards of a run; `digest` is that of the model's manifest.
    A faulty row is set aside if the job is lenient, else it stops the run."""

    model: Path
    digest: str
    format: Format = "jsonl"
    precision: Precision = "fp32"
    batch_size: int = 32
    lenient: bool = True
    backend: Backend = "torch"
    threshold: float = 0.0  # of the score of an entity

    def settings(self) -> dict[str, str | float]:
        """The settings that change predictions or how they are written."""
        kept = ["format", "precision", "batch_size"]
        kept += ["threshold"] if self.threshold else []
        kept += ["backend"] if self.backend != "torch" else []
        return {name: getattr(self, name) for name in kept}


@dataclass(slots=True)
class Tally:
    """Counts of one shard."""

    rows: int = 0  # predictions
    errors: int = 0  # posts that failed
    images: Counter[str] = field(default_factory=Counter)  # posts by image status
    broken: str = ""  # why the input could not be read to its end


@dataclass(frozen=True, slots=True)
class Event:
    """Progress of one shard."""

    shard: int  # its number in the run
    posts: int = 0  # how many more are tagged
    tally: Tally | None = None  # its counts, once its files are in place
    lost: str = ""  # why it was given up, with nothing of it written


Engine: TypeAlias = Callable[[Job, Sequence[Shard]], Iterator[Event]]
"""Tags shards; the last event of each has its `tally` or says why it is `lost`."""


@dataclass
class Summary:
    """Counts of a run, over the shards finished now and before."""

    shards: int = 0  # finished now
    skipped: int = 0  # finished before
    rows: int = 0
    errors: int = 0
    images: Counter[str] = field(default_factory=Counter)
    broken: dict[str, str] = field(default_factory=dict)  # whose input breaks off, and why
    lost: dict[str, str] = field(default_factory=dict)  # that were given up, and why

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
