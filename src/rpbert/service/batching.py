"""Dynamic batching: posts of many clients go through the model together, in one thread.
While the model works on a batch, the next one gathers. A batch takes the post that has waited
longest and, of the others, those nearest to it in length: none waits for ever, and little is
computed on padding. The decoder parts a batch whose padding would take too much memory."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from rpbert.errors import InputError
from rpbert.service.schema import busy, internal, invalid
from rpbert.types import Post

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


class Batcher:
    """A bounded queue of posts before the one thread that has the model; all but that thread runs
    in the event loop. A post waits `wait` seconds at most for others to join it while the model is
    free; `observe` is called with the name of the work, the posts and the seconds of each batch."""

    def __init__(self, wait: float, queue: int, observe: Callable[[str, int, float], None]) -> None:
        self.wait, self.queue, self.observe = wait, queue, observe
        self._waiting: list[_Waiting] = []
        self._changed, self._closed = asyncio.Event(), False
        self._pace = 0.01  # seconds a post takes, a running mean
        self._serving: asyncio.Future[None] | None = None

    def start(self) -> None:
        """Give the model what comes."""
        self._serving = asyncio.ensure_future(self._serve())

    def alive(self) -> bool:
        """Whether posts are answered."""
        return self._serving is not None and not self._serving.done()

    async def close(self) -> None:
        """Finish what waits, then end."""
        self._closed = True
        self._changed.set()
        if self._serving is not None:
            await self._serving

    def __len__(self) -> int:
        """How many posts wait."""
        return len(self._waiting)

    def check(self, posts: int = 1) -> None:
        """Raise a `Failure` if so many more posts may not wait."""
        if len(self._waiting) + posts > self.queue:
            seconds = max(1, math.ceil(self._pace * len(self._waiting)))
            raise busy(f"{len(self._waiting)} posts wait", seconds)

    async def answers(self, work: Work, posts: Sequence[Post]) -> list[Any]:
        """The result of `work` on each post, or its `Failure` as a value; queues all posts or none,
        and raises as `check`."""
        self.check(len(posts))
        futures = [asyncio.get_running_loop().create_future() for _ in posts]
        self._waiting += [_Waiting(work, *pair) for pair in zip(posts, futures, strict=True)]
        self._changed.set()
        try:
            return [await future for future in futures]
        finally:
            for future in futures:  # of a client that is gone or came too late
                future.cancel()

    async def _serve(self) -> None:
        with ThreadPoolExecutor(1, "model") as model:
            while batch := await self._next_batch():
                started, work = time.monotonic(), batch[0].work
                posts = [one.post for one in batch]
                loop = asyncio.get_running_loop()
                answers = await loop.run_in_executor(model, _answered, work, posts)
                seconds = time.monotonic() - started
                self._pace += (seconds / len(batch) - self._pace) * 0.1
                self.observe(work.name, len(batch), seconds)
                for one, answer in zip(batch, answers, strict=True):
                    if not one.answer.done():
                        one.answer.set_result(answer)

    async def _next_batch(self) -> list[_Waiting]:
        """The posts to run next, once there are enough or one has waited; empty at the end."""
        while True:
            self._waiting = [one for one in self._waiting if not one.answer.cancelled()]
            self._changed.clear()
            left = None
            if self._waiting:
                first = self._waiting[0]
                left = first.since + self.wait - time.monotonic()
                if left <= 0 or self._closed or len(self._waiting) >= first.work.size:
                    return self._pick(first)
            elif self._closed:
                return []
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left)

    def _pick(self, first: _Waiting) -> list[_Waiting]:
        """The post that waited longest with those of the most similar length."""
        length = len(first.post.words)
        others = [one for one in self._waiting[1:] if one.work is first.work]
        others.sort(key=lambda one: abs(len(one.post.words) - length))
        batch = [first, *others[: first.work.size - 1]]
        self._waiting = [one for one in self._waiting if one not in batch]
        return batch


def _answered(work: Work, posts: Sequence[Post]) -> list[Any]:
    """The answers of a batch; where it fails, each post alone, so that one harms no other."""
    try:
        answers = list(work.run(posts))
        if len(answers) != len(posts):
            raise RuntimeError(f"{len(answers)} answers to {len(posts)} posts")
        return answers
    except InputError as error:
        failure = invalid(f"{error.where}: found {error.found}; expected {error.expected}")
    except Exception:
        log.exception("%s of %d posts failed", work.name, len(posts))
        failure = internal()
    return [failure] if len(posts) == 1 else [_answered(work, [post])[0] for post in posts]
