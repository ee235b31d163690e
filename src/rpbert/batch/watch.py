"""What a run over shards shows meanwhile: a bar in a terminal, a line a shard in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from rpbert.batch import Done, Event, Lost, Shard, Step
from rpbert.errors import counted, printable


class Watch:
    """Shows posts per second and the time left.

    How far a run is, is told by bytes: how many posts a shard holds is not known beforehand.
    """

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.console = Console(file=sys.stderr, highlight=False)
        self._sizes = {shard: max(_size(shard), 1) for shard in shards}
        self._total = max(sum(self._sizes.values()), 1)
        self._shares: dict[Shard, float] = {}  # of the shards that are begun
        self._steps: dict[Shard, int] = {}  # posts of them that were told
        self._finished = self._posts = 0
        self._bytes = 0.0
        self._started = time.monotonic()
        self._count = len(shards)
        columns = (
            TextColumn("{task.fields[shards]}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[pace]}"),
        )
        self._bar = Progress(*columns, console=self.console, transient=True)
        self._line = self._bar.add_task("", total=1.0, shards="", pace="")

    def __enter__(self) -> Self:
        if self.console.is_terminal:  # in a log rich would leave a blank line
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.console.is_terminal:
            self._bar.stop()

    def tell(self, shard: Shard, event: Event) -> None:
        """Take an event in."""
        match event:
            case Step(posts=posts, share=share):
                self._posts += posts
                self._steps[shard] = self._steps.get(shard, 0) + posts
                self._reached(shard, share)
            case Done(tally=tally):
                self._posts += tally.rows - self._steps.get(shard, 0)
                self._reached(shard, 1.0)
                self._finished += 1
                failed = f", {tally.errors:,} failed" if tally.errors else ""
                broken = f"; {tally.broken}" if tally.broken else ""
                line = f"{shard.source.name}: {counted(tally.rows, 'post')}{failed}{broken}"
                self._say(line, important=bool(failed or broken))
            case Lost(reason=reason):
                self._reached(shard, 1.0)
                self._say(f"{shard.source.name}: given up, {reason}", important=True)
        shards = f"shards {self._finished}/{self._count}"
        self._bar.update(
            self._line, completed=self._bytes / self._total, shards=shards, pace=self._pace()
        )

    def _say(self, line: str, *, important: bool) -> None:
        if important or not self.console.is_terminal:
            pace = "" if self.console.is_terminal else f" · {self._pace()}"
            self.console.print(printable(line) + pace, markup=False, soft_wrap=True)

    def _reached(self, shard: Shard, share: float) -> None:
        self._bytes += self._sizes[shard] * (share - self._shares.get(shard, 0.0))
        self._shares[shard] = share

    def _pace(self) -> str:
        elapsed = max(time.monotonic() - self._started, 1e-9)
        share = self._bytes / self._total
        left = f" · {_clock(elapsed * (1 - share) / share)} left" if share > 0 else ""
        return f"{counted(self._posts, 'post')} · {self._posts / elapsed:,.1f} posts/s{left}"


def _size(shard: Shard) -> int:
    try:
        return shard.source.stat().st_size
    except OSError:  # whoever reads it says why
        return 0


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
