"""The outermost layer of the service: keys, size and time of each request, and what is counted.
The guard reads the whole body before it hands the request on. So all bodies count against one
budget of memory, and a slow client holds nothing but its connection and what it has sent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.responses import JSONResponse

from rpbert.service.limits import MEBI, Failure, Keys, ServiceSettings, busy, too_large
from rpbert.service.pages import PAGE
from rpbert.types import Prediction

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

HEADERS = {
    b"content-security-policy": b"default-src 'none'; script-src 'self'; style-src 'self'; "
    b"img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    b"frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"permissions-policy": b"camera=(), geolocation=(), microphone=()",
    b"cache-control": b"no-store",
}
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
POSTS = (1, 2, 4, 8, 16, 32, 64, 128)
OPEN = frozenset(PAGE) | {"/healthz", "/readyz", "/openapi.json"}
"""Paths that need no key: they tell of no post, and a page must load to ask for the key."""
METHODS = frozenset(("GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE"))

DISCARDED = 4  # times the limit: a refused body is read so far, or the client does not read why


class Metrics:
    """What Prometheus reads at ``/metrics``; `queue` returns how many posts wait."""

    def __init__(self, queue: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"namespace": "rpbert", "registry": self.registry}
        timed, sized = {**own, "buckets": SECONDS}, {**own, "buckets": POSTS}
        self._requests = Counter("requests", "Answers.", ["path", "method", "status"], **own)
        self._latency = Histogram("request_seconds", "Head to end of answer.", ["path"], **timed)
        self.running = Gauge("requests_running", "Requests being answered.", **own)
        self._batches = Histogram("batch_posts", "Posts of a batch.", ["work"], **sized)
        self._model = Histogram("batch_seconds", "Time of a batch.", ["work"], **timed)
        self._images = Counter("images", "Posts by image status.", ["status"], **own)
        self._failures = Counter("post_failures", "Posts that failed.", ["code"], **own)
        Gauge("queue_posts", "Posts that wait for the model.", **own).set_function(queue)

    def request(self, path: str, method: str, status: int, seconds: float) -> None:
        """Count an answer."""
        method = method if method in METHODS else "other"
        self._requests.labels(path, method, str(status)).inc()
        self._latency.labels(path).observe(seconds)

    def post(self, answer: Prediction | Failure) -> None:
        """Count a post that was answered, or failed."""
        if isinstance(answer, Failure):
            self._failures.labels(answer.code).inc()
        else:
            self._images.labels(answer.image).inc()

    def batch(self, work: str, posts: int, seconds: float) -> None:
        """Count a batch that went through the model."""
        self._batches.labels(work).observe(posts)
        self._model.labels(work).observe(seconds)


class Guard:
    """The service as an ASGI application."""

    def __init__(
        self, app: FastAPI, settings: ServiceSettings, keys: Keys, metrics: Metrics
    ) -> None:
        self.app, self.settings, self.keys, self.metrics = app, settings, keys, metrics
        self.draining = False  # the service is being stopped: connections end with their answer
        self.accepted = self.answered = 0  # heads that were read, answers sent to the end
        self._held = 0  # bytes of all bodies

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.monotonic(), 499  # of a client that left, as nginx has it
        self.accepted += 1

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = {**HEADERS, b"connection": b"close"} if self.draining else HEADERS
                message["headers"] = list({**own, **dict(message["headers"])}.items())
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                self.answered += 1

        try:
            with self.metrics.running.track_inprogress():
                await self._admit(scope, receive, counted)
        finally:
            seconds = time.monotonic() - started
            self.metrics.request(self._label(scope), scope["method"], status, seconds)

    def _label(self, scope: Message) -> str:
        """The path of the route, such as of all examples; one label for what clients make up."""
        path = getattr(scope.get("route"), "path", scope["path"])
        return next((path for r in self.app.routes if getattr(r, "path", "") == path), "other")

    async def _admit(self, scope: Message, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        body = _Body(self, headers, receive)
        try:
            if scope["path"] not in OPEN and not self.keys.open(headers):
                reason = "an API key is needed, as 'Authorization: Bearer KEY'"
                raise Failure(401, "unauthorised", reason, {"WWW-Authenticate": "Bearer"})
            await body.read()
            await self._answer(scope, body, send)
        except Failure as failure:
            body.release()  # others may have it while this one is heard out
            await body.discard()
            answer = JSONResponse(failure.to_dict(), failure.status, failure.headers)
            answer.headers["Connection"] = "close"
            await answer(scope, receive, send)
        except _Gone:
            pass
        finally:
            body.release()

    async def _answer(self, scope: Message, body: _Body, send: Send) -> None:
        """Let the service answer; stop it, and raise `_Gone`, if the client leaves meanwhile."""
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
        """Take bytes of the budget of all bodies, or raise a `Failure`; negative: give back."""
        if count > 0 and self._held + count > self.settings.max_bodies * MEBI:
            raise busy("the requests under way are too large together", 1)
        self._held += count


class _Gone(Exception):
    """The client left."""


class _Body:
    """The body of one request, held to its limits."""

    def __init__(self, guard: Guard, headers: dict[bytes, bytes], receive: Receive) -> None:
        self.guard, self._receive = guard, receive
        self.limit = guard.settings.limits()["body_bytes"]
        self.seconds = guard.settings.slow_client
        self.claimed = int(headers.get(b"content-length", b"0"))  # h11 takes digits only
        # A client that waits to be asked for the body has sent none that must be discarded.
        self.complete = headers.get(b"expect", b"").lower() == b"100-continue"
        self._content, self._given = bytearray(), False
        self._held = 0

    async def read(self) -> None:
        """Read the body, or raise a `Failure`: it is too large, too slow, or all are together."""
        size = self.claimed
        if size <= self.limit:
            self.complete, size = False, 0
        try:
            async with asyncio.timeout(self.seconds):
                while size <= self.limit and not self.complete:
                    chunk = await self._next()
                    size += len(chunk)
                    if size <= self.limit:
                        self.guard.hold(len(chunk))
                        self._held += len(chunk)
                        self._content += chunk
        except TimeoutError:
            self.complete = True  # what is still to come will not be waited for
            reason = f"the request did not arrive within {self.seconds:g} s"
            raise Failure(408, "slow", reason) from None
        if size > self.limit:
            raise too_large("body", f"{size} bytes or more", self.limit)

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        self.complete = not message.get("more_body", False)
        return bytes(message.get("body", b""))

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
        if self._given:
            return await asyncio.Future()
        self._given, content = True, bytes(self._content)
        self._content.clear()
        return {"type": "http.request", "body": content, "more_body": False}

    async def left(self) -> None:
        """Ends when the client has left."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def release(self) -> None:
        """Give back what the body took of the budget."""
        self._content.clear()  # the failure that is on its way holds on to it
        self.guard.hold(-self._held)
        self._held = 0
