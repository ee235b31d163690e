"""Dynamic batching: posts of many clients go through the model together, in one thread.

While the model works on a batch, the next one gathers. A batch takes the post that has waited
longest and, of the others, those whose length is nearest to it, as long as the padded whole stays
small: then none waits for ever, little is computed on padding, and memory has a bound whatever
the posts are.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rpbert.errors import InputError
from rpbert.service.deadline import Deadline
from rpbert.service.failures import busy, internal, invalid
from rpbert.types import Post

PADDED_WORDS = 8192
"""Most words of a batch, padding included, where it has more than one post."""
PADDED_CHARACTERS = 2_000_000
"""Likewise of the characters of its words, each padded to the longest."""

log = logging.getLogger("rpbert.service")


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """What the model does with posts, and how many it takes at once.

    Attributes:
        run: maps posts to as many answers, in their order.
        size: most posts of a call.
    """

    name: str
    run: Callable[[Sequence[Post]], Sequence[Any]]
    size: int


class Observer(Protocol):
    """Is told what happens; called from the model's thread."""

    def batch(self, work: str, posts: int, seconds: float) -> None:
        """A batch went through the model."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """A post that waits for the model."""

    work: Work
    post: Post
    answer: asyncio.Future[Any]
    deadline: float
    since: float = field(default_factory=time.monotonic)
    words: int = 0
    longest: int = 0

    def __post_init__(self) -> None:
        self.words = max(1, len(self.post.words))
        self.longest = max(map(len, self.post.words), default=1)


class Batcher:
    """A bounded queue of posts, and the one thread that has the model.

    Args:
        wait: seconds that a post waits for others to join it, while the model is free.
        queue: most posts that wait.
        observer: is told of each batch.
    """

    def __init__(self, wait: float, queue: int, observer: Observer) -> None:
        self.wait = wait
        self.queue = queue
        self.observer = observer
        self._waiting: list[_Waiting] = []
        self._changed = threading.Condition()
        self._closed = False
        self._pace = 0.01  # seconds a post takes, a running mean
        self._thread = threading.Thread(target=self._serve, name="model", daemon=True)

    def start(self) -> None:
        """Start the model's thread."""
        self._thread.start()

    def close(self) -> None:
        """Finish what waits, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether the model's thread runs."""
        return self._thread.is_alive()

    def __len__(self) -> int:
        """How many posts wait."""
        return len(self._waiting)

    def check(self, posts: int = 1) -> None:
        """Whether so many more posts may wait.

        Raises:
            Failure: they may not; it tells when there should be room.
        """
        if len(self._waiting) + posts > self.queue:
            seconds = max(1, math.ceil(self._pace * len(self._waiting)))
            raise busy(f"{len(self._waiting)} posts wait", seconds)

    def submit(
        self, work: Work, posts: Sequence[Post], deadline: float
    ) -> list[asyncio.Future[Any]]:
        """Queue posts, all or none; called in the event loop.

        Args:
            deadline: time.monotonic() after which nobody wants the answers.

        Returns:
            The answer of each post, or its `Failure` as a value.

        Raises:
            Failure: too many posts wait.
        """
        loop = asyncio.get_running_loop()
        new = [_Waiting(work, post, loop.create_future(), deadline) for post in posts]
        with self._changed:
            self.check(len(new))
            self._waiting += new
            self._changed.notify()
        return [one.answer for one in new]

    async def answers(self, work: Work, posts: Sequence[Post], deadline: Deadline) -> list[Any]:
        """Queue posts and wait for their answers, each the result of `work` or a `Failure`.

        Raises:
            Failure: too many posts wait, or the deadline passed.
        """
        futures = self.submit(work, posts, deadline.until)
        try:
            async with deadline.kept():
                return [await future for future in futures]
        finally:
            for future in futures:  # of a client that is gone or came too late: nothing to do
                future.cancel()

    def _serve(self) -> None:
        while batch := self._next_batch():
            started = time.monotonic()
            answers = _answered(batch)
            seconds = time.monotonic() - started
            self._pace += (seconds / len(batch) - self._pace) * 0.1
            self.observer.batch(batch[0].work.name, len(batch), seconds)
            loop = batch[0].answer.get_loop()
            loop.call_soon_threadsafe(_deliver, batch, answers)

    def _next_batch(self) -> list[_Waiting]:
        """The posts to run next, once there are enough or one has waited; empty at the end."""
        with self._changed:
            while True:
                now = time.monotonic()
                self._waiting = [w for w in self._waiting if _wanted(w, now)]
                if self._waiting:
                    first = self._waiting[0]
                    left = first.since + self.wait - now
                    if left <= 0 or self._closed or len(self._waiting) >= first.work.size:
                        return self._pick(first)
                    self._changed.wait(left)
                elif self._closed:
                    return []
                else:
                    self._changed.wait()

    def _pick(self, first: _Waiting) -> list[_Waiting]:
        """The post that waited longest with those that are most like it."""
        others = [w for w in self._waiting[1:] if w.work is first.work]
        others.sort(key=lambda w: abs(w.words - first.words))
        batch = [first]
        widest, words, longest = first.words, first.words, first.longest
        for one in others[: first.work.size - 1]:
            widest, words = max(widest, one.words), words + one.words
            longest = max(longest, one.longest)
            if (len(batch) + 1) * widest > PADDED_WORDS or words * longest > PADDED_CHARACTERS:
                break
            batch.append(one)
        taken = set(map(id, batch))
        self._waiting = [w for w in self._waiting if id(w) not in taken]
        return batch


def _wanted(waiting: _Waiting, now: float) -> bool:
    return now < waiting.deadline and not waiting.answer.cancelled()


def _answered(batch: Sequence[_Waiting]) -> list[Any]:
    """The answers of a batch; where it fails, each post alone, so that one harms no other."""
    work = batch[0].work
    try:
        answers = list(work.run([waiting.post for waiting in batch]))
        if len(answers) != len(batch):
            raise RuntimeError(f"{len(answers)} answers to {len(batch)} posts")
        return answers
    except InputError as error:
        if len(batch) == 1:
            return [invalid(f"{error.where}: found {error.found}; expected {error.expected}")]
    except Exception:
        log.exception("%s of %d posts failed", work.name, len(batch))
        if len(batch) == 1:
            return [internal()]
    return [_answered([waiting])[0] for waiting in batch]


def _deliver(batch: Sequence[_Waiting], answers: Sequence[Any]) -> None:
    for waiting, answer in zip(batch, answers, strict=True):
        if not waiting.answer.done():
            waiting.answer.set_result(answer)
