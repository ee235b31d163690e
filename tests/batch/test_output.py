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

from rpbert import Entity, InputError, Prediction
from rpbert.batch import Format, Shard
from rpbert.batch.output import FORMATS, opened
from tests.batch.made import Loaded, bytes_of, job_of, rows, tagged, write_jsonl


class Disk:
    """Counts what is asked of the disk for files in the making, and fails at one of the calls."""

    def __init__(self, fail_at: int, code: int) -> None:
        self.calls, self.fail_at, self.code = 0, fail_at, code

    def ask(self, path: Any = None) -> bool:
        self.calls += 1
        if self.calls == self.fail_at:
            raise OSError(self.code, os.strerror(self.code), path)
        return False


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

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", open_)
        patch.setattr(os, "fsync", lambda handle: guard.ask() or fsync(handle))
        patch.setattr(Path, "replace", lambda a, b: guard.ask(str(a)) or replace(a, b))
        yield guard


@pytest.mark.parametrize(
    ("format", "code"),
    [("jsonl", errno.ENOSPC), ("parquet", errno.ENOSPC), ("jsonl", errno.EIO)],
)
def test_a_disk_that_fails_at_any_call_leaves_a_whole_shard_or_none(
    model: Path, engine: Loaded, tmp_path: Path, format: Format, code: int
) -> None:
    source = tmp_path / "in"
    path = write_jsonl(source / "a.jsonl", rows(12, 1, images=False))
    path.write_text(path.read_text() + "{\n")  # so that there is a file of errors too
    job, output = job_of(model, format=format), tmp_path / "out"
    with disk(0, 0) as guard:
        tagged(source, output, job, engine)
    whole = bytes_of(output)
    assert guard.calls > 12
    for call in range(1, guard.calls + 1):
        for file in output.iterdir():
            file.unlink()
        with disk(call, code), pytest.raises(InputError, match=os.strerror(code)):
            tagged(source, output, job, engine)
        left = bytes_of(output)
        assert all(content == whole[name] for name, content in left.items()), call
        tagged(source, output, job, engine, resume=True)
        assert bytes_of(output) == whole


PREDICTION = Prediction("1", "Ada", [Entity("Ada", "PER", 0, 3, 0.5)], None, "none")


@pytest.mark.parametrize("format", FORMATS)
def test_a_run_that_ends_early_leaves_nothing(tmp_path: Path, format: Format) -> None:
    shard = Shard(tmp_path / "in.jsonl", tmp_path / "out")
    with pytest.raises(KeyboardInterrupt), opened(shard, format) as output:
        output.add(PREDICTION)
        output.fault(InputError(f"{tmp_path}/in.jsonl:7", "x", "y"))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_parquet_has_a_column_for_each_key_and_bounded_row_groups(
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
