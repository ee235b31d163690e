"""Several processes: the same bytes as one, and what their deaths do to a run."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from rpbert import InputError
from rpbert.batch import Done, Event, Job, Lost, Shard, Step
from rpbert.batch.processes import Processes
from tests.batch import pretending
from tests.batch.made import bytes_of, job_of, rows, tagged, write_jsonl, write_tar


def workers() -> list[Any]:
    """The processes this one has started, other than helpers of the interpreter."""
    children = psutil.Process().children()
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


class Killing(Processes):
    """Kills every process at the first step that is told."""

    killed = False

    def run(self, job: Job, shards: Sequence[Shard]) -> Iterator[Event]:
        for event in super().run(job, shards):
            if isinstance(event, Step) and not Killing.killed:
                Killing.killed = True
                for worker in workers():
                    worker.send_signal(signal.SIGKILL)
            yield event


def test_processes_write_what_one_writes_and_dead_ones_are_replaced(
    model: Path, tmp_path: Path
) -> None:
    for number in range(3):
        write_jsonl(tmp_path / "in" / f"{number}.jsonl", rows(150, number, images=False))
    write_tar(tmp_path / "in" / "4.tar", rows(40, 4))
    tagged(tmp_path / "in", tmp_path / "one", job_of(model))
    summary = tagged(tmp_path / "in", tmp_path / "two", job_of(model), Killing(2, 0))
    assert Killing.killed
    assert bytes_of(tmp_path / "two") == bytes_of(tmp_path / "one")
    assert (summary.shards, summary.rows, summary.whole) == (4, 490, True)
    assert workers() == []


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr("rpbert.batch.processes._work", pretending.work)
    return tmp_path


def shards(folder: Path, *said: str) -> list[Shard]:
    """Shards that say what is to be done with them."""
    found = []
    for number, what in enumerate(said):
        source = folder / f"{number}.jsonl"
        source.write_text(what)
        found.append(Shard(source, folder / f"{number}.out"))
    return found


def test_a_shard_that_ends_its_process_twice_is_given_up(pretended: Path) -> None:
    given = shards(pretended, "live", "die", "live", "die once", "live")
    events = list(Processes(2, 0).run(Job(Path(), ""), given))
    assert sorted(event.shard for event in events if isinstance(event, Done)) == [0, 2, 3, 4]
    lost = [event for event in events if isinstance(event, Lost)]
    assert lost == [Lost(1, "its worker ended twice, by signal SIGKILL")]
    assert not list(pretended.glob(".*"))
    assert workers() == []


def test_what_a_process_finds_at_fault_stops_them_all(pretended: Path) -> None:
    with pytest.raises(InputError, match=r"x\.jsonl:7: found this; expected that; do so$"):
        list(Processes(2, 0).run(Job(Path(), ""), shards(pretended, "live", "fault", "live")))
    assert workers() == []


@pytest.mark.parametrize("count", [1, 2])
def test_a_process_that_dies_while_it_loads_is_replaced(pretended: Path, count: int) -> None:
    model = pretended / pretending.FIRST_LOADER
    model.touch()
    events = list(Processes(count, 0).run(Job(model, ""), shards(pretended, *["live"] * 3)))
    assert sorted(event.shard for event in events if isinstance(event, Done)) == [0, 1, 2]
    assert workers() == []


def test_processes_that_go_on_dying_while_they_load_stop_the_run(pretended: Path) -> None:
    with pytest.raises(InputError, match="its end, by signal SIGKILL, while it loaded, twice"):
        list(Processes(1, 0).run(Job(pretending.NO_MODEL, ""), shards(pretended, "live")))


def test_a_run_that_is_left_in_the_middle_leaves_no_process(pretended: Path) -> None:
    events = Processes(2, 0).run(Job(Path(), ""), shards(pretended, *["live"] * 9))
    next(events)
    assert len(workers()) == 2
    events.close()  # type: ignore[attr-defined]
    assert workers() == []


@pytest.mark.parametrize(
    ("count", "gpus", "devices"),
    [
        (2, 0, {"cpu of 2"}),
        (3, 2, {"cuda:0 of 3", "cuda:1 of 3"}),
        (2, None, {"None of 2"}),
    ],
)
def test_gpus_are_shared_evenly(
    pretended: Path, count: int, gpus: int | None, devices: set[str]
) -> None:
    given = shards(pretended, *["live"] * 12)
    list(Processes(count, gpus).run(Job(Path(), ""), given))
    assert {shard.output.read_text() for shard in given} <= devices
