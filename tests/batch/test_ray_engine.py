"""The same shards on Ray: the same bytes, faults and killed actors included."""

from __future__ import annotations

import importlib.util
import math
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from rpbert import InputError
from rpbert.batch import Event, Job, Shard, Tally
from rpbert.batch.ray_engine import connected, gpu_share, tag_on_ray
from tests.batch.made import Tag, bytes_of, rows, write


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    if importlib.util.find_spec("ray") is None:  # not imported: its settings are ours to make
        pytest.skip("ray is not installed")
    with connected(2):
        yield


def killing(job: Job, shards: Sequence[Shard]) -> Iterator[Event]:
    """Ray, of which every worker is killed at the first event."""
    events = tag_on_ray(job, shards)
    yield next(events)
    for process in psutil.Process().children(recursive=True):
        if "_Worker" in " ".join(process.cmdline()):
            process.kill()
    yield from events


def test_ray_writes_the_same_bytes(ray: None, tag: Tag, source: Path, tmp_path: Path) -> None:
    """Shards of every kind, with a post that fails and one that breaks off; a worker is killed."""
    whole = write(source / "d.tar", rows(20, 3)).read_bytes()
    (source / "d.tar").write_bytes(whole[:8192])
    write(source / "e.tar", [])
    path = write(source / "f.jsonl", rows(300, 4, images=False))
    path.write_text(path.read_text() + '{"id": 5\n')
    alone = tag(source, tmp_path / "alone", batch_size=4)
    assert (alone.errors, list(alone.broken)) == (1, ["d.tar"])
    assert tag(source, tmp_path / "killed", killing, batch_size=4) == alone
    assert bytes_of(tmp_path / "killed") == bytes_of(tmp_path / "alone")


@pytest.fixture
def pretended(ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that do what a shard says; of a local class, so they start without PyTorch."""

    class Pretending:
        def __init__(self, job: Job, device: str, threads: int) -> None:
            self.model, self.device = job.model, device

        def load(self) -> None:
            if self.model.name == "deadly":
                os.kill(os.getpid(), signal.SIGKILL)

        def tag(self, number: int, shard: Shard) -> Iterator[Event]:
            yield Event(number, 1)
            said = shard.source.read_text()
            if said == "fault":
                raise InputError("x.jsonl:7", "this", "that")
            if said.startswith("die"):
                shard.output.with_name(f".{shard.output.name}.new").touch()
                if said == "die once":
                    shard.source.write_text("live")
                os.kill(os.getpid(), signal.SIGKILL)
            yield Event(number, 0, Tally(1))

    monkeypatch.setattr("rpbert.batch.ray_engine._Worker", Pretending)


def saying(folder: Path, *said: str) -> list[Shard]:
    """Shards that say what is to be done with them."""
    shards = [Shard(folder / f"{i}.jsonl", folder / f"{i}.out") for i in range(len(said))]
    for shard, what in zip(shards, said, strict=True):
        shard.source.write_text(what)
    return shards


def test_a_shard_that_ends_its_worker_twice_is_lost(pretended: None, tmp_path: Path) -> None:
    shards = saying(tmp_path, "live", "die", "live", "die once", "live")
    events = list(tag_on_ray(Job(tmp_path, ""), shards, workers=2))
    assert sorted(event.shard for event in events if event.tally) == [0, 2, 3, 4]
    assert [event.shard for event in events if event.lost] == [1]
    assert {path.name for path in tmp_path.glob(".*")} == {".1.out.new", ".3.out.new"}  # as killed


def test_a_fault_in_a_worker_stops_the_run(pretended: None, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^x\.jsonl:7: "):
        list(tag_on_ray(Job(tmp_path, ""), saying(tmp_path, "live", "fault"), workers=2))
    with pytest.raises(InputError, match=r"^a worker: "):
        list(tag_on_ray(Job(tmp_path / "deadly", ""), saying(tmp_path, "live")))


def test_ray_of_our_own_is_closed_to_the_network(ray: None) -> None:
    listening = set()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):  # it may end meanwhile
            if "ray" in " ".join(process.cmdline()):
                connections = process.net_connections("tcp")
                listening |= {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN}
    assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


@pytest.mark.parametrize(
    ("workers", "gpus", "share"), [(1, 0, 0), (1, 1, 1), (3, 2, 0.5), (2, 3, 1)]
)
def test_all_models_fit_on_the_gpus(workers: int, gpus: int, share: float) -> None:
    """Ray puts a model on a single GPU, and takes no share beyond one that is not whole."""
    assert gpu_share(workers, gpus) == share
    assert gpus * math.floor(1 / share if share else 0) >= (workers if gpus else 0)
