"""Shards tagged in one process: what is written, what is set aside, and what goes on."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from rpbert import InputError, Tagger
from rpbert.batch.finished import Source
from rpbert.batch.local import InProcess, ShardTagger
from rpbert.batch.output import ParquetRows
from rpbert.data.words import SPLITTERS
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
    write_jsonl(tmp_path / "in" / "a.jsonl", rows(40, 1))
    write_parquet(tmp_path / "in" / "b.parquet", rows(30, 2))
    write_tar(tmp_path / "in" / "c.tar", rows(20, 3))
    return tmp_path / "in"


def test_shards_hold_what_the_tagger_says_of_each_post(
    source: Path, model: Path, tmp_path: Path
) -> None:
    summary = tagged(source, tmp_path / "out", job_of(model))
    tagger = Tagger.from_pretrained(model, "cpu")
    expected = [
        {**tagger.predict(row["text"], image=row.get("image")).to_dict(), "id": row["id"]}
        for row in [*rows(40, 1), *rows(30, 2), *rows(20, 3)]
    ]
    assert sum(len(row["entities"]) for row in expected) > 90
    assert_same(answers(tmp_path / "out"), expected)
    assert (summary.shards, summary.skipped, summary.rows, summary.errors) == (3, 0, 90, 0)
    assert summary.images == {"used": 14 + 10 + 7, "none": 26 + 20 + 13}
    assert summary.whole


def test_the_side_file_tells_what_the_output_was_made_from(
    source: Path, model: Path, tmp_path: Path
) -> None:
    tagged(source, tmp_path / "out", job_of(model, batch_size=5))
    for name, output, count in (("a.jsonl", "a.jsonl", 40), ("c.tar", "c.jsonl", 20)):
        side = json.loads((tmp_path / "out" / name).with_suffix(".meta.json").read_text())
        for key, path in (("input", source / name), ("output", tmp_path / "out" / output)):
            content = path.read_bytes()
            sha256 = hashlib.sha256(content).hexdigest()
            assert side[key] == {"name": path.name, "bytes": len(content), "sha256": sha256}
        assert (side["rows"], side["errors"], side["broken"]) == (count, 0, "")
        assert side["settings"] == {"format": "jsonl", "precision": "fp32", "batch_size": 5}
        manifest = (model / "manifest.json").read_bytes()
        assert side["model"] == hashlib.sha256(manifest).hexdigest()


def test_parquet_holds_the_same_as_json_lines(
    source: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ParquetRows, "held", 16)  # several groups of rows
    for format in ("jsonl", "parquet"):
        tagged(source, tmp_path / format, job_of(model, format=format))
    for name in "abc":
        table = pq.read_table(tmp_path / "parquet" / f"{name}.parquet")
        assert table.to_pylist() == lines(tmp_path / "jsonl" / f"{name}.jsonl")


def test_what_is_finished_stays_and_the_rest_is_done(
    source: Path, model: Path, tmp_path: Path
) -> None:
    output, job = tmp_path / "out", job_of(model)
    tagged(source, output, job)
    whole = bytes_of(output)
    (output / "b.meta.json").unlink()
    (output / "b.jsonl").write_text("half")
    (output / ".c.jsonl.new-99").write_text("of a killed process, whose shard is finished")
    (output / ".b.jsonl.new-99").write_text("of a killed process")
    before = {name: (output / name).stat().st_mtime_ns for name in ("a.jsonl", "c.jsonl")}
    summary = tagged(source, output, job, resume=True)
    assert (summary.shards, summary.skipped, summary.rows) == (1, 2, 90)
    assert {name: (output / name).stat().st_mtime_ns for name in before} == before
    (output / ".c.jsonl.new-99").unlink()
    assert bytes_of(output) == whole


def test_an_earlier_output_is_never_written_over(source: Path, model: Path, tmp_path: Path) -> None:
    tagged(source, tmp_path / "out", job_of(model))
    whole = bytes_of(tmp_path / "out")
    with pytest.raises(InputError, match=r"an earlier output; .* --resume"):
        tagged(source, tmp_path / "out", job_of(model))
    assert bytes_of(tmp_path / "out") == whole


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def edit(output: Path, key: str, value: Any) -> None:
    side = output / "a.meta.json"
    side.write_text(json.dumps({**json.loads(side.read_text()), key: value}))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda source, output: append(source / "a.jsonl"), r"a\.jsonl: found a changed input"),
        (lambda source, output: append(output / "b.jsonl"), r"b\.jsonl: found a changed output"),
        (lambda source, output: (output / "c.jsonl").unlink(), r"c\.jsonl: found nothing"),
        (lambda source, output: (output / "a.meta.json").write_text("{"), "found no side file"),
        (lambda source, output: (output / "a.meta.json").write_text("[]"), "found no side file"),
        (lambda source, output: edit(output, "output", {}), "found no side file"),
        (lambda source, output: edit(output, "images", {"used": "1"}), "found no side file"),
        (lambda source, output: edit(output, "errors", 1), r"a\.errors\.jsonl: found nothing"),
    ],
)
def test_what_has_changed_is_refused(
    source: Path,
    model: Path,
    tmp_path: Path,
    change: Callable[[Path, Path], None],
    line: str,
) -> None:
    tagged(source, tmp_path / "out", job_of(model))
    change(source, tmp_path / "out")
    kept = bytes_of(tmp_path / "out")
    with pytest.raises(InputError, match=rf"{line}.*remove the shard's \.meta\.json"):
        tagged(source, tmp_path / "out", job_of(model), resume=True)
    assert bytes_of(tmp_path / "out") == kept


def test_another_model_or_other_settings_are_refused(
    source: Path, model: Path, tmp_path: Path
) -> None:
    job = job_of(model)
    tagged(source, tmp_path / "out", job)
    other = Tagger.from_pretrained(model)
    other.model.notes["dev_f1"] = 0.5
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(InputError, match="another model"):
        tagged(source, tmp_path / "out", job_of(tmp_path / "other"), resume=True)
    with pytest.raises(InputError, match=r"settings.*'batch_size': 32"):
        tagged(source, tmp_path / "out", job_of(model, batch_size=8), resume=True)


def test_posts_that_fail_are_written_down_and_the_others_tagged(
    model: Path, tmp_path: Path
) -> None:
    good = rows(6, 1, images=False)
    path = write_jsonl(tmp_path / "in" / "a.jsonl", good)
    bad = ["{", '{"id": "x"}', '{"id": "x", "text": "x", "image": "../../etc/passwd"}', "\udcff"]
    kept = path.read_text().splitlines()
    path.write_bytes("\n".join([kept[0], *bad, *kept[1:]]).encode("utf-8", "surrogateescape"))
    summary = tagged(tmp_path / "in", tmp_path / "out", job_of(model))
    assert [row["id"] for row in answers(tmp_path / "out")] == [row["id"] for row in good]
    faults = lines(tmp_path / "out" / "a.errors.jsonl")
    assert [(fault["file"], fault["line"]) for fault in faults] == [
        ("a.jsonl", number) for number in (2, 3, 4, 5)
    ]
    words = ("no JSON", "neither text nor tokens", "a path below the folder", "0xff")
    for fault, word in zip(faults, words, strict=True):
        assert word in fault["reason"]
    assert (summary.rows, summary.errors, summary.whole) == (6, 4, False)
    again = tagged(tmp_path / "in", tmp_path / "out", job_of(model), resume=True)
    assert (again.skipped, again.rows, again.errors, again.whole) == (1, 6, 4, False)


def test_a_strict_run_stops_at_the_first_fault(source: Path, model: Path, tmp_path: Path) -> None:
    with (source / "a.jsonl").open("a") as file:
        file.write("{\n")
    with pytest.raises(InputError, match=r"a\.jsonl:41"):
        tagged(source, tmp_path / "out", job_of(model, lenient=False))
    assert bytes_of(tmp_path / "out") == {}


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
    (fault,) = lines(output / "a.errors.jsonl")
    assert "no readable tar after member" in fault["reason"]
    assert list(summary.broken) == ["a.tar"]
    assert tagged(tmp_path / "in", output, job, resume=True).broken == summary.broken
    path.write_bytes(whole)  # its copying has come to an end
    mended = tagged(tmp_path / "in", output, job, resume=True)
    assert (mended.shards, mended.rows, mended.whole) == (1, 20, True)
    assert not (output / "a.errors.jsonl").exists()


def test_a_shard_that_vanishes_harms_no_other(source: Path, model: Path, tmp_path: Path) -> None:
    class Vanishing(InProcess):
        def run(self, job: Any, shards: Any) -> Any:
            (source / "b.parquet").unlink()
            return super().run(job, shards)

    summary = tagged(source, tmp_path / "out", job_of(model), Vanishing("cpu"))
    assert (summary.rows, list(summary.broken)) == (60, ["b.parquet"])


def test_an_input_that_is_written_to_meanwhile_is_not_taken_for_whole(
    source: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    into = ShardTagger.tag_into

    def writing(self: Any, output: Any, shard: Any) -> Any:
        yield from into(self, output, shard)
        os.utime(shard.source, ns=(1, shard.source.stat().st_mtime_ns + 1))

    monkeypatch.setattr(ShardTagger, "tag_into", writing)
    summary = tagged(source, tmp_path / "out", job_of(model))
    assert len(summary.broken) == 3
    with pytest.raises(InputError, match="another file than when its reading began"):
        tagged(source, tmp_path / "strict", job_of(model, lenient=False))


def test_a_model_that_is_replaced_before_it_is_loaded_is_refused(
    source: Path, model: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "model"
    shutil.copytree(model, mine)
    job, other = job_of(mine), Tagger.from_pretrained(mine)
    other.model.notes["dev_f1"] = 0.5
    other.save_pretrained(mine)
    with pytest.raises(InputError, match="another model than when the run began"):
        tagged(source, tmp_path / "out", job)
    assert bytes_of(tmp_path / "out") == {}


def test_a_shard_of_which_the_engine_says_nothing_is_not_taken_for_done(
    source: Path, model: Path, tmp_path: Path
) -> None:
    class Forgetful(InProcess):
        def run(self, job: Any, shards: Any) -> Any:
            return super().run(job, shards[:2])

    summary = tagged(source, tmp_path / "out", job_of(model), Forgetful("cpu"))
    assert (summary.shards, list(summary.lost), summary.whole) == (2, ["c.tar"], False)


def test_a_post_of_one_endless_word_takes_no_endless_time(model: Path, tmp_path: Path) -> None:
    given = [*rows(30, 1, images=False), {"id": "long", "text": "a" * 2_000_000}]
    write_jsonl(tmp_path / "in" / "a.jsonl", given)
    assert tagged(tmp_path / "in", tmp_path / "out", job_of(model)).rows == 31


def test_an_empty_shard_is_no_fault(model: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in" / "a.jsonl", [])
    write_parquet(tmp_path / "in" / "b.parquet", [])
    write_tar(tmp_path / "in" / "c.tar", [])
    summary = tagged(tmp_path / "in", tmp_path / "out", job_of(model, format="parquet"))
    assert (summary.shards, summary.rows, summary.whole) == (3, 0, True)
    assert pq.read_table(tmp_path / "out" / "a.parquet").num_rows == 0


def test_a_post_of_too_many_words_is_set_aside(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rpbert.data.readers.WORD_LIMIT", 30)
    given = rows(40, 1, images=False)
    write_jsonl(tmp_path / "in" / "a.jsonl", given)
    summary = tagged(tmp_path / "in", tmp_path / "out", job_of(model))
    words = [len(SPLITTERS["apart"].split(row["text"])) for row in given]
    long = sum(count > 30 for count in words)
    assert 5 < long < 35
    assert (summary.rows, summary.errors) == (40 - long, long)
    assert "words; expected at most 30" in lines(tmp_path / "out" / "a.errors.jsonl")[0]["reason"]


def test_the_facts_of_a_source(source: Path) -> None:
    for name, count in (("a.jsonl", 40), ("b.parquet", 30), ("c.tar", 0)):
        facts = Source.of(source / name)
        content = (source / name).read_bytes()
        assert (facts.size, facts.rows) == (len(content), count)
        assert facts.sha256 == hashlib.sha256(content).hexdigest()
