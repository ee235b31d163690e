"""What a run shows and keeps while it trains: bars, metrics.jsonl, TensorBoard."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

from rpbert.config.run import TrainingSettings
from rpbert.errors import InputError
from rpbert.storage.writing import cannot_write, written_whole

Advance = Callable[[str, float, int], None]
"""Called after a step with the task, its loss and how many posts it took."""


METRICS = "metrics.jsonl"


class Reporter:
    """Tells a person how the run goes, and writes a line per evaluation to RUN/metrics.jsonl.

    Args:
        run: the folder of the run.
        shown: False in all but one of several processes, which then say and write nothing.
    """

    def __init__(self, run: Path, settings: TrainingSettings, *, shown: bool = True) -> None:
        self.metrics = run / METRICS
        self.shown = shown
        self.console = Console(file=sys.stderr, highlight=False, quiet=not shown)
        self.epochs = settings.epochs
        wanted = settings.tensorboard and shown
        self._events = _tensorboard(run / "tensorboard") if wanted else None

    def resume(self, finished: int, steps: int) -> None:
        """Drop what was said of epochs that are trained again; `steps` of the next are done."""
        if self.shown and self.metrics.exists():
            lines = self.metrics.read_text("utf-8").splitlines(keepends=True)
            if lines and not lines[-1].endswith("\n"):  # the run was stopped while it wrote
                lines.pop()
            kept = [
                line
                for n, line in enumerate(lines, 1)
                if _record(self.metrics, n, line)["epoch"] <= finished
            ]
            with written_whole(self.metrics) as file:
                file.writelines(kept)
        within = f" and {steps:,} steps of the next" if steps else ""
        self.note(f"resuming after epoch {finished}{within}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._events is not None:
            self._events.close()

    def note(self, line: str) -> None:
        """Say one line."""
        self.console.print(line, markup=False, soft_wrap=True)

    @contextmanager
    def epoch(self, number: int, done: int, steps: int, best: float) -> Iterator[Advance]:
        """A bar over the steps of an epoch with loss, best F1 so far, posts/s and time left.

        Args:
            number: of the epoch, from 1.
            done: steps that were taken before the run was resumed.
            steps: all of the epoch.
        """
        columns = (
            TextColumn("epoch {task.fields[number]}/{task.fields[epochs]} {task.description:8}"),
            BarColumn(bar_width=24),
            TextColumn("loss {task.fields[loss]:6.3f} · best F1 {task.fields[best]}"),
            TextColumn("· {task.fields[speed]:5.1f} posts/s ·"),
            TimeRemainingColumn(compact=True),
        )
        shown = f"{100 * best:.1f}" if best >= 0 else "-"
        with bar(self.console, *columns) as progress:
            line = progress.add_task(
                "",
                total=steps,
                completed=done,
                number=number,
                epochs=self.epochs,
                loss=0.0,
                best=shown,
                speed=0.0,
            )
            started, posts = time.monotonic(), 0

            def advance(task: str, loss: float, count: int) -> None:
                nonlocal posts
                posts += count
                speed = posts / max(time.monotonic() - started, 1e-9)
                progress.update(line, advance=1, description=task, loss=loss, speed=speed)

            yield advance

    def evaluated(self, record: dict[str, Any]) -> None:
        """Keep and show what an epoch came to."""
        if not self.shown:
            return
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            hint = "free some space or repair the disk, then give --resume"
            raise cannot_write(self.metrics, error, hint) from error
        losses = " ".join(f"{name} {loss:.3f}" for name, loss in record["loss"].items())
        line = f"epoch {record['epoch']}/{self.epochs}: loss {losses}"
        tags, relation = record["dev"], record["dev_relation"]
        if tags is not None:
            line += f" · dev F1 {100 * tags['strict']['f1']:.2f}"
        if relation is not None:
            line += f" · relation accuracy {100 * relation['accuracy']:.1f}"
            if tags is None:
                line += f", macro F1 {100 * relation['macro_f1']:.2f}"
        self.note(line + (" · best" if record["best"] else "") + f" · {record['seconds']:.0f} s")
        if self._events is not None:
            for name, loss in record["loss"].items():
                self._events.add_scalar(f"loss/{name}", loss, record["epoch"])
            if tags is not None:
                self._events.add_scalar("dev/f1", tags["strict"]["f1"], record["epoch"])
            if relation is not None:
                self._events.add_scalar(
                    "dev/relation_macro_f1", relation["macro_f1"], record["epoch"]
                )


@contextmanager
def bar(console: Console, *columns: ProgressColumn) -> Iterator[Progress]:
    """A bar while something goes on; only in a terminal, for rich leaves blank lines in a log."""
    shown = Progress(*columns, console=console, transient=True)
    with shown if console.is_terminal else nullcontext():
        yield shown


def record_of(metrics: Path, epoch: int) -> dict[str, Any]:
    """What was recorded of an epoch.

    Raises:
        InputError: a line is damaged, or there is none of that epoch.
    """
    lines = metrics.read_text("utf-8").splitlines() if metrics.is_file() else []
    for number, line in enumerate(lines, 1):
        record = _record(metrics, number, line)
        if record["epoch"] == epoch:
            return record
    raise InputError(metrics, f"no record of epoch {epoch}", "a line an epoch", "train anew")


def _record(metrics: Path, number: int, line: str) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(line)
        record["epoch"] = int(record["epoch"])
    except (ValueError, LookupError, TypeError):
        hint = "take the line out to resume"
        where = f"{metrics}:{number}"
        raise InputError(where, line.strip()[:80], "the record of an epoch", hint) from None
    return record


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError:
        raise InputError(
            "training.tensorboard", "no tensorboard", "the extra", "pip install 'rpbert[track]'"
        ) from None
    return SummaryWriter(str(folder))
