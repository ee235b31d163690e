"""A run over shards: finished ones stay, an engine tags the others, all are counted and watched."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from rpbert.batch import Engine, Event, Job, Shard, Summary
from rpbert.batch.output import Output, opened
from rpbert.batch.plan import check, digest_of, entry_if_any, record
from rpbert.data.readers import read_shard
from rpbert.errors import InputError, counted, printable, reason_of, refuse
from rpbert.inference import Tagger
from rpbert.storage.writing import cannot_write
from rpbert.types import Post, Prediction

STEP = 64  # posts from one `Event` to the next


def set_aside(job: Job, shards: Sequence[Shard], *, resume: bool) -> tuple[Summary, list[Shard]]:
    """The counts of finished shards, of which there are none without `resume`, and the others.
    Raises InputError: earlier or changed files, or an output that cannot be written."""
    for shard in shards:
        for path in (shard.output, shard.side):
            if path.exists() and not resume:
                hint = "give --resume to go on or another --output"
                raise InputError(path, "an earlier output", "a new folder", hint)
    for folder in {shard.output.parent for shard in shards}:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise InputError(folder, "a file", "a folder for the output") from None
        except OSError as error:
            raise cannot_write(folder, error) from error
    summary, waiting = Summary(), []
    for shard in shards:
        finished = check(shard, job) if resume else None
        if finished is None:
            waiting.append(shard)
        else:
            summary.skipped += 1
            summary.add(shard, finished)
    return summary, waiting


def tag(
    job: Job,
    shards: Sequence[Shard],
    engine: Engine,
    summary: Summary,
    tell: Callable[[Shard, Event], None] = lambda shard, event: None,
) -> Summary:
    """Tag shards, each to its own files, and add their counts to `summary`."""
    for event in engine(job, shards) if shards else ():
        shard = shards[event.shard]
        if event.tally is not None:
            summary.shards += 1
            summary.add(shard, event.tally)
        if event.lost:
            summary.lost[shard.source.name] = event.lost
        tell(shard, event)
    return summary


def tag_locally(job: Job, shards: Sequence[Shard], device: str | None = None) -> Iterator[Event]:
    """The engine of this process: one model, one shard after the other."""
    tagger = loaded(job, device)
    for number, shard in enumerate(shards):
        yield from tag_shard(tagger, job, number, shard)


def loaded(job: Job, device: str | None) -> Tagger:
    """The model of a job, if it is still the one the job began with."""
    tagger = Tagger.from_pretrained(job.model, device, job.precision, job.backend)
    if digest_of(job.model) != job.digest:
        found, expected = "another model than when the run began", "one that nobody writes to"
        raise InputError(job.model, found, expected, "copy it elsewhere, as from a run in training")
    return tagger


def tag_shard(tagger: Tagger, job: Job, number: int, shard: Shard) -> Iterator[Event]:
    """Tag a shard and put its files in place; every engine runs this function.
    Raises InputError: a row is at fault and the job not lenient, or the disk refuses."""
    source = entry_if_any(shard.source)
    with opened(shard, job.format) as output:
        tally = output.tally
        for count in tag_into(tagger, job, shard, output):
            if count % STEP == 0:
                yield Event(number, STEP)
        if not tally.broken and entry_if_any(shard.source) != source:
            found, expected = "another file than when its reading began", "one that stays as it is"
            _break_off(InputError(shard.source, found, expected), job, shard, output)
    record(shard, job, source, tally)
    yield Event(number, tally.rows % STEP, tally)


def tag_into(
    tagger: Tagger,
    job: Job,
    shard: Shard,
    output: Output,
    look: Callable[[Prediction], object] = lambda prediction: None,
) -> Iterator[int]:
    """Tag a shard into an open output; yields the number of predictions after each, and shows
    `look` each one whole."""
    posts = _posts(tagger, job, shard, output)
    for count, prediction in enumerate(tagger.predict_stream(posts, job.batch_size), start=1):
        look(prediction)
        output.add(prediction.above(job.threshold))
        yield count


def _posts(tagger: Tagger, job: Job, shard: Shard, output: Output) -> Iterator[Post]:
    faults = output.fault if job.lenient else refuse
    try:
        yield from read_shard(shard.source, tagger.splitter, faults)
    except InputError as error:
        _break_off(error, job, shard, output)
    except OSError as error:
        found = f"no readable file ({reason_of(error)})"
        _break_off(InputError(shard.source, found, "a file of posts"), job, shard, output)


def _break_off(fault: InputError, job: Job, shard: Shard, output: Output) -> None:
    """The shard ends here; a strict run as well, or one whose file of faults cannot be written."""
    if not job.lenient or fault.where == shard.errors:
        raise fault
    output.break_off(fault)


@contextmanager
def watched(shards: Sequence[Shard]) -> Iterator[Callable[[Shard, Event], None]]:
    """Show posts per second and, from the first finished shard on, the time left by the bytes of
    the inputs; takes each event."""
    console = Console(file=sys.stderr, highlight=False)
    sizes = {shard: shard.source.stat().st_size for shard in shards if shard.source.exists()}
    total, started = max(sum(sizes.values()), 1), time.monotonic()
    posts = finished = done = 0
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24))
    terminal = console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=not terminal) as bar:
        task = bar.add_task("", total=total)

        def tell(shard: Shard, event: Event) -> None:
            nonlocal posts, finished, done
            posts += event.posts
            line, important = _line(event)
            if line:
                finished += 1
                done += sizes.get(shard, 0)
            elapsed = max(time.monotonic() - started, 1e-9)
            left = timedelta(seconds=int(elapsed * (total / done - 1))) if done else "?"
            pace = f"{counted(posts, 'post')} · {posts / elapsed:,.1f} posts/s · {left} left"
            if important or (line and not terminal):
                text = printable(f"{shard.source.name}: {line}")
                text += "" if terminal else f" · {pace}"
                console.print(text, markup=False, soft_wrap=True)
            shown = f"shards {finished}/{len(shards)} · {pace}"
            bar.update(task, completed=done, description=shown)

        yield tell


def _line(event: Event) -> tuple[str, bool]:
    """What a log says of a shard that is done, and whether a terminal shows it too."""
    if event.lost:
        return f"given up, {event.lost}", True
    if event.tally is None:
        return "", False
    tally = event.tally
    failed = f", {tally.errors:,} failed" if tally.errors else ""
    broken = f"; {tally.broken}" if tally.broken else ""
    return counted(tally.rows, "post") + failed + broken, bool(failed or broken)
