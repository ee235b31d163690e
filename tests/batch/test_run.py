"""Shards tagged in one process: what is written and resumed, and that nothing is half written."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from rpbert import Entity, InputError, Prediction
from rpbert.batch import Event, Format, Shard
from rpbert.batch.output import FORMATS, opened
from rpbert.batch.run import tag_into, tag_locally
from tests.batch.made import Tag, answers, bytes_of, lines, rows, write
from tests.killing import KILLED, REFUSED, Fault, FaultyDisk, outcome


def test_shards_of_every_kind_and_what_they_were_made_from(
    tag: Tag, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rpbert.batch.output.GROUP_ROWS", 5)  # several row groups
    output = tmp_path / "out"
    summary = tag(source, output, batch_size=5)
    assert [row["id"] for row in answers(output)] == [
        row["id"] for row in [*rows(12, 1), *rows(8, 2), *rows(6, 3)]
    ]
    assert (summary.shards, summary.skipped, summary.rows, summary.errors) == (3, 0, 26, 0)
    assert summary.images == {"used": 4 + 3 + 2, "none": 8 + 5 + 4}
    assert summary.whole
    tag(source, tmp_path / "parquet", format="parquet", batch_size=5)
    for name in "abc":
        table = pq.read_table(tmp_path / "parquet" / f"{name}.parquet")
        assert table.to_pylist() == lines(output / f"{name}.jsonl")
    for path, count in ((source / "a.jsonl", 12), (source / "c.tar", 6)):
        side = json.loads((output / path.name).with_suffix(".meta.json").read_text())
        for key, file in (("input", path), ("output", output / f"{path.stem}.jsonl")):
            content = file.read_bytes()
            sha256 = hashlib.sha256(content).hexdigest()
            assert side[key] == {"name": file.name, "bytes": len(content), "sha256": sha256}
        assert (side["format"], side["rows"], side["errors"], side["broken"]) == (1, count, 0, "")
        assert side["settings"] == {"format": "jsonl", "precision": "fp32", "batch_size": 5}
        manifest = (tag.model / "manifest.json").read_bytes()
        assert side["model"] == hashlib.sha256(manifest).hexdigest()


def test_what_is_finished_stays_the_rest_is_done(tag: Tag, source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    tag(source, output)
    whole = bytes_of(output)
    with pytest.raises(InputError):  # an earlier output is never written over
        tag(source, output)
    assert bytes_of(output) == whole
    (output / "b.meta.json").unlink()
    (output / "b.jsonl").write_text("half")
    (output / ".c.jsonl.new-99").write_text("of a killed process, whose shard is finished")
    (output / ".b.jsonl.new-99").write_text("of a killed process")
    before = {name: (output / name).stat().st_mtime_ns for name in ("a.jsonl", "c.jsonl")}
    summary = tag(source, output, resume=True)
    assert (summary.shards, summary.skipped, summary.rows) == (1, 2, 26)
    assert {name: (output / name).stat().st_mtime_ns for name in before} == before
    (output / ".c.jsonl.new-99").unlink()
    assert bytes_of(output) == whole


def test_a_changed_finished_shard_is_refused(tag: Tag, source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    tag(source, output)
    side = json.loads((output / "a.meta.json").read_text())
    for path, content, named in (
        (source / "a.jsonl", (source / "a.jsonl").read_text() + "\n", "in/a.jsonl"),
        (output / "b.jsonl", (output / "b.jsonl").read_text() + "\n", "out/b.jsonl"),
        (output / "c.jsonl", None, "out/c.jsonl"),
        (output / "a.meta.json", "{", "a.meta.json"),
        (output / "a.meta.json", "[]", "a.meta.json"),
        (output / "a.meta.json", {"format": 2}, "a.meta.json"),
        (output / "a.meta.json", {"output": {}}, "a.meta.json"),
        (output / "a.meta.json", {"images": {"used": "1"}}, "a.meta.json"),
        (output / "a.meta.json", {"settings": {"batch_size": 8}}, "'batch_size': 32"),
        (output / "a.meta.json", {"model": "another"}, "a.meta.json"),
        (output / "a.meta.json", {"errors": 1}, "a.errors.jsonl"),
    ):
        whole = path.read_text()
        path.write_text(json.dumps(side | content) if isinstance(content, dict) else content or "")
        if content is None:
            path.unlink()
        kept = bytes_of(output)
        with pytest.raises(InputError) as refused:
            tag(source, output, resume=True)
        assert named in str(refused.value)
        assert bytes_of(output) == kept
        path.write_text(whole)


def test_posts_that_fail_are_written_down_and_the_others_tag(
    tag: Tag, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rpbert.data.readers.WORD_LIMIT", 90)
    source, output = tmp_path / "in", tmp_path / "out"
    good = rows(6, 1, images=False)
    path = write(source / "a.jsonl", good)
    bad = ["{", '{"id": "x"}', '{"id": "x", "text": "x", "image": "../../etc/passwd"}', "\udcff"]
    bad.append(json.dumps({"id": "x", "text": "x " * 91}))
    kept = path.read_text().splitlines()
    path.write_bytes("\n".join([kept[0], *bad, *kept[1:]]).encode("utf-8", "surrogateescape"))
    write(source / "empty.parquet", [])
    summary = tag(source, output)
    assert [row["id"] for row in answers(output)] == [row["id"] for row in good]
    faults = lines(output / "a.errors.jsonl")
    words = ("JSON", "text", "below the folder", "0xff", "at most 90")
    for line, fault, word in zip((2, 3, 4, 5, 6), faults, words, strict=True):
        assert (fault["file"], fault["line"], word in fault["reason"]) == ("a.jsonl", line, True)
    assert (summary.shards, summary.rows, summary.errors, summary.whole) == (2, 6, 5, False)
    again = tag(source, output, resume=True)
    assert (again.skipped, again.rows, again.errors, again.whole) == (2, 6, 5, False)
    with pytest.raises(InputError, match=r"a\.jsonl:2"):
        tag(source, tmp_path / "strict", lenient=False)
    assert bytes_of(tmp_path / "strict") == {}


def test_a_shard_that_breaks_off_is_tagged_so_far_and_again(tag: Tag, tmp_path: Path) -> None:
    path = write(tmp_path / "in" / "a.tar", rows(20, 1))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2 // 512 * 512])
    output = tmp_path / "out"
    summary = tag(tmp_path / "in", output)
    found = [row["id"] for row in answers(output)]
    assert found == [row["id"] for row in rows(20, 1)][: len(found)]
    assert 5 < len(found) < 15
    assert list(summary.broken) == ["a.tar"]
    assert len(lines(output / "a.errors.jsonl")) == 1
    assert tag(tmp_path / "in", output, resume=True).broken == summary.broken
    path.write_bytes(whole)  # its copying has come to an end
    complete = tag(tmp_path / "in", output, resume=True)
    assert (complete.shards, complete.rows, complete.whole) == (1, 20, True)
    assert not (output / "a.errors.jsonl").exists()


def test_what_vanishes_or_changes_meanwhile_is_seen(
    tag: Tag, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard, which harms no other; every input; the model."""

    def vanishing(job: Any, shards: Any) -> Iterator[Event]:
        (source / "b.parquet").unlink()
        return tag.here(job, shards)

    def writing(tagger: Any, job: Any, shard: Any, output: Any) -> Iterator[int]:
        yield from tag_into(tagger, job, shard, output)
        os.utime(shard.source, ns=(1, shard.source.stat().st_mtime_ns + 1))

    summary = tag(source, tmp_path / "gone", vanishing)
    assert (summary.rows, list(summary.broken)) == (18, ["b.parquet"])
    shutil.copytree(tag.model, tmp_path / "model")
    other = Tag(tmp_path / "model")
    shutil.rmtree(other.model)
    other.tagger.model.notes["dev_f1"] = 0.5
    other.tagger.save_pretrained(other.model)
    with pytest.raises(InputError, match=str(other.model)):
        other(source, tmp_path / "out", partial(tag_locally, device="cpu"))
    assert bytes_of(tmp_path / "out") == {}
    monkeypatch.setattr("rpbert.batch.run.tag_into", writing)
    assert len(tag(source, tmp_path / "out").broken) == 2
    with pytest.raises(InputError, match=r"\.jsonl: "):
        tag(source, tmp_path / "strict", lenient=False)


def test_a_post_of_one_endless_word_takes_no_endless_time(tag: Tag, tmp_path: Path) -> None:
    given = [*rows(30, 1, images=False), {"id": "long", "text": "a" * 2_000_000}]
    write(tmp_path / "in" / "a.jsonl", given)
    assert tag(tmp_path / "in", tmp_path / "out").rows == 31


def test_progress_adds_up_to_the_posts_and_to_one(tag: Tag, tmp_path: Path) -> None:
    path = write(tmp_path / "in" / "a.jsonl", rows(150, 1, images=False))
    path.write_text(path.read_text() + "\n")  # a blank line is no post
    write(tmp_path / "in" / "b.tar", rows(70, 2, images=False))
    seen: dict[int, list[Event]] = {0: [], 1: []}

    def watching(job: Any, shards: Any) -> Iterator[Event]:
        for event in tag_locally(job, shards, "cpu"):
            seen[event.shard].append(event)
            yield event

    tag(tmp_path / "in", tmp_path / "out", watching)
    for number, posts in ((0, 150), (1, 70)):
        assert sum(event.posts for event in seen[number]) == posts
        assert sum(event.share for event in seen[number]) == pytest.approx(1)
        assert [event.tally is None for event in seen[number]] == [True] * (posts // 64) + [False]


ERRORS = ".a.errors.jsonl"
PREDICTION = Prediction("1", "Ada", [Entity("Ada", "PER", 0, 3, 0.5)], None, "none")


class Faulty:
    """A run of two shards, with a faulty row, over a disk that fails."""

    def __init__(self, tag: Tag, folder: Path, format: Format, fault: Fault) -> None:
        self.output, self.fault = folder / "out", fault
        path = write(folder / "in" / "a.jsonl", rows(3, 1, images=False))
        path.write_text(path.read_text() + "{\n")
        write(folder / "in" / "b.jsonl", rows(3, 2, images=False))
        self.run = partial(tag, folder / "in", self.output, format=format)
        self.counted = FaultyDisk(self.output, -1, fault)
        with self.counted.in_place():
            self.run()
        self.whole = bytes_of(self.output)

    def at(self, number: int) -> dict[str, bytes]:
        """What is left by a run that fails at an operation."""
        for file in self.output.iterdir():
            file.unlink()
        disk = FaultyDisk(self.output, number, self.fault)

        def run() -> None:
            with disk.in_place():
                self.run()

        ended = self.fault in ("kill", "power")
        assert outcome(run) == (KILLED if ended else REFUSED), number
        left = bytes_of(self.output)
        return {name: left[name] for name in left if not (ended and ".new-" in name)}


@pytest.mark.parametrize(
    ("format", "fault"),
    [("jsonl", "full"), ("parquet", "broken"), ("jsonl", "power"), ("parquet", "kill")],
)
def test_a_run_that_ends_at_any_moment_leaves_whole_files_and_goes_on(
    tag: Tag, tmp_path: Path, format: Format, fault: Fault
) -> None:
    faulty = Faulty(tag, tmp_path, format, fault)
    assert faulty.counted.count > 20
    for number in range(faulty.counted.count):
        if number != faulty.counted.opened[ERRORS] or fault in ("kill", "power"):
            assert faulty.at(number).items() <= faulty.whole.items(), number
            faulty.run(resume=True)
            assert bytes_of(faulty.output) == faulty.whole


@pytest.mark.xfail(strict=True, reason="taken for an input that breaks off, it ends in a traceback")
def test_a_file_of_errors_that_cannot_be_opened_is_refused(tag: Tag, tmp_path: Path) -> None:
    faulty = Faulty(tag, tmp_path, "jsonl", "full")
    faulty.at(faulty.counted.opened[ERRORS])


@pytest.mark.parametrize("format", FORMATS)
def test_a_run_that_ends_early_leaves_nothing(tmp_path: Path, format: Format) -> None:
    shard = Shard(tmp_path / "in.jsonl", tmp_path / "out")
    with pytest.raises(KeyboardInterrupt), opened(shard, format) as output:
        output.add(PREDICTION)
        output.fault(InputError(f"{tmp_path}/in.jsonl:7", "x", "y"))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_parquet_has_columns_and_bounded_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rpbert.batch.output.GROUP_CHARACTERS", 7)  # of three letters each
    shard = Shard(tmp_path / "in.jsonl", tmp_path / "x.parquet")
    with opened(shard, "parquet") as output:
        for _ in range(7):
            output.add(PREDICTION)
    assert pq.read_table(shard.output).to_pylist() == [PREDICTION.to_dict()] * 7
    written = pq.ParquetFile(shard.output)
    groups = [written.metadata.row_group(i).num_rows for i in range(written.num_row_groups)]
    assert groups == [3, 3, 1]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a system without /dev/full")
def test_a_device_that_is_really_full(tmp_path: Path) -> None:
    """The kernel's own error, of an output whose new file is that device."""
    shard = Shard(tmp_path / "a.jsonl", tmp_path / "out.jsonl")
    shard.output.with_name(f".out.jsonl.new-{os.getpid()}").symlink_to("/dev/full")
    with pytest.raises(InputError, match=str(shard.output)), opened(shard, "jsonl") as out:
        for _ in range(10_000):
            out.add(PREDICTION)
    assert list(tmp_path.iterdir()) == []
