"""Shards of posts to be tagged: JSON lines, Parquet or WebDataset tar, read row after row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rpbert.data.raw import shown
from rpbert.data.tables import NO_GOLD, read_jsonl, read_parquet
from rpbert.data.webdataset import read_tar
from rpbert.data.words import WordSplitter
from rpbert.errors import Faults, InputError, refuse
from rpbert.types import Post

SUFFIXES = (".jsonl", ".parquet", ".tar")
WORD_LIMIT = 20_000
"""Words of a post. One post alone must not take the memory of a machine."""


def read_shard(path: Path, splitter: WordSplitter, faults: Faults = refuse) -> Iterator[Post]:
    """Posts of one shard in its order, of bounded size each; gold in it is not read.

    Args:
        faults: told of each row that gives no post.

    Raises:
        InputError: the file is missing, of another kind, or breaks off.
    """
    for post in _rows(path, splitter, faults):
        if len(post.words) > WORD_LIMIT:
            found = f"a post of {len(post.words):,} words"
            faults(InputError(post.origin, found, f"at most {WORD_LIMIT:,}", "cut it into several"))
        else:
            yield post


def _rows(path: Path, splitter: WordSplitter, faults: Faults) -> Iterator[Post]:
    match path.suffix:
        case ".jsonl":
            return read_jsonl(path, splitter, None, NO_GOLD, faults)
        case ".parquet":
            return read_parquet(path, splitter, None, NO_GOLD, faults)
        case ".tar":
            return read_tar(path, splitter, faults)
    found = f"a file that ends in {shown(path.suffix)}"
    raise InputError(path, found, "one of " + ", ".join(SUFFIXES))
