"""The queue before the model: nobody is swapped, starved or harmed by another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rpbert.service.batching import Batcher, Work
from rpbert.service.schema import Failure
from rpbert.types import Post


class Seen:
    """A batcher, what it reports and what the work is given."""

    def __init__(self, wait: float = 0) -> None:
        self.batches: list[list[Post]] = []
        self.reported: list[tuple[str, int]] = []
        self.batcher = Batcher(wait, 1000, lambda *given: self.reported.append(given[:2]))

    def run(self, posts: Sequence[Post]) -> list[str]:
        self.batches.append(list(posts))
        return [post.id for post in posts]


def post(id: str, words: int = 3) -> Post:
    return Post.from_words(id, ("x",) * words)


def batched(
    posts: Sequence[Post], size: int = 4, run: Callable[..., Any] | None = None
) -> tuple[Seen, list[Any]]:
    """The answers to posts that all wait before the model's thread starts."""
    seen = Seen()

    async def main() -> list[Any]:
        asked = seen.batcher.answers(Work("echo", run or seen.run, size), posts)
        waiting = asyncio.ensure_future(asked)
        await asyncio.sleep(0)
        seen.batcher.start()
        answers = await waiting
        await seen.batcher.close()
        return answers

    return seen, asyncio.run(main())


@given(st.lists(st.integers(0, 60), max_size=40), st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_each_post_gets_its_own_answer_whatever_the_lengths(lengths: list[int], size: int) -> None:
    posts = [post(str(i), words) for i, words in enumerate(lengths)]
    seen, answers = batched(posts, size)
    assert answers == [p.id for p in posts]
    assert all(1 <= len(batch) <= size for batch in seen.batches)
    assert seen.reported == [("echo", len(batch)) for batch in seen.batches]
    # The one that waited longest is in the next batch, and none that was left out is more like it.
    left = list(posts)
    for batch in seen.batches:
        assert left[0] in batch
        rest = [p for p in left if p not in batch]
        far = max(abs(len(p.words) - len(left[0].words)) for p in batch)
        assert all(abs(len(p.words) - len(left[0].words)) >= far for p in rest)
        left = rest
    assert not left


def test_one_that_fails_harms_no_other(caplog: pytest.LogCaptureFixture) -> None:
    def run(posts: Sequence[Post]) -> list[str]:
        if any(p.id == "bad" for p in posts):
            raise MemoryError("this one is too much")
        return [p.id for p in posts]

    _, (first, failed, last) = batched([post("a"), post("bad"), post("c")], run=run)
    assert (first, last) == ("a", "c")
    assert (failed.status_code, "too much" in failed.detail) == (500, False)
    assert "this one is too much" in caplog.text
    # Too few answers are a failure, and not a swap.
    _, answers = batched([post("a"), post("b")], run=lambda posts: [posts[0].id])
    assert answers == ["a", "b"]  # each alone
    _, answers = batched([post("a"), post("b")], run=lambda posts: [])
    assert [type(answer) for answer in answers] == [Failure, Failure]


def test_closing_finishes_what_waits_and_work_is_kept_apart() -> None:
    seen = Seen(wait=60)  # nothing would leave the queue for a minute
    one, other = Work("one", seen.run, 8), Work("other", seen.run, 8)

    async def main() -> None:
        asked = (seen.batcher.answers((one, other)[i % 2], [post(str(i))]) for i in range(6))
        waiting = asyncio.gather(*asked)
        await asyncio.sleep(0)
        seen.batcher.start()
        await seen.batcher.close()
        assert await waiting == [[str(i)] for i in range(6)]
        assert not seen.batcher.alive()

    asyncio.run(main())
    assert sorted(seen.reported) == [("one", 3), ("other", 3)]
