"""SIGTERM and Ctrl-C: at once where nothing would be lost, else at the next safe point."""

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
    Signals reach the main thread alone; in any other thread this does nothing. A library may turn
    the `KeyboardInterrupt` into another error, as pydantic's core does, or swallow it: after a
    signal every error leaves the block as `KeyboardInterrupt`, and `should_stop` stays true."""

    def __init__(self) -> None:
        self.should_stop = False
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
        if self.should_stop and error is not None and not isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt from error

    @contextmanager
    def held(self, hold: bool = True) -> Iterator[None]:
        """Only note a first signal; a second one stops at once. False, within such a block, stops
        at once again. Raises KeyboardInterrupt: `hold` is False and a signal came before, or
        comes."""
        before, self._held = self._held, hold
        try:
            if self.should_stop and not hold:
                raise KeyboardInterrupt
            yield
        finally:
            self._held = before

    def _stop(self, number: int, frame: FrameType | None) -> None:
        at_once = not self._held or self.should_stop
        self.should_stop = True
        if at_once:
            raise KeyboardInterrupt
