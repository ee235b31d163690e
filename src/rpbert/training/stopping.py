"""SIGTERM and Ctrl-C: at once where nothing would be lost, else at the next place to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """Turns both signals into `KeyboardInterrupt`, except where they are `held`.

    Signals reach the main thread alone; in any other this does nothing. A library may make another
    error of the `KeyboardInterrupt` that met it, as pydantic's core does: whatever leaves the
    block after a signal leaves as `KeyboardInterrupt`, and where a library swallows it, the run
    stops at the next place to stop.

    Attributes:
        wanted: whether a signal came.
    """

    def __init__(self) -> None:
        self.wanted = False
        self._held = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._stop) for number in _SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self.wanted and error is not None and not isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt from error

    @contextmanager
    def held(self) -> Iterator[None]:
        """Only note a signal; a second one stops at once all the same."""
        before, self._held = self._held, True
        try:
            yield
        finally:
            self._held = before

    @contextmanager
    def released(self) -> Iterator[None]:
        """Within `held`: stop at once again, also for a signal that came before.

        Raises:
            KeyboardInterrupt: a signal came, or comes.
        """
        before, self._held = self._held, False
        try:
            if self.wanted:
                raise KeyboardInterrupt
            yield
        finally:
            self._held = before

    def _stop(self, number: int, frame: FrameType | None) -> None:
        at_once = not self._held or self.wanted
        self.wanted = True
        if at_once:
            raise KeyboardInterrupt
