"""Hostile images through `predict`: none stops it, none changes a neighbour, none takes much."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rpbert import Tagger
from rpbert.data.images import load_image
from tests.batch.hostile_images import bombs, mutated
from tests.batch.made import Loaded, answers, assert_same, job_of, rows, tagged, write_tar
from tests.soak import Soak

EVERY = 10
"""One post in so many is a good one."""


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow remarks on what it meets
@pytest.mark.parametrize(
    "count",
    [
        200,
        pytest.param(
            5_000, marks=pytest.mark.slow("mutated JPEG, PNG, GIF, WEBP through predict", "5,000")
        ),
    ],
)
def test_mutated_images_harm_no_neighbour(
    model: Path, tmp_path: Path, soak: Soak, count: int
) -> None:
    good = [row for row in rows(3 * count // EVERY, 5) if "image" in row]
    given = []
    for number, image in enumerate(mutated(count)):
        if number % EVERY == 0:
            given.append(good[number // EVERY])
        given.append({"id": f"m{number}", "text": "Ada at Lake Como", "image": image})
    shards = 1 + count // 1_000
    for shard in range(shards):
        write_tar(tmp_path / "in" / f"{shard}.tar", given[shard::shards])
        kept = [row for row in given[shard::shards] if row["id"][0] != "m"]
        write_tar(tmp_path / "good" / f"{shard}.tar", kept)
    engine, job = Loaded(Tagger.from_pretrained(model, "cpu")), job_of(model)
    summary = tagged(tmp_path / "in", tmp_path / "out", job, engine)
    tagged(tmp_path / "good", tmp_path / "calm", job, engine)
    found = answers(tmp_path / "out")
    assert sorted(row["id"] for row in found) == sorted(row["id"] for row in given)
    assert summary.whole
    hostile = [row["image"] for row in found if row["id"][0] == "m"]
    used, unreadable = hostile.count("used"), hostile.count("unreadable")
    assert used + unreadable == count
    assert min(used, unreadable) > count // 20
    neighbours = [row for row in found if row["id"][0] != "m"]
    worst = assert_same(neighbours, answers(tmp_path / "calm"))
    assert {row["image"] for row in neighbours} == {"used"}
    soak(
        f"{used:,} used, {unreadable:,} unreadable; the entities of {len(neighbours):,} neighbours "
        f"equal, scores within {worst:.0e}"
    )


@pytest.mark.parametrize("name", bombs())
def test_a_bomb_is_unreadable(name: str) -> None:
    content = bombs()[name]()
    loaded = load_image(content)
    assert (loaded.status, loaded.pixels) == ("unreadable", None)
    assert loaded.reason == " ".join(loaded.reason.split())


MEASURE = """
import json, resource, sys, time
from pathlib import Path
from rpbert.data.images import load_image
load_image(Path(sys.argv[1]))  # Pillow and its formats are loaded
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
started = time.perf_counter()
loaded = load_image(Path(sys.argv[2]))
seconds = time.perf_counter() - started
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
print(json.dumps([loaded.status, seconds, grown, loaded.reason]))
"""


@pytest.mark.slow("bombs: huge claims, renamed PDF, SVG, EPS, …", f"{len(bombs())}")
def test_a_bomb_takes_neither_time_nor_memory(tmp_path: Path, soak: Soak) -> None:
    """Each in a process of its own, whose highest mark of memory is compared."""
    good = tmp_path / "good.png"
    good.write_bytes(rows(1)[0]["image"])
    seconds, grown = 0.0, 0.0
    for number, make in enumerate(bombs().values()):
        path = tmp_path / f"{number}.jpg"  # under the name of an honest kind
        path.write_bytes(make())
        command = [sys.executable, "-c", MEASURE, str(good), str(path)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        status, took, more, _ = json.loads(said)
        assert status == "unreadable"
        seconds, grown = max(seconds, took), max(grown, more)
    soak(f"all unreadable; {1000 * seconds:.0f} ms and {grown:.1f} MB at most")
    assert seconds < 1
    assert grown < 64
