"""A run over shards: what is finished stays, the rest goes to an engine, and all is added up."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rpbert.batch import Done, Engine, Event, Job, Lost, Shard, Step, Summary
from rpbert.batch.finished import check
from rpbert.batch.output import clear
from rpbert.errors import InputError
from rpbert.storage.writing import cannot_write


def set_aside(job: Job, shards: Sequence[Shard], *, resume: bool) -> tuple[Summary, list[Shard]]:
    """What earlier runs came to, and the shards that are still to be tagged.

    Args:
        resume: leave the shards that are finished as they are; else there must be none.

    Raises:
        InputError: the output holds earlier files, what is finished has changed since, or the
            output cannot be written.
    """
    _prepare(shards, resume)
    summary = Summary()
    waiting = []
    for shard in shards:
        finished = check(shard, job) if resume else None
        if finished is None:
            waiting.append(shard)
        else:
            summary.skipped += 1
            summary.add(shard, finished)
    clear(waiting)
    return summary, waiting


def tag(
    job: Job,
    shards: Sequence[Shard],
    engine: Engine,
    summary: Summary,
    tell: Callable[[Shard, Event], None] = lambda shard, event: None,
) -> Summary:
    """Tag shards, each to its own files, and add to `summary` what it came to.

    Args:
        tell: called with each event and the shard it is of.

    Raises:
        InputError: a row is at fault and the job not lenient, or the output cannot be written.
    """
    silent = dict.fromkeys(range(len(shards)))
    for event in engine.run(job, shards) if shards else ():
        shard = shards[event.shard]
        if not isinstance(event, Step):
            silent.pop(event.shard)
        if isinstance(event, Done):
            summary.shards += 1
            summary.add(shard, event.tally)
        elif isinstance(event, Lost):
            summary.lost[shard.source.name] = event.reason
        tell(shard, event)
    for number in silent:  # an engine that promises more than it keeps must not pass for done
        summary.lost[shards[number].source.name] = "the engine ended without a word of it"
    return summary


def _prepare(shards: Sequence[Shard], resume: bool) -> None:
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
