"""Folders written whole: every changed byte is refused, and nothing leads outside."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
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


def refused(folder: Path, *needed: str) -> InputError:
    with pytest.raises(InputError) as fault:
        verify(folder, needed)
    return fault.value


def test_the_sums_are_those_of_sha256(folder: Path) -> None:
    listed = json.loads((folder / MANIFEST).read_text())["files"]
    assert listed == {"a.bin": entry(bytes(range(256))), "inner/b.json": entry(b"{}")}
    assert verify(folder, ("a.bin",)) == ["a.bin", "inner/b.json"]


def test_every_changed_or_lost_byte_of_every_file_is_refused_by_its_name(folder: Path) -> None:
    draw = random.Random(0)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        for place in range(len(content)):
            other = bytes([content[place] ^ draw.randrange(1, 256)])
            for damaged in (content[:place] + other + content[place + 1 :], content[:place]):
                path.write_bytes(damaged)
                assert refused(folder).where == path
        path.write_bytes(content)
    assert is_whole(folder)


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/hostname", "..\\secret", "a\0b", "link", "README.md"]
)
def test_nothing_leads_outside(folder: Path, name: str) -> None:
    (folder.parent / "secret").write_bytes(bytes(range(256)))
    if name == "link":
        (folder / "a.bin").unlink()
        (folder / "a.bin").symlink_to("../secret")
    elif name == "README.md":  # not listed, and yet read
        (folder / name).symlink_to("../secret")
    else:
        crafted(folder, {name: entry(bytes(range(256)))})
    assert "outside" in refused(folder).found


def test_the_links_of_a_hubs_store_are_followed(folder: Path) -> None:
    store = folder.parent / "models--me--tagger"
    (store / "blobs").mkdir(parents=True)
    shutil.move(folder / "a.bin", store / "blobs" / "0a")
    snapshot = store / "snapshots" / "main"
    shutil.copytree(folder, snapshot)
    (snapshot / "a.bin").symlink_to("../../blobs/0a")
    verify(snapshot, ("a.bin",))


@pytest.mark.parametrize("files", [[], {"a": 5}, None, {}])
def test_a_manifest_that_lists_no_files_is_one_line(folder: Path, files: Any) -> None:
    content = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(content))  # the same in other bytes
    assert refused(folder).where == folder / MANIFEST
    crafted(folder, files)
    assert refused(folder, "a.bin").where == folder / MANIFEST


@pytest.mark.parametrize("name", ["more.json", "below/more.jinja", "link"])
def test_an_unlisted_file_is_refused_where_a_library_would_read_it(folder: Path, name: str) -> None:
    (folder / "README.md").write_text("nobody reads this")
    verify(folder, ())
    path = folder / "inner" / name
    path.parent.mkdir(exist_ok=True)
    if name == "link":
        path.symlink_to(folder.parent)
    else:
        path.write_text("{}")
    assert refused(folder).where == path


def test_an_error_or_a_kill_leaves_the_earlier_folder(folder: Path) -> None:
    def alone() -> bool:
        return list(folder.parent.iterdir()) == [folder]

    with pytest.raises(ZeroDivisionError), folder_written_whole(folder) as new:
        (new / "c").write_text("half")
        raise ZeroDivisionError
    assert verify(folder, ("a.bin",))
    assert alone()
    folder.rename(folder.with_name(f".{folder.name}.old"))  # killed between the renames
    folder.with_name(f".{folder.name}.new").mkdir()
    recover(folder)
    assert verify(folder, ("a.bin",))
    assert alone()
    # What a killed process left is replaced.
    shutil.copytree(folder, folder.with_name(f".{folder.name}.old"))
    with folder_written_whole(folder) as new:
        (new / "c").write_text("new")
    assert verify(folder, ("c",)) == ["c"]
    assert alone()
