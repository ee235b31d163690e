"""Shards tagged by actors of a Ray cluster, or of a Ray of this machine where there is none.
Each actor loads the model once and runs `tag_shard`, the function of the local engine, so the files
are the same. Every machine sees model, input and output under the same paths."""

from __future__ import annotations

import logging
import math
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch

from rpbert.batch import Event, Job, Shard
from rpbert.batch.run import loaded, tag_shard
from rpbert.errors import InputError
from rpbert.inference import Tagger

_ALONE = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # this makes Ray listen on the loopback address
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),  # else Ray leaves one in the home folder
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}
"""The environment of a local Ray, where the user has set none."""


class _Worker:
    """An actor; Ray starts it again where its process dies."""

    def __init__(self, job: Job, device: str, threads: int) -> None:
        self.job, self.device, self.threads = job, device, threads

    @cached_property
    def tagger(self) -> Tagger:
        torch.set_num_threads(self.threads)
        return loaded(self.job, self.device)

    def load(self) -> None:
        """Load the model, which raises its errors here."""
        _ = self.tagger

    def tag(self, number: int, shard: Shard) -> Iterator[Event]:
        yield from tag_shard(self.tagger, self.job, number, shard)


def gpu_share(workers: int, gpus: int | None) -> float:
    """The part of a GPU that each worker takes: all run at a time, none on two GPUs."""
    gpus = int(torch.cuda.is_available()) if gpus is None else gpus
    return 1 / math.ceil(workers / gpus) if gpus else 0.0


def tag_on_ray(
    job: Job, shards: Sequence[Shard], workers: int = 1, gpus: int | None = 0
) -> Iterator[Event]:
    """The engine of a Ray cluster: that of ``RAY_ADDRESS``, else one of this machine alone.
    The workers share the GPUs evenly; None is one GPU if this machine has one."""
    share = gpu_share(workers, gpus)
    threads = max(1, torch.get_num_threads() // workers)
    with connected(workers):
        import ray

        # A method whose actor dies runs once more.
        retried = {"max_restarts": -1, "max_task_retries": 1}
        remote = ray.remote(num_cpus=1, num_gpus=share, **retried)(_Worker).remote
        count = min(workers, len(shards))
        actors = [remote(job, "cuda" if share else "cpu", threads) for _ in range(count)]
        try:
            ray.get([actor.load.remote() for actor in actors])
            yield from _events(actors, shards)
        except ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, InputError) else error from None
        except ray.exceptions.RayActorError:
            hint = "give fewer --workers if memory is short"
            found = "its end while it loaded, twice"
            raise InputError("a worker", found, "a loaded model", hint) from None
        finally:
            for actor in actors:
                ray.kill(actor)


def _events(actors: Sequence[Any], shards: Sequence[Shard]) -> Iterator[Event]:
    """Give each actor its next shard until none is left, and pass on the events."""
    import ray

    waiting, idle = list(enumerate(shards))[::-1], list(actors)
    running: dict[Any, tuple[int, Any]] = {}
    while waiting or running:
        while waiting and idle:
            (number, shard), actor = waiting.pop(), idle.pop()
            running[actor.tag.remote(number, shard)] = number, actor
        (stream,), _ = ray.wait(list(running), num_returns=1, fetch_local=False)
        number, actor = running[stream]
        try:
            event: Event = ray.get(next(stream))
        except ray.exceptions.RayActorError:
            event = Event(number, lost="its worker ended twice")
        if event.tally or event.lost:
            del running[stream]
            idle.append(actor)
        yield event


@contextmanager
def connected(workers: int) -> Iterator[None]:
    """The Ray this process is connected to, else that of ``RAY_ADDRESS``, else one of our own.
    Our own listens on this machine only and ends with the run; where Ray was imported before, its
    settings were read by then, and it starts with Ray's own."""
    alone = "RAY_ADDRESS" not in os.environ
    if alone and "ray" not in sys.modules:
        for name, value in _ALONE.items():
            os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        hint = "pip install 'rpbert[ray]'"
        raise InputError("--engine ray", "no ray", "the extra", hint) from None
    if ray.is_initialized():
        yield
        return
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        own = {
            "address": "local",
            "include_dashboard": False,
            "num_cpus": max(os.cpu_count() or 1, workers),
            "object_store_memory": 128 * 2**20,  # bytes; only events and names of files pass
            "_node_ip_address": "127.0.0.1",
            "_temp_dir": folder,  # a short name: sockets lie below it
        }
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **(own if alone else {}))
        try:
            yield
        finally:
            ray.shutdown()
