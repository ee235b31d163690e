"""The outermost layer of the service: host, site, key, size and time of a request, and counts.
The guard reads the whole body before it hands the request on. So all bodies count against one
budget of memory, and a slow client holds nothing but its connection and what it has sent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from fnmatch import fnmatchcase
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.requests import ClientDisconnect

from rpbert.service.limits import MEBI, ServiceSettings, opens
from rpbert.service.pages import PAGE
from rpbert.service.schema import Failure, busy, too_large
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
WITH_BODY = frozenset(("/v1/predict", "/v1/explain"))
"""Paths whose `POST` is read; the body of any other request is thrown away as it comes."""
METHODS = frozenset(("GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE"))


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
            self._failures.labels(answer.error.code).inc()
        else:
            self._images.labels(answer.image).inc()

    def batch(self, work: str, posts: int, seconds: float) -> None:
        """Count a batch that went through the model."""
        self._batches.labels(work).observe(posts)
        self._model.labels(work).observe(seconds)


class Guard:
    """The service as an ASGI application. It answers for names of this machine, the address that a
    client has reached, and those of `--allow-host`, whose pages may ask it."""

    def __init__(
        self, app: FastAPI, settings: ServiceSettings, keys: frozenset[bytes], metrics: Metrics
    ) -> None:
        self.app, self.settings, self.keys, self.metrics = app, settings, keys, metrics
        self.names = {"localhost", "127.0.0.1", "::1"}
        self.accepted = self.answered = 0  # heads that were read, answers sent to the end
        self._held = 0  # bytes of all bodies
        app.state.draining = False  # while it is being stopped, connections end with their answer

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request; one for the head alone as the same without its body."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.monotonic(), 499  # of a client that left, as nginx has it
        self.accepted += 1
        method = scope["method"]
        asked = {**scope, "method": "GET"} if method == "HEAD" else scope

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = {**HEADERS, b"connection": b"close"} if self.app.state.draining else HEADERS
                message["headers"] = list({**own, **dict(message["headers"])}.items())
            elif method == "HEAD":
                message["body"] = b""
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                self.answered += 1

        try:
            with self.metrics.running.track_inprogress():
                await self._admit(asked, receive, counted)
        finally:
            seconds = time.monotonic() - started
            self.metrics.request(self._label(asked), method, status, seconds)

    def _label(self, scope: Message) -> str:
        """The path of the route, such as of all examples; one label for what clients make up."""
        path = getattr(scope.get("route"), "path", scope["path"])
        return next((path for r in self.app.routes if getattr(r, "path", "") == path), "other")

    async def _admit(self, scope: Message, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        body = _Body(self, receive)
        try:
            self._check(scope, headers)
            if scope["method"] == "POST" and scope["path"] in WITH_BODY:
                await body.read(int(headers.get(b"content-length", b"0")))  # h11 takes digits only
            await self._answer(scope, body, send)
        except Failure as failure:
            body.release()  # others may have it while this one is answered
            answer = failure.response()
            if failure.status_code == 408 or b"expect" in headers:  # a body that will not come
                answer.headers["Connection"] = "close"
            await answer(scope, receive, send)
        except ClientDisconnect:
            pass
        finally:
            body.release()

    def _check(self, scope: Message, headers: Mapping[bytes, bytes]) -> None:
        """Raise a `Failure` for what was meant for another host, a page of another site asks, or
        has no key. A browser tells the site by itself; a name that leads here by another's will, as
        in DNS rebinding, is none of ours."""
        host = headers.get(b"host", b"").decode("latin-1")
        name, reached = _name("//" + host), (scope["server"] or ("",))[0]
        if name not in {*self.names, reached} and not self._allows(name):
            raise Failure(421, "host", f"no service of {name!a:.80}; --allow-host gives it one")
        site, origin = headers.get(b"sec-fetch-site"), headers.get(b"origin")
        if scope["method"] == "POST" and (site or origin):
            page = (origin or b"").decode("latin-1")
            same = site in (b"same-origin", b"none") if site else urlsplit(page).netloc == host
            if not same and not self._allows(_name(page)):
                raise Failure(403, "cross_site", "asked by a page of another site, not allowed")
        if scope["path"] not in OPEN and not opens(self.keys, headers):
            reason = "an API key is needed, as 'Authorization: Bearer KEY'"
            raise Failure(401, "unauthorised", reason, {"WWW-Authenticate": "Bearer"})

    def _allows(self, name: str) -> bool:
        patterns = self.settings.allow_host
        return bool(name) and any(fnmatchcase(name, pattern.lower()) for pattern in patterns)

    async def _answer(self, scope: Message, body: _Body, send: Send) -> None:
        """Let the service answer; stop it if the client leaves meanwhile."""
        answering = asyncio.ensure_future(self.app(scope, body.receive, send))
        leaving = asyncio.ensure_future(body.left())
        try:
            await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                raise ClientDisconnect
            answering.result()
        finally:
            leaving.cancel()
            answering.cancel()

    def hold(self, count: int) -> None:
        """Take bytes of the budget of all bodies, or raise a `Failure`; negative: give back."""
        if count > 0 and self._held + count > self.settings.max_bodies * MEBI:
            raise busy("the requests under way are too large together", 1)
        self._held += count


class _Body:
    """The body of one request, which counts in the budget of all until it is released."""

    def __init__(self, guard: Guard, receive: Receive) -> None:
        self.guard, self._receive = guard, receive
        self._content, self._given, self._held = bytearray(), False, 0

    async def read(self, claimed: int) -> None:
        """Read the body, or raise a `Failure`: it is too large, too slow, or all are together."""
        settings, size, more = self.guard.settings, claimed, True
        limit = settings.limits()["body_bytes"]
        try:
            async with asyncio.timeout(settings.slow_client):
                while more and size <= limit:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        raise ClientDisconnect
                    more, chunk = message.get("more_body", False), message.get("body", b"")
                    size = len(self._content) + len(chunk)
                    self.guard.hold(len(chunk))
                    self._held += len(chunk)
                    self._content += chunk
        except TimeoutError:
            reason = f"the request did not arrive within {settings.slow_client:g} s"
            raise Failure(408, "slow", reason) from None
        if size > limit:
            raise too_large("body", f"{size} bytes or more", limit)

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


def _name(address: str) -> str:
    """The host of an address in small letters; empty where there is none."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""
