"""What a run shows, keeps and tells others of while it trains: bars, metrics.jsonl, trackers."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

from rpbert.errors import InputError, counted
from rpbert.storage.writing import cannot_write, written_whole
from rpbert.types import image_counts

Advance = Callable[[str, float, int], None]
"""Called after a step with the task, its loss and its number of posts."""

ESTIMATE_AFTER = 20  # steps of a run tell how long it takes


@dataclass(frozen=True)
class TrainingResult:
    """The best epoch by the development F1 (`rpbert.training.trainer.f1_of`) and its model."""

    model: Path
    epoch: int
    f1: float
    seconds: float


class Callback:
    """Is told of a run as it goes, in the main process; does nothing by itself."""

    def on_step(self, epoch: int, step: int, task: str, loss: float) -> None:
        """After each step of an epoch, both from 1, with the mean loss of its batch."""

    def on_epoch(self, record: Mapping[str, Any]) -> bool | None:
        """After each epoch, with its line of RUN/metrics.jsonl. True ends the run with this epoch;
        ``--resume`` goes on from there."""

    def on_end(self, result: TrainingResult) -> None:
        """When the best model lies in RUN/model, calibrated."""


class Reporter:
    """Shows how a run goes, and writes a line per evaluation to RUN/metrics.jsonl.
    Of several processes the main one alone shows and writes."""

    def __init__(self, run: Path, epochs: int, accelerator: Accelerator) -> None:
        self.metrics, self.epochs, self.accelerator = run / "metrics.jsonl", epochs, accelerator
        self.callbacks: Sequence[Callback] = ()
        self.ended = False  # whether one of them ends the run
        self._estimated = False  # whether the time of the run was shown
        quiet = not accelerator.is_main_process
        self.console = Console(file=sys.stderr, highlight=False, quiet=quiet)

    def note(self, line: str) -> None:
        """Show one line."""
        self.console.print(line, markup=False, soft_wrap=True)

    def resume(self, finished: int, steps: int) -> None:
        """Drop the records of epochs that are trained again; `steps` of the next are done."""
        if self.accelerator.is_main_process and self.metrics.exists():
            kept = [record for record in self._records() if record["epoch"] <= finished]
            with written_whole(self.metrics) as file:
                file.writelines(json.dumps(record) + "\n" for record in kept)
        within = f" and {steps:,} steps of the next" if steps else ""
        self.note(f"resuming after epoch {finished}{within}")

    def record_of(self, epoch: int) -> dict[str, Any]:
        """The record of an epoch; an `InputError` where there is none or a line is damaged."""
        for record in self._records():
            if record["epoch"] == epoch:
                return record
        found, expected = f"no record of epoch {epoch}", "a line an epoch"
        raise InputError(self.metrics, found, expected, "train anew")

    def _records(self) -> list[dict[str, Any]]:
        """Every whole line; the last one may be cut, where the run was stopped while it wrote."""
        text = self.metrics.read_text("utf-8") if self.metrics.is_file() else ""
        records = []
        for number, line in enumerate(text.split("\n")[:-1], 1):
            try:
                record = json.loads(line)
                records.append({**record, "epoch": int(record["epoch"])})
            except (ValueError, LookupError, TypeError):
                where, hint = f"{self.metrics}:{number}", "take the line out to resume"
                expected = "the record of an epoch"
                raise InputError(where, line.strip()[:80], expected, hint) from None
        return records

    @contextmanager
    def epoch(self, number: int, done: int, steps: int, best: float) -> Iterator[Advance]:
        """A bar over an epoch's steps, `done` of them before, with loss, posts/s and time left."""
        best_f1 = f"{100 * best:.1f}" if best >= 0 else "-"
        columns = (
            TextColumn(f"epoch {number}/{self.epochs} {{task.description:8}}"),
            BarColumn(bar_width=24),
            TextColumn(f"loss {{task.fields[loss]:6.3f}} · best F1 {best_f1}"),
            TextColumn("· {task.fields[speed]:5.1f} posts/s ·"),
            TimeRemainingColumn(compact=True),
        )
        with bar(self.console, *columns) as progress:
            line = progress.add_task("", total=steps, completed=done, loss=0.0, speed=0.0)
            started, posts, step = time.monotonic(), 0, done

            def advance(task: str, loss: float, count: int) -> None:
                nonlocal posts, step
                posts, step = posts + count, step + 1
                spent = time.monotonic() - started
                speed = posts / max(spent, 1e-9)
                if step - done == min(ESTIMATE_AFTER, steps - done) and not self._estimated:
                    self._estimated = True
                    self.note(estimate(self.epochs - number + 1, spent / (step - done) * steps))
                progress.update(line, advance=1, description=task, loss=loss, speed=speed)
                for callback in self.callbacks if self.accelerator.is_main_process else ():
                    callback.on_step(number, step, task, loss)

            yield advance

    def evidence(self, images: dict[str, dict[str, int]]) -> None:
        """Show how many posts of each task have each image status."""
        for task, seen in images.items():
            self.note(f"evidence of {task}: {image_counts(seen)}")

    def evaluated(self, record: dict[str, Any]) -> None:
        """Keep, show and pass on the record of an epoch."""
        ends = []
        if self.accelerator.is_main_process:
            self._keep(record)
            ends = [callback.on_epoch(record) for callback in self.callbacks]
        self.ended = any(gather_object(ends))  # the same in all processes

    def _keep(self, record: dict[str, Any]) -> None:
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record, allow_nan=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            hint = "free some space or repair the disk, then give --resume"
            raise cannot_write(self.metrics, error, hint) from error
        scalars = {f"loss/{name}": loss for name, loss in record["loss"].items()}
        losses = " ".join(f"{name} {loss:.3f}" for name, loss in record["loss"].items())
        line = f"epoch {record['epoch']}/{self.epochs}: loss {losses}"
        tags, relation = record["dev"], record["dev_relation"]
        if tags is not None:
            scalars["dev/f1"] = tags["strict"]["f1"]
            line += f" · dev F1 {100 * tags['strict']['f1']:.2f}"
        if relation is not None:
            scalars["dev/relation_macro_f1"] = relation["macro_f1"]
            line += f" · relation accuracy {100 * relation['accuracy']:.1f}"
            if tags is None:
                line += f", macro F1 {100 * relation['macro_f1']:.2f}"
        self.note(line + (" · best" if record["best"] else "") + f" · {record['seconds']:.0f} s")
        self.accelerator.log(scalars, step=record["epoch"])


def estimate(epochs: int, seconds: float) -> str:
    """How long so many epochs take, without their scoring, in words."""
    minutes = epochs * seconds / 60
    return f"about {minutes:.1f} min for {counted(epochs, 'epoch')} ({seconds:.0f} s each)"


@contextmanager
def bar(console: Console, *columns: ProgressColumn) -> Iterator[Progress]:
    """A progress bar in a terminal; elsewhere none, for rich leaves blank lines in a log."""
    shown = Progress(*columns, console=console, transient=True)
    with shown if console.is_terminal else nullcontext():
        yield shown
