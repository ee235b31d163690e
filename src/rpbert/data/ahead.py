"""Work done ahead: the next batch is read while this one is computed."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
_POLL = 0.1  # seconds after which a producer looks whether anyone still listens


def ahead(items: Iterable[Item], count: int = 1) -> Iterator[Item]:
    """The same items in the same order, made in a thread of their own.

    An exception of the producer is raised where its item would have come. A consumer that stops
    early stops the producer too, after the item it is at.

    Args:
        count: most items that wait to be taken.
    """
    waiting: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(count)
    stopped = threading.Event()

    def put(entry: tuple[Item | None, BaseException | None]) -> bool:
        while not stopped.is_set():
            try:
                waiting.put(entry, timeout=_POLL)
                return True
            except queue.Full:
                continue
        return False

    def produce() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((None, StopIteration()))
        except BaseException as error:  # handed on to the consumer, whatever it is
            put((None, error))

    thread = threading.Thread(target=produce, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = waiting.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()
