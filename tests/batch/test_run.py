"""Shards tagged in one process: what is written and resumed, and that nothing is half written."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from rpbert import Entity, InputError, Prediction
from rpbert.batch import Event, Format, Shard
from rpbert.batch.output import opened
from rpbert.batch.run import tag_into, tag_locally
from rpbert.types import SourceScore
from tests.batch.made import Tag, answers, assert_same, bytes_of, lines, parquet, rows, write
from tests.hostile import SYNTAX, mutated
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
        assert parquet(tmp_path / "parquet" / f"{name}.parquet") == lines(output / f"{name}.jsonl")
    side = json.loads((output / "c.meta.json").read_text())
    for key, file in (("input", source / "c.tar"), ("output", output / "c.jsonl")):
        content = file.read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        assert side[key] == {"name": file.name, "bytes": len(content), "sha256": sha256}
    assert (side["format"], side["rows"], side["errors"], side["broken"]) == (1, 6, 0, "")
    assert side["settings"] == {"format": "jsonl", "precision": "fp32", "batch_size": 5}
    manifest = (tag.model / "manifest.json").read_bytes()
    assert side["model"] == hashlib.sha256(manifest).hexdigest()


def test_a_changed_finished_shard_is_refused(tag: Tag, source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    tag(source, output)
    side = json.loads((output / "a.meta.json").read_text())
    for path, content, named in (
        (source / "a.jsonl", (source / "a.jsonl").read_text() + "\n", "in/a.jsonl"),
        (output / "c.jsonl", None, "out/c.jsonl"),
        (output / "a.meta.json", "{", "a.meta.json"),
        (output / "a.meta.json", {"format": 2}, "a.meta.json"),
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
    endless = {"id": "long", "text": "a" * 2_000_000}  # one word, which takes no endless time
    good = [*rows(5, 1, images=False), endless]
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


def test_broken_shards_stop_no_run_and_change_no_other_post(tag: Tag, tmp_path: Path) -> None:
    kinds, draw = (".jsonl", ".parquet", ".tar"), random.Random(40)
    for number in range(40):
        given = rows(6, number, images=number % 3 > 0)
        write(tmp_path / "in" / f"{number:02}{kinds[number % 3]}", given)
    tag(tmp_path / "in", tmp_path / "calm")
    calm = {row["id"]: row for row in answers(tmp_path / "calm")}
    for path in (tmp_path / "in").iterdir():
        path.write_bytes(mutated(path.read_bytes(), draw, SYNTAX, 4))
    assert tag(tmp_path / "in", tmp_path / "out").shards == 40
    faults = [fault for path in (tmp_path / "out").glob("*.errors.jsonl") for fault in lines(path)]
    counts = Counter(Path(fault["file"]).suffix for fault in faults)
    assert all(counts[suffix] > 4 for suffix in kinds)
    assert all(fault["reason"].isprintable() for fault in faults)
    through = [
        (found, whole)  # a text that came through, without an image, has its answer
        for found in answers(tmp_path / "out")
        for whole in [calm.get(found["id"], {"text": None, "image": ""})]
        if (found["text"], found["image"], "none") == (whole["text"], "none", whole["image"])
    ]
    assert len(through) > 40
    assert_same(*zip(*through, strict=True))


def test_what_vanishes_or_changes_meanwhile_is_seen(
    tag: Tag, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard, which harms no other; every input; the model."""

    def vanishing(job: Any, shards: Any) -> Iterator[Event]:
        (source / "b.parquet").unlink()
        return tag.here(job, shards)

    def writing(tagger: Any, job: Any, shard: Any, output: Any) -> Iterator[int]:
        yield from tag_into(tagger, job, shard, output)
        shard.source.write_bytes(shard.source.read_bytes() + b"\n")

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


@pytest.mark.parametrize(
    ("format", "fault"),
    [("jsonl", "full"), ("parquet", "broken"), ("jsonl", "power"), ("parquet", "kill")],
)
def test_a_run_that_ends_at_any_moment_leaves_whole_files_and_goes_on(
    tag: Tag, tmp_path: Path, format: Format, fault: Fault
) -> None:
    """Of two shards, with a faulty row, over a disk that fails."""
    output = tmp_path / "out"
    path = write(tmp_path / "in" / "a.jsonl", rows(3, 1, images=False))
    path.write_text(path.read_text() + "{\n")
    write(tmp_path / "in" / "b.jsonl", rows(3, 2, images=False))
    run = partial(tag, tmp_path / "in", output, format=format)

    def on(disk: FaultyDisk) -> None:
        with disk.in_place():
            run()

    counted = FaultyDisk(output, -1, fault)
    on(counted)
    assert counted.count > 20
    whole, ended = bytes_of(output), fault in ("kill", "power")
    for number in range(counted.count):
        for file in output.iterdir():
            file.unlink()
        code = outcome(partial(on, FaultyDisk(output, number, fault)))
        assert code == (KILLED if ended else REFUSED), number
        left = bytes_of(output).items()
        half = (".new", ".lock") if ended else ()
        assert {(k, v) for k, v in left if not k.endswith(half)} <= whole.items(), number
        run(resume=True)
        assert {k: v for k, v in bytes_of(output).items() if not k.endswith(".lock")} == whole


def test_parquet_has_columns_and_bounded_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entities, sources = [Entity("Ada", "PER", 0, 3, 0.5)], (SourceScore("blocks", 1, 0.5),)
    prediction = Prediction("1", "Ada", entities, None, "unreadable", "empty file", sources)
    monkeypatch.setattr("rpbert.batch.output.GROUP_CHARACTERS", 7)  # of three letters each
    shard = Shard(tmp_path / "in.jsonl", tmp_path / "x.parquet")
    with opened(shard, "parquet") as output:
        for _ in range(7):
            output.add(prediction)
    assert parquet(shard.output) == [prediction.to_dict()] * 7
    written = pq.ParquetFile(shard.output)
    groups = [written.metadata.row_group(i).num_rows for i in range(written.num_row_groups)]
    assert groups == [3, 3, 1]
