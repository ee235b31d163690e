"""Dynamic batching: posts of many clients go through the model together, in one thread.
While the model works on a batch, the next one gathers. A batch takes the post that has waited
longest and, of the others, those nearest to it in length, as long as the padded whole stays small:
none waits for ever, little is computed on padding, and memory has a bound."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rpbert.errors import InputError
from rpbert.service.limits import busy, internal, invalid
from rpbert.types import Post

PADDED_WORDS = 8192  # most of a batch with its padding, where it has more than one post
PADDED_CHARACTERS = 2_000_000  # likewise, each word padded to the longest

log = logging.getLogger("rpbert.service")


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """What the model does with posts: `run` maps at most `size` of them to as many answers."""

    name: str
    run: Callable[[Sequence[Post]], Sequence[Any]]
    size: int


@dataclass(slots=True, eq=False)
class _Waiting:
    """A post that waits for the model; its answer is cancelled where nobody wants it any more."""

    work: Work
    post: Post
    answer: asyncio.Future[Any]
    since: float = field(default_factory=time.monotonic)

    @property
    def words(self) -> int:
        return max(1, len(self.post.words))


class Batcher:
    """A bounded queue of posts, and the one thread that has the model.
    A post waits `wait` seconds at most for others to join it while the model is free; `observe` is
    called with the name of the work, the number of posts and the seconds of each batch."""

    def __init__(self, wait: float, queue: int, observe: Callable[[str, int, float], None]) -> None:
        self.wait, self.queue, self.observe = wait, queue, observe
        self._waiting: list[_Waiting] = []
        self._changed = threading.Condition()
        self._closed = False
        self._pace = 0.01  # seconds a post takes, a running mean
        self._thread = threading.Thread(target=self._serve, name="model", daemon=True)
        self.start, self.alive = self._thread.start, self._thread.is_alive

    def close(self) -> None:
        """Finish what waits, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def __len__(self) -> int:
        """How many posts wait."""
        return len(self._waiting)

    def check(self, posts: int = 1) -> None:
        """Raise a `Failure` if so many more posts may not wait."""
        if len(self._waiting) + posts > self.queue:
            seconds = max(1, math.ceil(self._pace * len(self._waiting)))
            raise busy(f"{len(self._waiting)} posts wait", seconds)

    def submit(self, work: Work, posts: Sequence[Post]) -> list[asyncio.Future[Any]]:
        """Queue posts, all or none; called in the event loop, raises as `check`."""
        loop = asyncio.get_running_loop()
        new = [_Waiting(work, post, loop.create_future()) for post in posts]
        with self._changed:
            self.check(len(new))
            self._waiting += new
            self._changed.notify()
        return [one.answer for one in new]

    async def answers(self, work: Work, posts: Sequence[Post]) -> list[Any]:
        """The result of `work` on each post, or its `Failure` as a value; raises as `check`."""
        futures = self.submit(work, posts)
        try:
            return [await future for future in futures]
        finally:
            for future in futures:  # of a client that is gone or came too late
                future.cancel()

    def _serve(self) -> None:
        while batch := self._next_batch():
            started = time.monotonic()
            answers = _answered(batch)
            seconds = time.monotonic() - started
            self._pace += (seconds / len(batch) - self._pace) * 0.1
            self.observe(batch[0].work.name, len(batch), seconds)
            batch[0].answer.get_loop().call_soon_threadsafe(_deliver, batch, answers)

    def _next_batch(self) -> list[_Waiting]:
        """The posts to run next, once there are enough or one has waited; empty at the end."""
        with self._changed:
            while True:
                self._waiting = [w for w in self._waiting if not w.answer.cancelled()]
                if self._waiting:
                    first = self._waiting[0]
                    left = first.since + self.wait - time.monotonic()
                    if left <= 0 or self._closed or len(self._waiting) >= first.work.size:
                        return self._pick(first)
                    self._changed.wait(left)
                elif self._closed:
                    return []
                else:
                    self._changed.wait()

    def _pick(self, first: _Waiting) -> list[_Waiting]:
        """The post that waited longest with those of the most similar length."""
        others = [w for w in self._waiting[1:] if w.work is first.work]
        others.sort(key=lambda w: abs(w.words - first.words))
        batch = [first]
        for one in others[: first.work.size - 1]:
            if not _fits([*batch, one]):
                break
            batch.append(one)
        self._waiting = [w for w in self._waiting if w not in batch]
        return batch


def _fits(batch: Sequence[_Waiting]) -> bool:
    words = [waiting.words for waiting in batch]
    longest = max(len(word) for waiting in batch for word in (*waiting.post.words, "."))
    return len(batch) * max(words) <= PADDED_WORDS and sum(words) * longest <= PADDED_CHARACTERS


def _answered(batch: Sequence[_Waiting]) -> list[Any]:
    """The answers of a batch; where it fails, each post alone, so that one harms no other."""
    work = batch[0].work
    try:
        answers = list(work.run([waiting.post for waiting in batch]))
        if len(answers) != len(batch):
            raise RuntimeError(f"{len(answers)} answers to {len(batch)} posts")
        return answers
    except InputError as error:
        failure = invalid(f"{error.where}: found {error.found}; expected {error.expected}")
    except Exception:
        log.exception("%s of %d posts failed", work.name, len(batch))
        failure = internal()
    return [failure] if len(batch) == 1 else [_answered([waiting])[0] for waiting in batch]


def _deliver(batch: Sequence[_Waiting], answers: Sequence[Any]) -> None:
    for waiting, answer in zip(batch, answers, strict=True):
        if not waiting.answer.done():
            waiting.answer.set_result(answer)
