"""The HTTP server: uvicorn, with timers on slow connections and an orderly end."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import math
import signal
import socket
import sys
from types import FrameType

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from rpbert.errors import InputError, reason_of
from rpbert.service.guard import Guard


class TimedConnection(H11Protocol):
    """A connection that is closed when the head of a request takes too long to come.
    uvicorn times only the pause between two requests, so a client could hold a connection for ever
    with a byte."""

    seconds = 15.0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first head."""
        super().connection_made(transport)
        self._time()

    def data_received(self, data: bytes) -> None:
        """Read on; a part of a head may have come."""
        super().data_received(data)
        self._time()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP by JSON, as everything else."""
        body = json.dumps({"error": {"code": "malformed", "reason": msg}}).encode()
        head = (
            "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _time(self) -> None:
        """Start the timer where a head is awaited, stop it where one is whole."""
        if self.cycle is not None and not self.cycle.response_complete:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = None
        elif self._timer is None:
            self._timer = self.loop.call_later(self.seconds, self.transport.close)


class Server(uvicorn.Server):
    """uvicorn that tells the service when it is being stopped, and then ends with code 0."""

    def __init__(self, guard: Guard) -> None:
        settings = guard.settings
        config = uvicorn.Config(
            guard,
            http=type("Connection", (TimedConnection,), {"seconds": settings.slow_client}),
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=2048,
            timeout_keep_alive=15,
            h11_max_incomplete_event_size=16 * 1024,  # bytes of a head
            # Longer than any request may take, so that none is cut off; shorter than for ever.
            timeout_graceful_shutdown=math.ceil(2 * settings.slow_client + settings.deadline + 5),
        )
        for name in ("uvicorn.error", "python_multipart"):  # not each byte that is no HTTP or form
            logging.getLogger(name).setLevel(logging.ERROR)
        super().__init__(config)
        self.guard = guard

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop, after what was accepted is answered; Ctrl-C twice does not wait."""
        self.guard.draining = True
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
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        where = "--port" if taken else "--host and --port"
        hint = "--port 0 takes any that is free" if taken else ""
        found = f"{host}:{port} ({reason_of(error)})"
        raise InputError(where, found, "a free address of this machine", hint) from None


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
