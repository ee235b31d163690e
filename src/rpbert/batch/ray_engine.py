"""Shards tagged on a Ray cluster by Ray Data, or on this machine where there is none.

Readers (CPU) read shards, decode images and pack batches; taggers (GPU) run the model on them,
each loaded once, while the next batches are read. Their answers come back in any order, and this
process, which writes all files, puts them in theirs. Batches are cut as in one process, so that
the bytes written are the same.

Every machine sees input and model under the same paths.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import sys
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from rpbert.batch import Done, Event, Job, Shard, Step
from rpbert.batch.finished import Source, check_model, record
from rpbert.batch.local import check_unchanged, loaded, read_posts, source_of
from rpbert.batch.output import opened
from rpbert.errors import InputError
from rpbert.types import Batch, PostImage, Prediction

_OBJECT_STORE = 512 * 2**20  # bytes, of a Ray of our own
_BLOCK = 32 * 2**20  # bytes of packed batches that go to a tagger at a time
_ALONE = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # in truth: take the loopback address for our own
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),  # else Ray leaves one in the home folder
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}
"""The environment of a Ray of our own, where the user has not said otherwise."""


@dataclass(frozen=True)
class RayEngine:
    """The engine of a Ray cluster: that of ``RAY_ADDRESS``, else one of this machine alone.

    Attributes:
        workers: models that tag at a time.
        gpus: GPUs they share evenly; 0 for none, None for one if this machine has one.
    """

    workers: int
    gpus: int | None = 0

    def share(self) -> float:
        """Of a GPU for each model: as many models on one as it takes for all to run at a time."""
        import torch

        gpus = int(torch.cuda.is_available()) if self.gpus is None else self.gpus
        return 1 / math.ceil(self.workers / gpus) if gpus else 0.0

    def run(self, job: Job, shards: Sequence[Shard]) -> Iterator[Event]:
        """Tag the shards, several at a time."""
        with connected(self.workers):
            writers: dict[int, _Writer] = {}
            try:
                for row in self._pieces(job, shards):
                    piece: _Piece = row["piece"]
                    number = piece.shard
                    if number not in writers:
                        writers[number] = _writing(number, shards[number], job)
                        next(writers[number])
                    event = writers[number].send(piece)
                    if event is not None:
                        yield event
                    if isinstance(event, Done):
                        del writers[number]
            except Exception as error:
                if fault := _fault(error):
                    raise fault from error
                raise
            finally:
                for writer in writers.values():
                    writer.close()

    def _pieces(self, job: Job, shards: Sequence[Shard]) -> Iterator[dict[str, Any]]:
        import ray
        import torch

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context.target_max_block_size = _BLOCK
        share = self.share()
        threads = max(1, torch.get_num_threads() // self.workers)
        # Each tagger keeps a reader busy; more are started where reading is what takes time.
        readers = (1, max(1, 4 * self.workers))
        given = [{"number": n, "source": str(s.source)} for n, s in enumerate(shards)]
        rows = ray.data.from_items(given, override_num_blocks=len(given)).map_batches(
            _Reader,
            fn_constructor_args=(job,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(min_size=readers[0], max_size=readers[1]),
            num_cpus=1,
        )
        rows = rows.map_batches(
            _Tagger,
            fn_constructor_args=(job, "cuda" if share else "cpu", threads),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=self.workers),
            num_cpus=1,
            num_gpus=share,
        )
        yield from rows.iter_rows()


@dataclass(frozen=True)
class _Begun:
    """A shard is going to be read."""

    shard: int
    source: Source


@dataclass(frozen=True)
class _Packed:
    """A batch out of a window of posts.

    Attributes:
        window: number of the window in its shard.
        batches: of the window.
        places: of the batch's posts in the window.
        batch: packed posts, themselves without their images.
    """

    shard: int
    window: int
    batches: int
    places: list[int]
    batch: Batch


@dataclass(frozen=True)
class _Tagged:
    """The answers to a `_Packed`."""

    shard: int
    window: int
    batches: int
    places: list[int]
    predictions: list[Prediction]


@dataclass
class _Ended:
    """A shard is read; collects what was at fault meanwhile, as an `Output` does."""

    shard: int
    windows: int = 0
    faults: list[InputError] = field(default_factory=list)
    broken: InputError | None = None

    def fault(self, fault: InputError) -> None:
        """A row that gives no post."""
        self.faults.append(fault)

    def break_off(self, fault: InputError) -> None:
        """The input ends before its end."""
        self.broken = fault


_Piece: TypeAlias = _Begun | _Tagged | _Ended
_Writer: TypeAlias = Generator[Event | None, _Piece, None]


class _Reader:
    """Reads shards and packs their posts, with the parts of a model that need no weights."""

    def __init__(self, job: Job) -> None:
        from rpbert.data.words import SPLITTERS
        from rpbert.evidence.describers import describers
        from rpbert.storage.model_folder import TaggingModel

        model = TaggingModel.load(job.model)
        check_model(job)
        model.system.to("meta")
        model.describers = describers(model.options, job.captioner, job.ocr)
        self.job, self.collator = job, model.collator()
        self.splitter = SPLITTERS[model.vocabulary.marks]

    def __call__(self, rows: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for number, source in zip(rows["number"], rows["source"], strict=True):
            for piece in self._read(int(number), Shard(Path(str(source)), Path())):
                yield _column(piece)

    def _read(self, number: int, shard: Shard) -> Iterator[_Begun | _Packed | _Ended]:
        from rpbert.data.collate import by_length, windows

        source, end = source_of(shard, self.job), _Ended(number)
        yield _Begun(number, source)
        posts = read_posts(shard, self.job, self.splitter, end)
        for window in windows(posts, self.job.batch_size):
            groups = by_length(self.collator.lengths(window), self.job.batch_size)
            for places in groups:
                batch = self.collator([window[place] for place in places])
                bare = tuple(p.with_(images=(PostImage(),)) for p in batch.posts)
                packed = replace(batch, posts=bare)
                yield _Packed(number, end.windows, len(groups), places, packed)
            end.windows += 1
        check_unchanged(shard, self.job, source, end)
        yield end


class _Tagger:
    """Runs the model on packed batches."""

    def __init__(self, job: Job, device: str, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.decoder = loaded(job, device).tagger.decoder

    def __call__(self, rows: dict[str, Any]) -> Iterator[dict[str, Any]]:
        from rpbert.inference import prediction_of

        for piece in rows["piece"]:
            if not isinstance(piece, _Packed):
                yield _column(piece)
                continue
            decoded = self.decoder.decode_batch(piece.batch)
            pairs = zip(piece.batch.posts, decoded, strict=True)
            predictions = [prediction_of(post, answer) for post, answer in pairs]
            where = (piece.shard, piece.window, piece.batches, piece.places)
            yield _column(_Tagged(*where, predictions))


def _column(piece: object) -> dict[str, Any]:
    import numpy as np

    column = np.empty(1, dtype=object)
    column[0] = piece
    return {"piece": column}


def _writing(number: int, shard: Shard, job: Job) -> _Writer:
    """Takes the pieces of a shard in any order, and writes them in theirs."""
    source: Source | None = None
    end: _Ended | None = None
    windows: dict[int, list[_Tagged]] = {}
    written = 0
    event: Event | None = None
    with opened(shard, job.format) as output:
        while source is None or end is None or written < end.windows:
            piece = yield event
            event = None
            match piece:
                case _Begun():
                    source = piece.source
                case _Ended():
                    end = piece
                case _Tagged():
                    windows.setdefault(piece.window, []).append(piece)
            before = output.rows
            while written in windows and len(windows[written]) == windows[written][0].batches:
                for prediction in _in_order(windows.pop(written)):
                    output.add(prediction)
                written += 1
            if output.rows > before:
                rows = max(source.rows if source else 0, output.rows)
                event = Step(number, output.rows - before, output.rows / rows)
        for fault in end.faults:
            output.fault(fault)
        if end.broken is not None:
            output.break_off(end.broken)
    record(shard, job, source, output.tally)
    yield Done(number, output.tally)


def _in_order(pieces: Sequence[_Tagged]) -> list[Prediction]:
    """The predictions of a window as its posts stood in it."""
    found = {
        place: prediction
        for piece in pieces
        for place, prediction in zip(piece.places, piece.predictions, strict=True)
    }
    return [found[place] for place in sorted(found)]


@contextmanager
def connected(workers: int) -> Iterator[None]:
    """The Ray this process is connected to, else that of ``RAY_ADDRESS``, else one of our own.

    Our own listens on this machine only and ends with the run; where Ray was imported before,
    its settings were read by then, and it starts with Ray's own.

    Raises:
        InputError: Ray is not installed.
    """
    alone = "RAY_ADDRESS" not in os.environ
    if alone and "ray" not in sys.modules:
        for name, value in _ALONE.items():
            os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        found, hint = "no ray", "pip install 'rpbert[ray]'"
        raise InputError("--engine ray", found, "the extra", hint) from None
    if ray.is_initialized():
        yield
        return
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        own = {
            "address": "local",
            "include_dashboard": False,
            "num_cpus": max(os.cpu_count() or 1, 2 * workers),
            "object_store_memory": _OBJECT_STORE,
            "_node_ip_address": "127.0.0.1",
            "_temp_dir": folder,  # a short name: sockets lie below it
        }
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **(own if alone else {}))
        try:
            yield
        finally:
            ray.shutdown()


def _fault(error: BaseException | None) -> InputError | None:
    """The `InputError` that another process raised, if that is what it was."""
    while error is not None and not isinstance(error, InputError):
        error = getattr(error, "cause", None) or error.__cause__
    return error
