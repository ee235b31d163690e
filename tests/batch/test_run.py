"""Shards tagged in one process: what is written, what is set aside, and what a resumed run does."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from rpbert import InputError, Tagger
from rpbert.batch import Event
from rpbert.batch.run import tag_into, tag_locally
from tests.batch.made import (
    Loaded,
    answers,
    assert_same,
    bytes_of,
    job_of,
    lines,
    rows,
    tagged,
    write_jsonl,
    write_parquet,
    write_tar,
)


def test_shards_hold_the_predictions_of_each_post(
    source: Path, model: Path, engine: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rpbert.batch.output.GROUP_ROWS", 5)  # several row groups
    output, predict = tmp_path / "out", engine.tagger.predict
    summary = tagged(source, output, job_of(model, batch_size=5))
    expected = [
        {**predict(row["text"], image=row.get("image")).to_dict(), "id": row["id"]}
        for row in [*rows(12, 1), *rows(8, 2), *rows(6, 3)]
    ]
    assert sum(len(row["entities"]) for row in expected) > 26
    assert_same(answers(output), expected)
    assert (summary.shards, summary.skipped, summary.rows, summary.errors) == (3, 0, 26, 0)
    assert summary.images == {"used": 4 + 3 + 2, "none": 8 + 5 + 4}
    assert summary.whole
    tagged(source, tmp_path / "parquet", job_of(model, format="parquet", batch_size=5), engine)
    for name in "abc":
        table = pq.read_table(tmp_path / "parquet" / f"{name}.parquet")
        assert table.to_pylist() == lines(output / f"{name}.jsonl")
    for name, count in (("a.jsonl", 12), ("c.tar", 6)):  # what the output was made from
        side = json.loads((output / name).with_suffix(".meta.json").read_text())
        written = (output / name).with_suffix(".jsonl")
        for key, path in (("input", source / name), ("output", written)):
            content = path.read_bytes()
            sha256 = hashlib.sha256(content).hexdigest()
            assert side[key] == {"name": path.name, "bytes": len(content), "sha256": sha256}
        assert (side["format"], side["rows"], side["errors"], side["broken"]) == (1, count, 0, "")
        assert side["settings"] == {"format": "jsonl", "precision": "fp32", "batch_size": 5}
        manifest = (model / "manifest.json").read_bytes()
        assert side["model"] == hashlib.sha256(manifest).hexdigest()


def test_what_is_finished_stays_and_the_rest_is_done(
    source: Path, model: Path, engine: Loaded, tmp_path: Path
) -> None:
    output, job = tmp_path / "out", job_of(model)
    tagged(source, output, job, engine)
    whole = bytes_of(output)
    with pytest.raises(InputError):  # an earlier output is never written over
        tagged(source, output, job, engine)
    assert bytes_of(output) == whole
    (output / "b.meta.json").unlink()
    (output / "b.jsonl").write_text("half")
    (output / ".c.jsonl.new-99").write_text("of a killed process, whose shard is finished")
    (output / ".b.jsonl.new-99").write_text("of a killed process")
    before = {name: (output / name).stat().st_mtime_ns for name in ("a.jsonl", "c.jsonl")}
    summary = tagged(source, output, job, engine, resume=True)
    assert (summary.shards, summary.skipped, summary.rows) == (1, 2, 26)
    assert {name: (output / name).stat().st_mtime_ns for name in before} == before
    (output / ".c.jsonl.new-99").unlink()
    assert bytes_of(output) == whole


def test_a_finished_shard_that_has_changed_is_refused(
    source: Path, model: Path, engine: Loaded, tmp_path: Path
) -> None:
    output, job = tmp_path / "out", job_of(model)
    tagged(source, output, job, engine)
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
            tagged(source, output, job, engine, resume=True)
        assert named in str(refused.value)
        assert bytes_of(output) == kept
        path.write_text(whole)


def test_posts_that_fail_are_written_down_and_the_others_tagged(
    model: Path, engine: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rpbert.data.readers.WORD_LIMIT", 90)
    source, output, job = tmp_path / "in", tmp_path / "out", job_of(model)
    good = rows(6, 1, images=False)
    path = write_jsonl(source / "a.jsonl", good)
    bad = ["{", '{"id": "x"}', '{"id": "x", "text": "x", "image": "../../etc/passwd"}', "\udcff"]
    bad.append(json.dumps({"id": "x", "text": "x " * 91}))
    kept = path.read_text().splitlines()
    path.write_bytes("\n".join([kept[0], *bad, *kept[1:]]).encode("utf-8", "surrogateescape"))
    write_parquet(source / "empty.parquet", [])
    summary = tagged(source, output, job, engine)
    assert [row["id"] for row in answers(output)] == [row["id"] for row in good]
    faults = lines(output / "a.errors.jsonl")
    words = ("JSON", "text", "below the folder", "0xff", "at most 90")
    for line, fault, word in zip((2, 3, 4, 5, 6), faults, words, strict=True):
        assert (fault["file"], fault["line"], word in fault["reason"]) == ("a.jsonl", line, True)
    assert (summary.shards, summary.rows, summary.errors, summary.whole) == (2, 6, 5, False)
    again = tagged(source, output, job, engine, resume=True)
    assert (again.skipped, again.rows, again.errors, again.whole) == (2, 6, 5, False)
    with pytest.raises(InputError, match=r"a\.jsonl:2"):
        tagged(source, tmp_path / "strict", job_of(model, lenient=False), engine)
    assert bytes_of(tmp_path / "strict") == {}


def test_a_shard_that_breaks_off_is_tagged_as_far_as_it_goes_and_again(
    model: Path, engine: Loaded, tmp_path: Path
) -> None:
    path = write_tar(tmp_path / "in" / "a.tar", rows(20, 1))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2 // 512 * 512])
    job, output = job_of(model), tmp_path / "out"
    summary = tagged(tmp_path / "in", output, job, engine)
    found = [row["id"] for row in answers(output)]
    assert found == [row["id"] for row in rows(20, 1)][: len(found)]
    assert 5 < len(found) < 15
    assert list(summary.broken) == ["a.tar"]
    assert len(lines(output / "a.errors.jsonl")) == 1
    assert tagged(tmp_path / "in", output, job, engine, resume=True).broken == summary.broken
    path.write_bytes(whole)  # its copying has come to an end
    complete = tagged(tmp_path / "in", output, job, engine, resume=True)
    assert (complete.shards, complete.rows, complete.whole) == (1, 20, True)
    assert not (output / "a.errors.jsonl").exists()


def test_what_vanishes_or_changes_meanwhile_is_seen(
    source: Path, model: Path, engine: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard, which harms no other; every input; the model."""

    def vanishing(job: Any, shards: Any) -> Iterator[Event]:
        (source / "b.parquet").unlink()
        return engine(job, shards)

    def writing(tagger: Any, job: Any, shard: Any, output: Any) -> Iterator[int]:
        yield from tag_into(tagger, job, shard, output)
        os.utime(shard.source, ns=(1, shard.source.stat().st_mtime_ns + 1))

    summary = tagged(source, tmp_path / "gone", job_of(model), vanishing)
    assert (summary.rows, list(summary.broken)) == (18, ["b.parquet"])
    shutil.copytree(model, tmp_path / "model")
    job = job_of(tmp_path / "model")
    shutil.rmtree(tmp_path / "model")
    other = Tagger.from_pretrained(model)
    other.model.notes["dev_f1"] = 0.5
    other.save_pretrained(tmp_path / "model")
    with pytest.raises(InputError, match=str(tmp_path / "model")):
        tagged(source, tmp_path / "out", job)
    assert bytes_of(tmp_path / "out") == {}
    monkeypatch.setattr("rpbert.batch.run.tag_into", writing)
    assert len(tagged(source, tmp_path / "out", job_of(model), engine).broken) == 2
    with pytest.raises(InputError, match=r"\.jsonl: "):
        tagged(source, tmp_path / "strict", job_of(model, lenient=False), engine)


def test_a_post_of_one_endless_word_takes_no_endless_time(
    model: Path, engine: Loaded, tmp_path: Path
) -> None:
    given = [*rows(30, 1, images=False), {"id": "long", "text": "a" * 2_000_000}]
    write_jsonl(tmp_path / "in" / "a.jsonl", given)
    assert tagged(tmp_path / "in", tmp_path / "out", job_of(model), engine).rows == 31


def test_progress_adds_up_to_the_posts_and_to_one(model: Path, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "in" / "a.jsonl", rows(150, 1, images=False))
    path.write_text(path.read_text() + "\n")  # a blank line is no post
    write_tar(tmp_path / "in" / "b.tar", rows(70, 2, images=False))
    seen: dict[int, list[Event]] = {0: [], 1: []}

    def watching(job: Any, shards: Any) -> Iterator[Event]:
        for event in tag_locally(job, shards, "cpu"):
            seen[event.shard].append(event)
            yield event

    tagged(tmp_path / "in", tmp_path / "out", job_of(model), watching)
    for number, posts in ((0, 150), (1, 70)):
        assert sum(event.posts for event in seen[number]) == posts
        assert sum(event.share for event in seen[number]) == pytest.approx(1)
        assert [event.tally is None for event in seen[number]] == [True] * (posts // 64) + [False]
