"""Hostile images and shards through `predict`: none stops it, none changes a neighbour."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests import hostile
from tests.batch.made import Tag, answers, assert_same, lines, rows, write
from tests.soak import Soak

EVERY = 10
"""One post in so many is a good one."""
IMAGES = pytest.mark.slow("mutated JPEG, PNG, GIF, WEBP through predict", "5,000")
SHARDS = pytest.mark.slow("malformed JSON lines, Parquet, tars through predict", "500")


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow remarks on what it meets
@pytest.mark.parametrize("count", [200, pytest.param(5_000, marks=IMAGES)])
def test_mutated_images_harm_no_neighbour(tag: Tag, tmp_path: Path, soak: Soak, count: int) -> None:
    good = [row for row in rows(3 * count // EVERY, 5) if "image" in row]
    given = []
    for number, image in enumerate(hostile.images(count)):
        if number % EVERY == 0:
            given.append(good[number // EVERY])
        given.append({"id": f"m{number}", "text": "Ada at Lake Como", "image": image})
    shards = 1 + count // 1_000
    for shard in range(shards):
        write(tmp_path / "in" / f"{shard}.tar", given[shard::shards])
        kept = [row for row in given[shard::shards] if row["id"][0] != "m"]
        write(tmp_path / "good" / f"{shard}.tar", kept)
    summary = tag(tmp_path / "in", tmp_path / "out")
    tag(tmp_path / "good", tmp_path / "calm")
    found = answers(tmp_path / "out")
    assert sorted(row["id"] for row in found) == sorted(row["id"] for row in given)
    assert summary.whole
    status = Counter(row["image"] for row in found if row["id"][0] == "m")
    assert status.keys() == {"used", "unreadable"}
    assert min(status.values()) > count // 20
    neighbours = [row for row in found if row["id"][0] != "m"]
    worst = assert_same(neighbours, answers(tmp_path / "calm"))
    assert {row["image"] for row in neighbours} == {"used"}
    soak(
        f"{status['used']:,} used, {status['unreadable']:,} unreadable; the entities of "
        f"{len(neighbours):,} neighbours equal, scores within {worst:.0e}"
    )


def spans(row: dict[str, Any]) -> list[tuple[int, int, str]]:
    return [(entity["start"], entity["end"], entity["label"]) for entity in row["entities"]]


@pytest.mark.parametrize("count", [40, pytest.param(500, marks=SHARDS)])
def test_broken_shards_stop_no_run(tag: Tag, tmp_path: Path, soak: Soak, count: int) -> None:
    draw = random.Random(count)
    kinds = (".jsonl", ".parquet", ".tar")
    for number in range(count):
        suffix = kinds[number % 3]
        given = rows(6, number, images=suffix != ".jsonl")
        write(tmp_path / "in" / f"{number:04}{suffix}", given)
    tag(tmp_path / "in", tmp_path / "calm")
    calm = {row["id"]: row for row in answers(tmp_path / "calm")}
    assert len(calm) == 6 * count
    for path in (tmp_path / "in").glob("*.*"):
        path.write_bytes(hostile.mutated(path.read_bytes(), draw, hostile.SYNTAX, 4))
    summary = tag(tmp_path / "in", tmp_path / "out")
    assert summary.shards == count
    faults: Counter[str] = Counter()
    same = 0
    for file in sorted((tmp_path / "out").glob("*.meta.json")):
        side = json.loads(file.read_text())
        output = file.with_name(side["output"]["name"])
        listed = output.with_suffix(".errors.jsonl")
        assert listed.exists() == bool(side["errors"] or side["broken"])
        for fault in lines(listed) if listed.exists() else []:
            assert fault["file"] == side["input"]["name"]
            assert fault["reason"].startswith("found ")
            assert fault["reason"].isprintable()
            faults[Path(fault["file"]).suffix] += 1
        for row in lines(output):  # a text that came through, without an image, has its answer
            whole = calm.get(row["id"], {"text": None})
            if (row["text"], row["image"]) == (whole["text"], "none") and whole["image"] == "none":
                assert spans(row) == spans(whole)
                same += 1
    assert all(faults[suffix] > count // 10 for suffix in kinds)
    assert same > count
    counts = ", ".join(f"{faults[suffix]} of {suffix}" for suffix in kinds)
    soak(f"{counts} told; {same:,} posts that came through keep their entities")


MEASURE = """
import json, resource, sys, time
from pathlib import Path
from rpbert.data.images import load_image
load_image(Path(sys.argv[1]))  # Pillow and its formats are loaded
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
started = time.perf_counter()
status = load_image(Path(sys.argv[2])).status
seconds = time.perf_counter() - started
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
print(json.dumps([status, seconds, grown]))
"""


@pytest.mark.slow("bombs: huge claims, renamed PDF, SVG, EPS, …", f"{len(hostile.bombs())}")
def test_a_bomb_takes_neither_time_nor_memory(tmp_path: Path, soak: Soak) -> None:
    """Each in a process of its own, whose highest mark of memory is compared."""
    good = tmp_path / "good.png"
    good.write_bytes(rows(1)[0]["image"])
    seconds, grown = 0.0, 0.0
    for number, make in enumerate(hostile.bombs().values()):
        path = tmp_path / f"{number}.jpg"  # under the name of an honest kind
        path.write_bytes(make())
        command = [sys.executable, "-c", MEASURE, str(good), str(path)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        status, took, more = json.loads(said)
        assert status == "unreadable"
        seconds, grown = max(seconds, took), max(grown, more)
    soak(f"all unreadable; {1000 * seconds:.0f} ms and {grown:.1f} MB at most")
    assert seconds < 1
    assert grown < 64
