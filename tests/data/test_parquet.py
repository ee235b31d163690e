"""Parquet of strangers: plain columns are read, one that brings code of its own is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rpbert.errors import InputError
from tests.data.files import kinds, read


def test_parquet_may_carry_the_bytes_of_images(tmp_path: Path) -> None:
    path = tmp_path / "test.parquet"
    rows = [{"id": i, "text": "x", "image": bytes([i % 256])} for i in range(200)]
    pq.write_table(pa.Table.from_pylist(rows), path)
    posts, _ = read(path, "test")
    assert [(post.id, post.image) for post in posts] == [
        (str(i), bytes([i % 256])) for i in range(200)
    ]


class Loader(pa.ExtensionType):  # type: ignore[misc]
    """What Ray brings along: a column of this type loads whatever its bytes ask for."""

    def __init__(self) -> None:
        super().__init__(pa.binary(), "tests.loader")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: Any, serialized: bytes) -> Loader:
        return cls()


@pytest.mark.parametrize("nested", [False, True])
def test_a_column_that_brings_its_own_code_is_refused(tmp_path: Path, nested: bool) -> None:
    pa.register_extension_type(Loader())
    try:
        image: pa.Array = pa.ExtensionArray.from_storage(Loader(), pa.array([b"\x80\x04."]))
        if nested:
            image = pa.StructArray.from_arrays([image, pa.array(["x"])], ["bytes", "path"])
        pq.write_table(
            pa.table({"id": ["1"], "text": ["x"], "image": image}), tmp_path / "x.parquet"
        )
        with pytest.raises(InputError, match=r"x\.parquet: found the column 'image' of type"):
            read(tmp_path / "x.parquet")
    finally:
        pa.unregister_extension_type("tests.loader")


MAPS = pa.array([[("a", "b")]], pa.map_("string", "string"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no readable Parquet"),
        (b"PAR1 no parquet PAR1", "no readable Parquet"),
        (pa.table({"id": [1], "text": pa.array([2**62], pa.timestamp("ns"))}), "'text' of type"),
        (pa.table({"id": [1], "tokens": MAPS}), "'tokens' of type"),
        (pa.table({"text": ["x"]}), "no column id"),
        (pa.table([[1], ["x"], ["y"]], names=["id", "text", "text"]), "a column twice"),
    ],
)
def test_parquet_that_holds_no_posts_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    if isinstance(content, bytes):
        (tmp_path / "x.parquet").write_bytes(content)
    else:
        pq.write_table(content, tmp_path / "x.parquet")
    with pytest.raises(InputError, match=rf"x\.parquet: found .*{message}"):
        read(tmp_path / "x.parquet")


def test_a_parquet_column_that_is_no_ones_is_not_read(tmp_path: Path) -> None:
    table = pa.table(
        {"id": [1, 2], "text": ["x", "y"], "when": pa.array([0, 1], pa.timestamp("s"))}
    )
    pq.write_table(table, tmp_path / "x.parquet")
    posts, quirks = read(tmp_path / "x.parquet")
    assert [post.text for post in posts] == ["x", "y"]
    assert kinds(quirks) == [(1, "unknown key")]
