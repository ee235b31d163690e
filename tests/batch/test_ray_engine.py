"""The same work on Ray: the same bytes, faults and all."""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from rpbert import InputError
from rpbert.batch import Done, Step, Tally
from rpbert.batch.finished import Source
from rpbert.batch.ray_engine import RayEngine, _Begun, _Ended, _fault, _Tagged, _writing, connected
from rpbert.types import Prediction
from tests.batch.made import (
    bytes_of,
    job_of,
    lines,
    rows,
    shards_of,
    tagged,
    write_jsonl,
    write_parquet,
    write_tar,
)


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    if importlib.util.find_spec("ray") is None:  # not imported: its settings are ours to make
        pytest.skip("ray is not installed")
    with connected(1):
        yield


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Shards of every kind, of several windows, with posts that fail and one that breaks off."""
    path = write_jsonl(tmp_path / "in" / "a.jsonl", rows(90, 1))
    path.write_text(path.read_text() + '{"id": 5\n')
    write_parquet(tmp_path / "in" / "b.parquet", rows(30, 2))
    whole = write_tar(tmp_path / "in" / "c.tar", rows(20, 3))
    write_tar(tmp_path / "in" / "d.tar", [])
    broken = tmp_path / "in" / "e.tar"
    broken.write_bytes(whole.read_bytes()[:8192])
    return tmp_path / "in"


def test_ray_writes_what_one_process_writes(
    ray: None, source: Path, model: Path, tmp_path: Path
) -> None:
    job = job_of(model, batch_size=4)  # windows of 64 posts
    alone = tagged(source, tmp_path / "alone", job)
    shared = tagged(source, tmp_path / "shared", job, RayEngine(1))
    assert bytes_of(tmp_path / "shared") == bytes_of(tmp_path / "alone")
    assert shared == alone
    assert (shared.errors, list(shared.broken)) == (1, ["e.tar"])


@pytest.mark.slow("a strict run on Ray stops at the first fault", "2 shards")
def test_what_a_reader_finds_at_fault_stops_the_run(ray: None, model: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in" / "a.jsonl", rows(5, 1, images=False))
    (tmp_path / "in" / "b.jsonl").write_text("{\n")
    with pytest.raises(InputError, match=r"b\.jsonl:1: found no JSON"):
        tagged(tmp_path / "in", tmp_path / "out", job_of(model, lenient=False), RayEngine(1))
    assert not [name for name in bytes_of(tmp_path / "out") if ".new-" in name]


def test_ray_of_our_own_is_closed_to_the_network(ray: None) -> None:
    children = psutil.Process().children(recursive=True)
    listening = [
        connection.laddr.ip
        for process in children
        if "ray" in " ".join(process.cmdline())
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening
    assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


@pytest.mark.parametrize(
    ("workers", "gpus", "share"), [(1, 0, 0), (1, 1, 1), (4, 2, 0.5), (3, 2, 0.5), (2, 3, 1)]
)
def test_all_models_find_room_on_the_gpus(workers: int, gpus: int, share: float) -> None:
    """Ray puts a model on a single GPU, and takes no share beyond one that is not whole."""
    assert RayEngine(workers, gpus).share() == share
    assert gpus * math.floor(1 / share if share else 0) >= (workers if gpus else 0)


def predictions(*names: str) -> list[Prediction]:
    return [Prediction(name, name, [], None, "none") for name in names]


def test_pieces_that_come_in_any_order_are_written_in_theirs(model: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in" / "a.jsonl", rows(5, 1, images=False))
    (shard,) = shards_of(tmp_path / "in", tmp_path / "out")
    shard.output.parent.mkdir()
    writer = _writing(7, shard, job_of(model))
    next(writer)
    fault = InputError(f"{shard.source}:6", "x", "y")
    events = [
        writer.send(piece)
        for piece in (
            _Tagged(7, 1, 1, [0], predictions("e")),
            _Tagged(7, 0, 2, [3, 1], predictions("d", "b")),
            _Ended(7, 2, [fault]),
            _Begun(7, Source.of(shard.source)),
            _Tagged(7, 0, 2, [2, 0], predictions("c", "a")),
        )
    ]
    assert events == [None, None, None, None, Done(7, Tally(5, 1, {"none": 5}))]
    assert [row["id"] for row in lines(shard.output)] == list("abcde")
    assert lines(shard.errors) == [{"file": "a.jsonl", "line": 6, "reason": "found x; expected y"}]


def test_steps_tell_how_far_a_shard_is(model: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in" / "a.jsonl", rows(4, 1, images=False))
    (shard,) = shards_of(tmp_path / "in", tmp_path / "out")
    shard.output.parent.mkdir()
    writer = _writing(0, shard, job_of(model))
    next(writer)
    writer.send(_Begun(0, Source.of(shard.source)))
    assert writer.send(_Tagged(0, 0, 1, [0], predictions("a"))) == Step(0, 1, 0.25)
    writer.close()
    assert bytes_of(tmp_path / "out") == {}


def test_the_fault_of_another_process_is_found_in_what_ray_raises() -> None:
    fault = InputError("x", "y", "z")
    outer = RuntimeError("task failed")
    outer.__cause__ = fault
    assert _fault(outer) is fault
    assert _fault(RuntimeError("else")) is None
    assert _fault(None) is None
