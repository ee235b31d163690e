"""Tagging shards of posts: each is written whole or not at all, and once whatever happens.

A job is planned (`plan`), its finished shards are set aside (`finished`), an engine tags the
others (`local`, `processes`, `ray_engine`), and each shard's answers take their place at once
(`output`). The types here are what these parts tell each other.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rpbert.config.run import Backend, Precision
    from rpbert.errors import InputError

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
        model: the folder of the model.
        digest: SHA-256 of its manifest, which lists the SHA-256 of all its files.
        format: of the output.
        precision: of the heavy parts of the model.
        batch_size: posts that go through the model together.
        lenient: whether a faulty row is set aside; else it stops the run.
        captioner: makes the captions of images that come without, if any does.
        ocr: whether text is looked for in images.
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
        """What of it changes answers or how they are written."""
        kept = ["format", "precision", "batch_size"]
        kept += [name for name in ("captioner", "ocr") if getattr(self, name)]
        kept += ["backend"] if self.backend != "torch" else []
        return {name: getattr(self, name) for name in kept}


@dataclass(frozen=True, slots=True)
class Step:
    """Some more posts of a shard are tagged.

    Attributes:
        shard: number of the shard in the run.
        posts: how many more.
        share: of the shard's posts that are tagged by now, in [0, 1], about.
    """

    shard: int
    posts: int
    share: float


@dataclass(frozen=True, slots=True)
class Tally:
    """What a shard came to.

    Attributes:
        rows: predictions.
        errors: posts that failed.
        images: how many posts have which image status.
        broken: why the input could not be read to its end; empty if it could.
    """

    rows: int
    errors: int
    images: dict[str, int]
    broken: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """A shard is finished: its files are in their place."""

    shard: int
    tally: Tally


@dataclass(frozen=True, slots=True)
class Lost:
    """A shard was given up, and nothing of it is written."""

    shard: int
    reason: str


Event: TypeAlias = Step | Done | Lost


class FaultSink(Protocol):
    """Takes what is at fault with an input while it is read."""

    @property
    def broken(self) -> object:
        """Whether `break_off` was called."""
        ...

    def fault(self, fault: InputError) -> None:
        """A row that gives no post."""
        ...

    def break_off(self, fault: InputError) -> None:
        """The input ends before its end."""
        ...


class Engine(Protocol):
    """Tags shards, here or elsewhere, one or several at a time."""

    def run(self, job: Job, shards: Sequence[Shard]) -> Iterator[Event]:
        """Tag every shard; of each a `Done` or a `Lost` comes at last.

        Raises:
            InputError: the run cannot go on, as with a full disk.
        """
        ...


@dataclass
class Summary:
    """What a run came to, over the shards finished now and before.

    Attributes:
        shards: finished now.
        skipped: finished before.
        rows: predictions, of both.
        errors: posts that failed, of both.
        images: how many posts have which image status.
        broken: shards that break off, with the reason.
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
