"""A disk that is full or fails, at any moment: nothing half written, and a line that helps."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from rpbert import Entity, InputError, Prediction, Tagger
from rpbert.batch import Shard
from rpbert.batch.output import FORMATS, ParquetRows, opened
from tests.batch.made import Loaded, bytes_of, job_of, rows, shards_of, tagged, write_jsonl


class Disk:
    """Counts what is asked of the disk for files in the making, and fails at one of the calls."""

    def __init__(self, fail_at: int, code: int) -> None:
        self.calls, self.fail_at, self.code = 0, fail_at, code

    def ask(self, path: Any = None) -> None:
        self.calls += 1
        if self.calls == self.fail_at:
            raise OSError(self.code, os.strerror(self.code), path)


@contextmanager
def disk(fail_at: int, code: int) -> Iterator[Disk]:
    """Every write, sync and rename of new files passes by a `Disk`."""
    guard = Disk(fail_at, code)
    fsync, replace, opened_file = os.fsync, Path.replace, Path.open

    class Written(io.FileIO):
        def write(self, content: Any) -> int:
            guard.ask()
            return super().write(content)

    def open_(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        if not mode.startswith("w"):
            return opened_file(path, mode, *args, **options)
        binary = io.BufferedWriter(Written(path, "wb"), 64)
        return binary if "b" in mode else io.TextIOWrapper(binary, options.get("encoding"))

    def fsync_(handle: int) -> None:
        guard.ask()
        fsync(handle)

    def replace_(path: Path, target: Path) -> Path:
        guard.ask(str(path))
        return replace(path, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", open_)
        patch.setattr(os, "fsync", fsync_)
        patch.setattr(Path, "replace", replace_)
        yield guard


@pytest.mark.parametrize(
    ("format", "code"),
    [("jsonl", errno.ENOSPC), ("parquet", errno.ENOSPC), ("jsonl", errno.EIO)],
)
def test_a_disk_that_fails_at_any_call_leaves_a_whole_shard_or_none(
    model: Path, tmp_path: Path, format: str, code: int
) -> None:
    source = tmp_path / "in"
    path = write_jsonl(source / "a.jsonl", rows(12, 1, images=False))
    path.write_text(path.read_text() + "{\n")  # so that there is a file of errors too
    job, output = job_of(model, format=format), tmp_path / "out"
    engine = Loaded(Tagger.from_pretrained(model, "cpu"))
    with disk(0, 0) as guard:
        tagged(source, output, job, engine)
    whole = bytes_of(output)
    assert guard.calls > 12
    for call in range(1, guard.calls + 1):
        for file in output.iterdir():
            file.unlink()
        with disk(call, code), pytest.raises(InputError, match=os.strerror(code)) as told:
            tagged(source, output, job, engine)
        assert "free some space" in str(told.value)
        left = bytes_of(output)
        assert all(content == whole[name] for name, content in left.items()), call
        tagged(source, output, job, engine, resume=True)
        assert bytes_of(output) == whole


PREDICTION = Prediction("1", "Ada", [Entity("Ada", "PER", 0, 3, 0.5)], None, "none")


@pytest.mark.parametrize("format", FORMATS)
def test_a_run_that_ends_early_leaves_nothing(tmp_path: Path, format: Any) -> None:
    shard = Shard(tmp_path / "in.jsonl", tmp_path / "out")
    with pytest.raises(KeyboardInterrupt), opened(shard, format) as output:
        output.add(PREDICTION)
        output.fault(InputError(f"{tmp_path}/in.jsonl:7", "x", "y"))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_parquet_has_a_column_for_each_part_of_a_prediction(tmp_path: Path) -> None:
    with (tmp_path / "x.parquet").open("wb") as file:
        parquet = ParquetRows(file)
        parquet.write(PREDICTION.to_dict())
        parquet.finish()
    assert pq.read_table(tmp_path / "x.parquet").to_pylist() == [PREDICTION.to_dict()]


def test_parquet_holds_no_more_text_than_it_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ParquetRows, "characters", 7)  # of three letters each
    with (tmp_path / "x.parquet").open("wb") as file:
        parquet = ParquetRows(file)
        for _ in range(7):
            parquet.write(PREDICTION.to_dict())
        parquet.finish()
    written = pq.ParquetFile(tmp_path / "x.parquet")
    groups = [written.metadata.row_group(i).num_rows for i in range(written.num_row_groups)]
    assert groups == [3, 3, 1]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a system without /dev/full")
def test_a_device_that_is_full_in_truth(model: Path, tmp_path: Path) -> None:
    """The kernel's own refusal, of an output whose new file is that device."""
    write_jsonl(tmp_path / "in" / "a.jsonl", rows(3, 1, images=False))
    (shard,) = shards_of(tmp_path / "in", tmp_path / "out")
    shard.output.parent.mkdir()
    shard.output.with_name(f".a.jsonl.new-{os.getpid()}").symlink_to("/dev/full")
    with pytest.raises(InputError, match="No space left on device"), opened(shard, "jsonl") as out:
        for _ in range(10_000):
            out.add(PREDICTION)
    assert list(shard.output.parent.iterdir()) == []
