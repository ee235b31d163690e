"""Folders written whole: a changed byte is told, nothing leads outside, nothing is half there."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rpbert.errors import InputError
from rpbert.storage.manifest import MANIFEST, folder_written_whole, is_whole, recover, verify


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "saved"
    with folder_written_whole(made) as new:
        (new / "a.bin").write_bytes(bytes(range(256)))
        (new / "inner").mkdir()
        (new / "inner" / "b.json").write_text("{}")
    return made


def crafted(folder: Path, files: Any) -> None:
    """A manifest of anyone's making that is whole in itself."""
    entries = json.dumps(files, indent=1, sort_keys=True)
    digest = hashlib.sha256(entries.encode()).hexdigest()
    (folder / MANIFEST).write_text(f'{{"files": {entries},\n"sha256": "{digest}"}}\n')


def entry(content: bytes) -> dict[str, Any]:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_the_sums_are_those_of_sha256(folder: Path) -> None:
    listed = json.loads((folder / MANIFEST).read_text())["files"]
    assert listed == {"a.bin": entry(bytes(range(256))), "inner/b.json": entry(b"{}")}
    assert verify(folder, ("a.bin",)) == ["a.bin", "inner/b.json"]


def damages(folder: Path) -> Iterator[Path]:
    """Each byte of each file changed, and each file cut at each place, one after the other."""
    draw = random.Random(0)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        for place in range(len(content)):
            other = content[place] ^ draw.randrange(1, 256)
            path.write_bytes(content[:place] + bytes([other]) + content[place + 1 :])
            yield path
            path.write_bytes(content[:place])
            yield path
        path.write_bytes(content)


def test_every_changed_or_lost_byte_of_every_file_is_told_by_its_name(folder: Path) -> None:
    for path in damages(folder):
        with pytest.raises(InputError) as refused:
            verify(folder, ())
        assert str(refused.value.where) == str(path)
    assert is_whole(folder)


def test_a_manifest_written_otherwise_is_refused(folder: Path) -> None:
    content = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"manifest\.json: found changed content"):
        verify(folder, ())


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/hostname", "inner/../../secret", "..\\secret", "C:\\secret", "a\0b"]
)
def test_a_manifest_never_leads_outside(folder: Path, name: str) -> None:
    (folder.parent / "secret").write_bytes(b"s")
    crafted(folder, {name: entry(b"s")})
    with pytest.raises(InputError, match=r"manifest\.json: found .* outside the folder"):
        verify(folder, ())


def test_a_link_never_leads_outside(folder: Path) -> None:
    (folder.parent / "secret").write_bytes(bytes(range(256)))
    (folder / "a.bin").unlink()
    (folder / "a.bin").symlink_to("../secret")
    with pytest.raises(InputError, match="outside the folder"):
        verify(folder, ())


def test_the_links_of_a_hubs_store_are_followed(folder: Path) -> None:
    store = folder.parent / "models--me--tagger"
    (store / "blobs").mkdir(parents=True)
    shutil.move(folder / "a.bin", store / "blobs" / "0a")
    snapshot = store / "snapshots" / "main"
    shutil.copytree(folder, snapshot)
    (snapshot / "a.bin").symlink_to("../../blobs/0a")
    verify(snapshot, ("a.bin",))


@pytest.mark.parametrize("files", [[], "x", {"a": 5}, {"a": {}}, {"a": {"bytes": "1"}}, None, {}])
def test_a_manifest_that_lists_no_files_is_one_line(folder: Path, files: Any) -> None:
    crafted(folder, files)
    with pytest.raises(InputError) as refused:
        verify(folder, ("a.bin",))
    assert refused.value.where == folder / MANIFEST


def test_a_file_that_was_not_saved_is_refused_where_a_library_would_read_it(folder: Path) -> None:
    (folder / "README.md").write_text("nobody reads this")
    verify(folder, ())
    (folder / "inner" / "more.json").write_text("{}")
    with pytest.raises(InputError, match=r"more\.json: found a file the manifest does not list"):
        verify(folder, ())
    (folder / "inner" / "more.json").unlink()
    (folder / "inner" / "below").mkdir()
    (folder / "inner" / "below" / "more.jinja").write_text("{}")
    with pytest.raises(InputError, match=r"more\.jinja: found a file the manifest does not list"):
        verify(folder, ())
    (folder / "inner" / "below" / "more.jinja").unlink()
    (folder / "inner" / "link").symlink_to(folder.parent)
    with pytest.raises(InputError, match=r"link: found a file the manifest does not list"):
        verify(folder, ())


def test_what_fails_while_it_is_filled_leaves_the_folder_of_before(folder: Path) -> None:
    with pytest.raises(ZeroDivisionError), folder_written_whole(folder) as new:
        (new / "c").write_text("half")
        raise ZeroDivisionError
    verify(folder, ("a.bin",))
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_process_killed_between_the_renames_is_mended(folder: Path) -> None:
    folder.rename(folder.with_name(f".{folder.name}.old-1"))
    folder.with_name(f".{folder.name}.new-1").mkdir()
    recover(folder)
    verify(folder, ("a.bin",))
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_what_a_killed_process_of_the_same_number_left_is_no_hindrance(folder: Path) -> None:
    shutil.copytree(folder, folder.with_name(f".{folder.name}.old-{os.getpid()}"))
    with folder_written_whole(folder) as new:
        (new / "c").write_text("new")
    assert verify(folder, ("c",)) == ["c"]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
