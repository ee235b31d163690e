"""Shards tagged in this process, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rpbert.backends.fast_words import forget_words
from rpbert.batch import Done, Event, FaultSink, Job, Shard, Step
from rpbert.batch.finished import Source, check_model, record
from rpbert.batch.output import Output, opened
from rpbert.data.readers import read_shard
from rpbert.data.words import WordSplitter
from rpbert.errors import InputError, reason_of, refuse
from rpbert.inference import Tagger
from rpbert.types import Post


@dataclass(frozen=True)
class InProcess:
    """The engine of one process.

    Attributes:
        device: where the model runs; None takes the GPU where there is one.
    """

    device: str | None = None

    def run(self, job: Job, shards: Sequence[Shard]) -> Iterator[Event]:
        """Tag the shards in their order."""
        tagger = loaded(job, self.device)
        for number, shard in enumerate(shards):
            yield from tagger.tag(number, shard)


class ShardTagger:
    """Tags whole shards with one model."""

    step = 64
    """Posts from one `Step` to the next."""

    def __init__(self, tagger: Tagger, job: Job) -> None:
        self.tagger, self.job = tagger, job

    def tag(self, number: int, shard: Shard) -> Iterator[Step | Done]:
        """Tag a shard and put its files in their place.

        Raises:
            InputError: a row is at fault and the job not lenient, or the output cannot be written.
        """
        source = source_of(shard, self.job)
        with opened(shard, self.job.format) as output:
            for count in self.tag_into(output, shard):
                if count % self.step == 0:
                    done = output.rows + output.errors
                    yield Step(number, self.step, min(done / max(source.rows, done), 1.0))
            check_unchanged(shard, self.job, source, output)
        record(shard, self.job, source, output.tally)
        yield Done(number, output.tally)

    def tag_into(self, output: Output, shard: Shard) -> Iterator[int]:
        """Tag a shard into an open output; yields the number of predictions after each.

        Raises:
            InputError: a row is at fault and the job not lenient.
        """
        posts = read_posts(shard, self.job, self.tagger.splitter, output)
        predictions = self.tagger.predict_stream(posts, self.job.batch_size)
        for count, prediction in enumerate(predictions, start=1):
            output.add(prediction)
            yield count


def loaded(job: Job, device: str | None) -> ShardTagger:
    """The model of a job, ready to tag.

    Raises:
        InputError: it is not whole, or no longer the one the job began with.
    """
    tagger = Tagger.from_pretrained(
        job.model, device, job.precision, job.captioner, job.ocr, job.backend
    )
    check_model(job)
    # What a process tagged before must not show in a shard: its bytes are the same from any.
    forget_words(tagger.decoder.system)
    return ShardTagger(tagger, job)


def source_of(shard: Shard, job: Job) -> Source:
    """The input as it is before it is read; of one that cannot be read, nothing."""
    try:
        return Source.of(shard.source)
    except OSError as error:
        if not job.lenient:
            raise _unreadable(shard, error) from error
        return Source(0, 0, "", 0)


def read_posts(shard: Shard, job: Job, splitter: WordSplitter, output: FaultSink) -> Iterator[Post]:
    """The posts of a shard; in a lenient job, what is at fault goes to `output` instead.

    Raises:
        InputError: a row is at fault, or the input breaks off, and the job is not lenient.
    """
    try:
        yield from read_shard(shard.source, splitter, output.fault if job.lenient else refuse)
    except (InputError, OSError) as error:
        fault = error if isinstance(error, InputError) else _unreadable(shard, error)
        if not job.lenient:
            raise fault from error
        output.break_off(fault)


def check_unchanged(shard: Shard, job: Job, source: Source, output: FaultSink) -> None:
    """Take an input that was written to meanwhile for one that breaks off.

    Raises:
        InputError: it was, and the job is not lenient.
    """
    if output.broken or source.is_still(shard.source):
        return
    found, expected = "another file than when its reading began", "one that nobody writes to"
    fault = InputError(shard.source, found, expected)
    if not job.lenient:
        raise fault
    output.break_off(fault)


def _unreadable(shard: Shard, error: OSError) -> InputError:
    found = f"no readable file ({reason_of(error)})"
    return InputError(shard.source, found, "a file of posts")
