"""What every request passes before the service reads it: keys, size, time; and what is counted.

The guard takes the whole body in before it hands the request on. So all bodies count against one
budget of memory, and a slow client holds nothing but its connection and what it has sent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from starlette.responses import JSONResponse

from rpbert.service.failures import Failure, busy, slow, too_large, unauthorised
from rpbert.service.keys import Keys
from rpbert.service.metrics import Metrics
from rpbert.service.settings import ServiceSettings

Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

HEADERS = {
    b"content-security-policy": b"default-src 'none'; script-src 'self'; style-src 'self'; "
    b"img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    b"frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"permissions-policy": b"camera=(), geolocation=(), microphone=()",
}

DISCARDED = 4
"""A body up to so many times the limit is still read, to no use but that the client gets to hear
why it was refused: one that is cut off while it sends often does not look."""


class Guard:
    """The outermost layer of the service.

    Args:
        open_paths: paths that need no key.

    Attributes:
        draining: the service is being stopped: connections end with their answer.
        accepted: requests whose head was read.
        answered: requests whose answer was handed over to the end.
    """

    def __init__(
        self,
        app: App,
        settings: ServiceSettings,
        keys: Keys,
        metrics: Metrics,
        open_paths: frozenset[str],
    ) -> None:
        self.app = app
        self.settings = settings
        self.keys = keys
        self.metrics = metrics
        self.open_paths = open_paths
        self.draining = False
        self.accepted = 0
        self.answered = 0
        self._held = 0  # bytes of all bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.monotonic(), 0
        self.accepted += 1
        self.metrics.running.inc()

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = self._with_own(message["headers"])
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                self.answered += 1

        try:
            await self._admit(scope, receive, counted)
        finally:
            self.metrics.running.dec()
            seconds = time.monotonic() - started
            # Status 0 is a client that left before its answer: 499, as nginx has it.
            # The route that answered, such as of all examples, where the request came so far.
            route = scope.get("route")
            path = scope["path"] if route is None else route.path
            self.metrics.request(path, scope["method"], status or 499, seconds)

    def _with_own(self, headers: Any) -> list[tuple[bytes, bytes]]:
        given = [(bytes(k), bytes(v)) for k, v in headers]
        names = {name for name, _ in given}
        own = [(name, value) for name, value in HEADERS.items() if name not in names]
        if b"cache-control" not in names:
            own.append((b"cache-control", b"no-store"))
        if self.draining and b"connection" not in names:
            own.append((b"connection", b"close"))
        return given + own

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        body = _Body(self, headers, receive)
        try:
            if scope["path"] not in self.open_paths and not self.keys.open(headers):
                raise unauthorised()
            await body.read()
            await self._answer(scope, body, send)
        except Failure as failure:
            body.release()  # others may have it while this one is heard out
            await body.discard()
            answer = JSONResponse(failure.to_dict(), failure.status, failure.headers)
            answer.headers["Connection"] = "close"
            await answer(scope, receive, send)
        except _Gone:
            return
        finally:
            body.release()

    async def _answer(self, scope: Scope, body: _Body, send: Send) -> None:
        """Let the service answer, but not for a client that leaves meanwhile.

        Raises:
            _Gone: it left.
        """
        answering = asyncio.ensure_future(self.app(scope, body.receive, send))
        leaving = asyncio.ensure_future(body.left())
        try:
            await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                raise _Gone
            answering.result()
        finally:
            leaving.cancel()
            answering.cancel()

    def hold(self, count: int) -> None:
        """Take so many bytes of the budget.

        Raises:
            Failure: there are none left.
        """
        if self._held + count > self.settings.all_bodies_bytes:
            raise busy("the requests under way are too large together", 1)
        self._held += count

    def release(self, count: int) -> None:
        """Give bytes back to the budget."""
        self._held -= count


class _Gone(Exception):
    """The client left."""


class _Body:
    """The body of one request, held to its limits."""

    def __init__(self, guard: Guard, headers: dict[bytes, bytes], receive: Receive) -> None:
        self.guard = guard
        self.limit = guard.settings.body_bytes
        self.seconds = guard.settings.slow_client
        length = headers.get(b"content-length", b"")
        self.claimed = int(length) if length.isdigit() else 0
        # Who waits to be asked for the body has sent none that would have to be discarded.
        self.complete = headers.get(b"expect", b"").lower() == b"100-continue"
        self._receive = receive
        self._content: bytearray | None = None
        self._held = 0

    async def read(self) -> None:
        """Take the body in.

        Raises:
            Failure: it is too large, too slow, or there is no memory for it.
            _Gone: the client left.
        """
        if self.claimed > self.limit:
            self._refuse(self.claimed)
        self.complete = False
        content = self._content = bytearray()
        try:
            async with asyncio.timeout(self.seconds):
                while not self.complete:
                    chunk = await self._next()
                    if len(content) + len(chunk) > self.limit:
                        self._refuse(len(content) + len(chunk))
                    self.guard.hold(len(chunk))
                    self._held += len(chunk)
                    content += chunk
        except TimeoutError:
            self.complete = True  # what is still to come will not be waited for
            raise slow(self.seconds) from None

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        self.complete = not message.get("more_body", False)
        chunk: bytes = message.get("body", b"")
        return chunk

    def _refuse(self, found: int) -> None:
        raise too_large("body", f"{found} bytes or more", f"{self.limit}")

    async def discard(self) -> None:
        """Read on, within bounds, what a refused client still sends."""
        left = DISCARDED * self.limit
        try:
            async with asyncio.timeout(self.seconds):
                while not self.complete and left > 0 and self.claimed <= DISCARDED * self.limit:
                    left -= len(await self._next())
        except (TimeoutError, _Gone):
            return

    async def receive(self) -> Message:
        """The body as one message; after it nothing comes."""
        if self._content is None:
            return await asyncio.Future()
        content, self._content = bytes(self._content), None
        return {"type": "http.request", "body": content, "more_body": False}

    async def left(self) -> None:
        """Ends when the client has left."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def release(self) -> None:
        """Give back what the body took of the budget."""
        if self._content is not None:
            self._content.clear()  # the failure that is on its way holds on to it
        self.guard.release(self._held)
        self._held = 0
