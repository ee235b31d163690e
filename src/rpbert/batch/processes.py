"""Shards tagged by several processes of this machine, each with a model of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from rpbert.batch import Done, Event, Job, Lost, Shard
from rpbert.batch.output import clear
from rpbert.errors import InputError

_ATTEMPTS = 2  # a shard, or a model to load, that ends two processes is the reason
_READY = "ready"


@dataclass(frozen=True)
class Processes:
    """The engine of several processes; each takes the next shard when it is done with one.

    Attributes:
        workers: how many.
        gpus: GPUs they share evenly; 0 for none, None for the first where there is one.
    """

    workers: int
    gpus: int | None = None

    def run(self, job: Job, shards: Sequence[Shard]) -> Iterator[Event]:
        """Tag the shards; of two that are tagged at a time either may be done first."""
        pool = _Pool(job, shards, [self._device(i) for i in range(self.workers)])
        try:
            yield from pool.run()
        finally:
            pool.stop()

    def _device(self, worker: int) -> str | None:
        if self.gpus is None:
            return None
        return f"cuda:{worker % self.gpus}" if self.gpus else "cpu"


@dataclass
class _Worker:
    """A process, what it works on, and the pipe to it."""

    process: Any
    pipe: Connection
    device: str | None
    shard: int | None = None
    ready: bool = False


@dataclass
class _Pool:
    """The processes of a run.

    Attributes:
        devices: of each process.
        loads_ended: processes that ended while they loaded, one after the other.
    """

    job: Job
    shards: Sequence[Shard]
    devices: list[str | None]
    waiting: deque[int] = field(init=False)
    attempts: list[int] = field(init=False)
    workers: list[_Worker] = field(default_factory=list)
    loads_ended: int = 0

    def __post_init__(self) -> None:
        self.waiting = deque(range(len(self.shards)))
        self.attempts = [0] * len(self.shards)

    def run(self) -> Iterator[Event]:
        """Give out shards until none is left, and pass on what the processes say."""
        for device in self.devices[: len(self.shards)]:
            self.workers.append(self._start(device))
        while self.workers:
            for pipe in wait([worker.pipe for worker in self.workers]):
                worker = next(worker for worker in self.workers if worker.pipe is pipe)
                try:
                    said = worker.pipe.recv()
                except (EOFError, OSError):  # the latter where it died within a message
                    yield from self._replace(worker)
                    continue
                if isinstance(said, Exception):
                    raise said
                if said == _READY:
                    worker.ready, self.loads_ended = True, 0
                else:
                    yield said
                if said == _READY or isinstance(said, Done):
                    self._next(worker)

    def stop(self) -> None:
        """End all processes, whatever they do, and remove what they left half written."""
        for worker in self.workers:
            worker.process.kill()
        for worker in self.workers:
            worker.process.join()
        clear(self.shards[w.shard] for w in self.workers if w.shard is not None)
        self.workers.clear()

    def _start(self, device: str | None) -> _Worker:
        # A forked process would inherit threads and locks in the middle of something.
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        share = (device, len(self.devices))
        process = context.Process(target=_work, args=(there, self.job, *share), daemon=True)
        process.start()
        there.close()
        return _Worker(process, here, device)

    def _next(self, worker: _Worker) -> None:
        """Give a process its next shard, or let it go."""
        worker.shard = task = None
        if self.waiting:
            worker.shard = self.waiting.popleft()
            self.attempts[worker.shard] += 1
            task = (worker.shard, self.shards[worker.shard])
        with suppress(OSError):  # it died meanwhile, as the end of its pipe will tell
            worker.pipe.send(task)
        if task is None:
            worker.process.join()
            self.workers.remove(worker)

    def _replace(self, worker: _Worker) -> Iterator[Lost]:
        """Start another process for one that died; its shard is tried once more.

        Raises:
            InputError: two in a row died before they had the model.
        """
        worker.process.join()
        self.workers.remove(worker)
        how = _how_it_ended(worker.process.exitcode)
        if not worker.ready:
            self.loads_ended += 1
            if self.loads_ended == _ATTEMPTS:
                found = f"its end, {how}, while it loaded, twice"
                hint = "give fewer --workers if memory is short"
                raise InputError("a worker", found, "a loaded model", hint)
        if worker.shard is not None:
            clear([self.shards[worker.shard]])
            if self.attempts[worker.shard] < _ATTEMPTS:
                self.waiting.appendleft(worker.shard)
            else:
                yield Lost(worker.shard, f"its worker ended twice, {how}")
        if self.waiting:
            self.workers.append(self._start(worker.device))


def _how_it_ended(code: int | None) -> str:
    if code is not None and code < 0:
        return f"by signal {signal.Signals(-code).name}"
    return f"with code {code}"


def _work(pipe: Connection, job: Job, device: str | None, workers: int) -> None:
    """What a process does: load the model, then tag the shards that it is given."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the first process decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch

    from rpbert.batch.local import loaded

    torch.set_num_threads(max(1, torch.get_num_threads() // workers))
    try:
        tagger = loaded(job, device)
        pipe.send(_READY)
        while (task := pipe.recv()) is not None:
            for event in tagger.tag(*task):
                pipe.send(event)
    except InputError as error:
        pipe.send(error)


def _end_with_parent() -> None:
    """End this process at once where the one that started it was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
