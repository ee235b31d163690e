"""The time that a request has, from its body to its answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rpbert.service.failures import late


class Deadline:
    """When the answer to a request is of no more use.

    Attributes:
        until: that moment, by time.monotonic().
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.until = time.monotonic() + seconds

    def check(self) -> None:
        """Whether there is time left.

        Raises:
            Failure: there is none.
        """
        if time.monotonic() >= self.until:
            raise late(self.seconds)

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Ends what is awaited within when the time has come.

        Raises:
            Failure: it had.
        """
        try:
            async with asyncio.timeout(self.until - time.monotonic()):
                yield
        except TimeoutError:
            raise late(self.seconds) from None
