"""The HTTP server: uvicorn, with timers on slow connections and an orderly end."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import socket
import sys
from types import FrameType

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from rpbert.errors import InputError, reason_of
from rpbert.service.guard import Guard

BACKLOG = 2048  # connections that wait to be accepted
FULL = b"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class TimedConnection(H11Protocol):
    """A connection that ends when its client takes too long to send a head or to read an answer.
    uvicorn times only the pause between two requests, so a client could hold a connection for ever
    with a byte, or by reading none."""

    seconds, most = 15.0, 1000
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first head, if there is room."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # writing pauses as soon as a client is behind
        if len(self.connections) > self.most:
            transport.write(FULL)
            transport.abort()
        self._time()

    def data_received(self, data: bytes) -> None:
        """Read on; a part of a head may have come."""
        super().data_received(data)
        self._time()

    def pause_writing(self) -> None:
        """The client has not read all."""
        super().pause_writing()
        self._time()

    def resume_writing(self) -> None:
        """It has."""
        super().resume_writing()
        self._time()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        super().connection_lost(exc)
        if self._timer is not None:
            self._timer.cancel()

    def _time(self) -> None:
        """Run the timer while the client is waited for."""
        waited = self.cycle is None or self.cycle.response_complete or self.flow.write_paused
        if waited and self._timer is None:
            self._timer = self.loop.call_later(self.seconds, self.transport.abort)
        elif not waited and self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Server(uvicorn.Server):
    """uvicorn that tells the service when it is being stopped, and then ends with code 0."""

    def __init__(self, guard: Guard) -> None:
        settings = guard.settings
        # Accepting without a descriptor left would fail, and fail again, as fast as it can.
        most = min(1000, os.sysconf("SC_OPEN_MAX") // 3) if os.name == "posix" else 500
        limits = {"seconds": settings.slow_client, "most": most}
        config = uvicorn.Config(
            guard,
            http=type("Connection", (TimedConnection,), limits),
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=1,
            timeout_keep_alive=15,
            h11_max_incomplete_event_size=16 * 1024,  # bytes of a head
            # Longer than any request may take, so that none is cut off; shorter than for ever.
            timeout_graceful_shutdown=math.ceil(2 * settings.slow_client + settings.deadline + 5),
        )
        # Not each byte that is no HTTP or form.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
        super().__init__(config)
        self.guard = guard

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen. asyncio accepts as many connections in one go as may wait, and writes as many
        lines where none can be: so it is told one, and the system more."""
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(BACKLOG)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop, after what was accepted is answered; Ctrl-C twice does not wait."""
        self.guard.app.state.draining = True
        if sig == signal.SIGTERM:
            self.should_exit = True
        else:
            super().handle_exit(sig, frame)
            if self.force_exit:  # what is cut off then needs no traceback
                logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)


def listen(host: str, port: int) -> socket.socket:
    """A socket that waits for clients; `InputError` if the address is taken or not ours."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        found, hint = f"{host}:{port} ({reason_of(error)})", "--port 0 takes any that is free"
        raise InputError("--host and --port", found, "an address of this machine", hint) from None


def address(listener: socket.socket) -> str:
    """Where a browser finds what listens."""
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"


def run(guard: Guard, listener: socket.socket) -> None:
    """Serve until a signal; then answer what was accepted, and say how much that was."""
    try:
        Server(guard).run(sockets=[listener])
    finally:
        line = f"answered {guard.answered:,} of {guard.accepted:,} requests"
        print(line, file=sys.stderr, flush=True)
