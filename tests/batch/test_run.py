"""Shards tagged in one process: what is written, what is set aside, and what a resumed run does."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from rpbert import InputError, Tagger
from rpbert.batch import Event
from rpbert.batch.run import tag_into, tag_locally
from tests.batch.made import (
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


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three shards, one of each kind."""
    write_jsonl(tmp_path / "in" / "a.jsonl", rows(20, 1))
    write_parquet(tmp_path / "in" / "b.parquet", rows(15, 2))
    write_tar(tmp_path / "in" / "c.tar", rows(10, 3))
    return tmp_path / "in"


@pytest.fixture
def other(model: Path, tmp_path: Path) -> Path:
    """A model of the same weights and other notes."""
    tagger = Tagger.from_pretrained(model)
    tagger.model.notes["dev_f1"] = 0.5
    tagger.save_pretrained(tmp_path / "other")
    return tmp_path / "other"


def test_shards_hold_the_predictions_of_each_post(
    source: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rpbert.batch.output.GROUP_ROWS", 8)  # several row groups
    summary = tagged(source, tmp_path / "out", job_of(model))
    tagger = Tagger.from_pretrained(model, "cpu")
    expected = [
        {**tagger.predict(row["text"], image=row.get("image")).to_dict(), "id": row["id"]}
        for row in [*rows(20, 1), *rows(15, 2), *rows(10, 3)]
    ]
    assert sum(len(row["entities"]) for row in expected) > 45
    assert_same(answers(tmp_path / "out"), expected)
    assert (summary.shards, summary.skipped, summary.rows, summary.errors) == (3, 0, 45, 0)
    assert summary.images == {"used": 7 + 5 + 4, "none": 13 + 10 + 6}
    assert summary.whole
    tagged(source, tmp_path / "parquet", job_of(model, format="parquet"))
    for name in "abc":
        table = pq.read_table(tmp_path / "parquet" / f"{name}.parquet")
        assert table.to_pylist() == lines(tmp_path / "out" / f"{name}.jsonl")


def test_the_side_file_says_what_the_output_was_made_from(
    source: Path, model: Path, tmp_path: Path
) -> None:
    tagged(source, tmp_path / "out", job_of(model, batch_size=5))
    for name, output, count in (("a.jsonl", "a.jsonl", 20), ("c.tar", "c.jsonl", 10)):
        side = json.loads((tmp_path / "out" / name).with_suffix(".meta.json").read_text())
        for key, path in (("input", source / name), ("output", tmp_path / "out" / output)):
            content = path.read_bytes()
            sha256 = hashlib.sha256(content).hexdigest()
            assert side[key] == {"name": path.name, "bytes": len(content), "sha256": sha256}
        assert (side["format"], side["rows"], side["errors"], side["broken"]) == (1, count, 0, "")
        assert side["settings"] == {"format": "jsonl", "precision": "fp32", "batch_size": 5}
        manifest = (model / "manifest.json").read_bytes()
        assert side["model"] == hashlib.sha256(manifest).hexdigest()


def test_what_is_finished_stays_and_the_rest_is_done(
    source: Path, model: Path, tmp_path: Path
) -> None:
    output, job = tmp_path / "out", job_of(model)
    tagged(source, output, job)
    whole = bytes_of(output)
    with pytest.raises(InputError):  # an earlier output is never written over
        tagged(source, output, job)
    assert bytes_of(output) == whole
    (output / "b.meta.json").unlink()
    (output / "b.jsonl").write_text("half")
    (output / ".c.jsonl.new-99").write_text("of a killed process, whose shard is finished")
    (output / ".b.jsonl.new-99").write_text("of a killed process")
    before = {name: (output / name).stat().st_mtime_ns for name in ("a.jsonl", "c.jsonl")}
    summary = tagged(source, output, job, resume=True)
    assert (summary.shards, summary.skipped, summary.rows) == (1, 2, 45)
    assert {name: (output / name).stat().st_mtime_ns for name in before} == before
    (output / ".c.jsonl.new-99").unlink()
    assert bytes_of(output) == whole


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def edit(output: Path, key: str, value: Any) -> None:
    side = output / "a.meta.json"
    side.write_text(json.dumps({**json.loads(side.read_text()), key: value}))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda source, output: append(source / "a.jsonl"), "in/a.jsonl"),
        (lambda source, output: append(output / "b.jsonl"), "out/b.jsonl"),
        (lambda source, output: (output / "c.jsonl").unlink(), "out/c.jsonl"),
        (lambda source, output: (output / "a.meta.json").write_text("{"), "a.meta.json"),
        (lambda source, output: (output / "a.meta.json").write_text("[]"), "a.meta.json"),
        (lambda source, output: edit(output, "format", 2), "a.meta.json"),
        (lambda source, output: edit(output, "output", {}), "a.meta.json"),
        (lambda source, output: edit(output, "images", {"used": "1"}), "a.meta.json"),
        (lambda source, output: edit(output, "settings", {"batch_size": 8}), "'batch_size': 32"),
        (lambda source, output: edit(output, "model", "another"), "a.meta.json"),
        (lambda source, output: edit(output, "errors", 1), "a.errors.jsonl"),
    ],
)
def test_a_finished_shard_that_has_changed_is_refused(
    source: Path, model: Path, tmp_path: Path, change: Callable[[Path, Path], None], named: str
) -> None:
    tagged(source, tmp_path / "out", job_of(model))
    change(source, tmp_path / "out")
    kept = bytes_of(tmp_path / "out")
    with pytest.raises(InputError) as refused:
        tagged(source, tmp_path / "out", job_of(model), resume=True)
    assert named in str(refused.value)
    assert bytes_of(tmp_path / "out") == kept


def test_posts_that_fail_are_written_down_and_the_others_tagged(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rpbert.data.readers.WORD_LIMIT", 90)
    good = rows(6, 1, images=False)
    path = write_jsonl(tmp_path / "in" / "a.jsonl", good)
    bad = ["{", '{"id": "x"}', '{"id": "x", "text": "x", "image": "../../etc/passwd"}', "\udcff"]
    bad.append(json.dumps({"id": "x", "text": "x " * 91}))
    kept = path.read_text().splitlines()
    path.write_bytes("\n".join([kept[0], *bad, *kept[1:]]).encode("utf-8", "surrogateescape"))
    write_parquet(tmp_path / "in" / "empty.parquet", [])
    summary = tagged(tmp_path / "in", tmp_path / "out", job_of(model))
    assert [row["id"] for row in answers(tmp_path / "out")] == [row["id"] for row in good]
    faults = lines(tmp_path / "out" / "a.errors.jsonl")
    assert [(fault["file"], fault["line"]) for fault in faults] == [
        ("a.jsonl", number) for number in (2, 3, 4, 5, 6)
    ]
    words = ("JSON", "neither text nor tokens", "below the folder", "0xff", "at most 90")
    for fault, word in zip(faults, words, strict=True):
        assert word in fault["reason"]
    assert (summary.shards, summary.rows, summary.errors, summary.whole) == (2, 6, 5, False)
    again = tagged(tmp_path / "in", tmp_path / "out", job_of(model), resume=True)
    assert (again.skipped, again.rows, again.errors, again.whole) == (2, 6, 5, False)
    with pytest.raises(InputError, match=r"a\.jsonl:2"):
        tagged(tmp_path / "in", tmp_path / "strict", job_of(model, lenient=False))
    assert bytes_of(tmp_path / "strict") == {}


def test_a_shard_that_breaks_off_is_tagged_as_far_as_it_goes_and_again(
    model: Path, tmp_path: Path
) -> None:
    path = write_tar(tmp_path / "in" / "a.tar", rows(20, 1))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2 // 512 * 512])
    job, output = job_of(model), tmp_path / "out"
    summary = tagged(tmp_path / "in", output, job)
    found = [row["id"] for row in answers(output)]
    assert found == [row["id"] for row in rows(20, 1)][: len(found)]
    assert 5 < len(found) < 15
    assert list(summary.broken) == ["a.tar"]
    assert len(lines(output / "a.errors.jsonl")) == 1
    assert tagged(tmp_path / "in", output, job, resume=True).broken == summary.broken
    path.write_bytes(whole)  # its copying has come to an end
    complete = tagged(tmp_path / "in", output, job, resume=True)
    assert (complete.shards, complete.rows, complete.whole) == (1, 20, True)
    assert not (output / "a.errors.jsonl").exists()


def test_a_shard_that_vanishes_harms_no_other(source: Path, model: Path, tmp_path: Path) -> None:
    def vanishing(job: Any, shards: Any) -> Iterator[Event]:
        (source / "b.parquet").unlink()
        return tag_locally(job, shards, "cpu")

    summary = tagged(source, tmp_path / "out", job_of(model), vanishing)
    assert (summary.rows, list(summary.broken)) == (30, ["b.parquet"])


def test_an_input_or_a_model_that_changes_meanwhile_is_seen(
    source: Path, model: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def writing(tagger: Any, job: Any, shard: Any, output: Any) -> Iterator[int]:
        yield from tag_into(tagger, job, shard, output)
        os.utime(shard.source, ns=(1, shard.source.stat().st_mtime_ns + 1))

    shutil.copytree(model, tmp_path / "model")
    job = job_of(tmp_path / "model")
    shutil.rmtree(tmp_path / "model")
    shutil.copytree(other, tmp_path / "model")
    with pytest.raises(InputError, match=str(tmp_path / "model")):
        tagged(source, tmp_path / "out", job)
    assert bytes_of(tmp_path / "out") == {}
    monkeypatch.setattr("rpbert.batch.run.tag_into", writing)
    assert len(tagged(source, tmp_path / "out", job_of(model)).broken) == 3
    with pytest.raises(InputError, match=r"\.jsonl: "):
        tagged(source, tmp_path / "strict", job_of(model, lenient=False))


def test_a_post_of_one_endless_word_takes_no_endless_time(model: Path, tmp_path: Path) -> None:
    given = [*rows(30, 1, images=False), {"id": "long", "text": "a" * 2_000_000}]
    write_jsonl(tmp_path / "in" / "a.jsonl", given)
    assert tagged(tmp_path / "in", tmp_path / "out", job_of(model)).rows == 31


def test_progress_adds_up_to_the_posts_and_to_one(model: Path, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "in" / "a.jsonl", rows(150, 1, images=False))
    write_tar(tmp_path / "in" / "b.tar", rows(70, 2, images=False))
    told: dict[int, list[Event]] = {0: [], 1: []}

    def watching(job: Any, shards: Any) -> Iterator[Event]:
        for event in tag_locally(job, shards, "cpu"):
            told[event.shard].append(event)
            yield event

    append(path)  # a blank line is no post
    tagged(tmp_path / "in", tmp_path / "out", job_of(model), watching)
    for number, posts in ((0, 150), (1, 70)):
        assert len(told[number]) == 1 + posts // 64
        assert sum(event.posts for event in told[number]) == posts
        assert sum(event.share for event in told[number]) == pytest.approx(1)
        assert [event.tally is None for event in told[number]] == [True] * (posts // 64) + [False]
