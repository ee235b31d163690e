"""Progress of a run over shards: a bar in a terminal, a line a shard in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from rpbert.batch import Event, Shard
from rpbert.errors import counted, printable


@contextmanager
def watched(shards: Sequence[Shard]) -> Iterator[Callable[[Shard, Event], None]]:
    """Show posts per second, and the time left by the bytes of the inputs; takes each event."""
    console = Console(file=sys.stderr, highlight=False)
    terminal = console.is_terminal
    sizes = {shard: _size(shard) for shard in shards}
    total, started = max(sum(sizes.values()), 1), time.monotonic()
    posts, finished, done = 0, 0, 0.0
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24))
    with Progress(*columns, console=console, transient=True, disable=not terminal) as bar:
        task = bar.add_task("", total=total)

        def tell(shard: Shard, event: Event) -> None:
            nonlocal posts, finished, done
            posts += event.posts
            finished += event.tally is not None
            done += sizes[shard] * event.share
            elapsed = max(time.monotonic() - started, 1e-9)
            left = _clock(elapsed * max(total / done - 1, 0)) if done else "?"
            pace = f"{counted(posts, 'post')} · {posts / elapsed:,.1f} posts/s · {left} left"
            line, important = _line(event)
            if important or (line and not terminal):
                text = printable(f"{shard.source.name}: {line}")
                console.print(
                    text if terminal else f"{text} · {pace}", markup=False, soft_wrap=True
                )
            shown = f"shards {finished}/{len(shards)} · {pace}"
            bar.update(task, completed=done, description=shown)

        yield tell


def _line(event: Event) -> tuple[str, bool]:
    """What a log says of an event, and whether a terminal shows it too."""
    if event.lost:
        return f"given up, {event.lost}", True
    if event.tally is None:
        return "", False
    tally = event.tally
    failed = f", {tally.errors:,} failed" if tally.errors else ""
    broken = f"; {tally.broken}" if tally.broken else ""
    return counted(tally.rows, "post") + failed + broken, bool(failed or broken)


def _size(shard: Shard) -> int:
    try:
        return shard.source.stat().st_size
    except OSError:  # the reader says why
        return 0


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
