"""Which shards a run reads and where it writes, and that n machines share them out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpbert.batch import Shard
from rpbert.batch.plan import divide, find, plan
from rpbert.errors import InputError

FILES = ["b.jsonl", "a.parquet", "c.tar", "notes.txt", ".d.jsonl", "sub/e.jsonl", "x[1].tar"]
FOUND: dict[str, tuple[str, list[str]]] = {
    "in": ("in", ["a.parquet", "b.jsonl", "c.tar", "x[1].tar"]),
    "in/b.jsonl": ("in", ["b.jsonl"]),
    "in/x[1].tar": ("in", ["x[1].tar"]),  # a name that looks like a pattern
    "in/*.jsonl": ("in", ["b.jsonl"]),
    "in/[ac].*": ("in", ["a.parquet", "c.tar"]),
    "in/**/*.jsonl": ("in", ["b.jsonl", "sub/e.jsonl"]),
    "*/b.jsonl": (".", ["in/b.jsonl"]),
}
NOT_FOUND = {
    **dict.fromkeys(("no", "no/*.jsonl", "in/sub/*.tar"), "no such file"),
    **dict.fromkeys(("in/notes.txt", "in/*.txt", "in/.d.jsonl", "in/folder.*"), "other or hidden"),
    "in/folder.jsonl": "a folder",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("folder.jsonl", "sub"):
        (tmp_path / "in" / name).mkdir(parents=True)
    for name in FILES:
        (tmp_path / "in" / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "in"


def test_a_pattern_names_shards_in_order(folder: Path) -> None:
    for pattern, (base, names) in FOUND.items():
        for prefix in (Path(), folder.parent):
            found_base, found = find(str(prefix / pattern))
            assert found_base == prefix / base
            assert [path.relative_to(found_base).as_posix() for path in found] == names
    for pattern, reason in NOT_FOUND.items():
        with pytest.raises(InputError, match=f"^{re.escape(pattern)}: .*{reason}"):
            find(pattern)


def test_no_file_is_written_twice_or_over_the_input(folder: Path) -> None:
    shards = plan(*find("in/**/*.jsonl"), Path("out"), "parquet")
    assert shards == [
        Shard(Path("in/b.jsonl"), Path("out/b.parquet")),
        Shard(Path("in/sub/e.jsonl"), Path("out/sub/e.parquet")),
    ]
    assert shards[1].errors == Path("out/sub/e.errors.jsonl")
    assert shards[1].side == Path("out/sub/e.meta.json")
    for output in ("in", "in/../in", "."):
        with pytest.raises(InputError, match=f"^--output {re.escape(str(Path(output)))}: "):
            plan(*find("in"), Path(output), "jsonl")
    for name in ("b.tar", "b.errors.jsonl"):
        (folder / name).touch()
        with pytest.raises(InputError, match=re.escape(name)):
            plan(*find("in/b.*"), Path("out"), "jsonl")
        (folder / name).unlink()


@given(count=st.integers(0, 40), machines=st.integers(1, 50))
def test_machines_share_shards_out_without_talking(count: int, machines: int) -> None:
    shards = [Shard(Path(f"{i}.tar"), Path(f"{i}.jsonl")) for i in range(count)]
    parts = [divide(shards, f"{i}/{machines}") for i in range(1, machines + 1)]
    assert sorted((shard for part in parts for shard in part), key=shards.index) == shards
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("part", ["", "1", "0/2", "3/2", "-1/2", "1/2/3", "１/２"])
def test_a_part_is_i_of_n(part: str) -> None:
    with pytest.raises(InputError, match=r"^--shard: "):
        divide([], part)
