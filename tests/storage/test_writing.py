"""What is written over, what is not, who may read it, and who else may write meanwhile."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from rpbert.errors import InputError
from rpbert.storage.manifest import folder_written_whole
from rpbert.storage.writing import bytes_written_whole, held, written_whole
from rpbert.synthetic.controlled import make
from rpbert.synthetic.demo import demo
from rpbert.training.train import train
from tests.conftest import tiny
from tests.training_runs import data_folder, settings


def write(path: Path, content: str = "new") -> None:
    with written_whole(path) as file:
        file.write(content)


def test_a_pipe_and_a_device_are_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write(pipe)
    reader.join(60)
    assert read == ["new"]
    full, link = Path("/dev/full"), tmp_path / "null"
    link.symlink_to(os.devnull)
    before = [os.lstat(path) for path in (pipe, full, link, os.devnull)]
    write(link)
    with pytest.raises(InputError, match="/dev/full"):
        write(full)
    after = [os.lstat(path) for path in (pipe, full, link, os.devnull)]
    assert list(map(os.path.samestat, before, after)) == [True] * 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["null", "pipe"]


@pytest.mark.parametrize("redirect", ["| cat", "> out; cat out", ">> log; cat log"])
def test_standard_output_by_name_keeps_what_is_there(redirect: str, tmp_path: Path) -> None:
    code = "from rpbert.storage.writing import Path, written_whole"
    code += "\nwith written_whole(Path('/dev/stdout')) as f: f.write('new')\nprint(' end')"
    (tmp_path / "log").write_text("before ")
    command = f'"{sys.executable}" -c "{code}" {redirect}'
    found = subprocess.run(command, shell=True, capture_output=True, cwd=tmp_path)
    assert found.stdout.decode().removeprefix("before ") == "new end\n"
    assert (tmp_path / "log").read_text().startswith("before ")


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_its_file_is_replaced(there: bool, tmp_path: Path) -> None:
    target, link = tmp_path / "far" / "target", tmp_path / "link"
    target.parent.mkdir()
    if there:
        target.write_text("old")
    link.symlink_to("far/target")
    write(link)
    assert (link.is_symlink(), target.read_text()) == (True, "new")
    folder = tmp_path / "folder"
    folder.symlink_to("far")
    with folder_written_whole(folder) as new:
        (new / "a").write_text("new")
    assert (folder.is_symlink(), (target.parent / "a").read_text()) == (True, "new")


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_umask_decides_who_reads_a_model(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        tiny("bert").save(tmp_path / "model")
        write(tmp_path / "model" / "notes")
    finally:
        os.umask(before)
    for path in (tmp_path / "model").rglob("*"):
        mode = 0o777 if path.is_dir() else 0o666
        assert stat.S_IMODE(path.stat().st_mode) == mode & ~umask, path.name


def test_a_file_in_place_of_a_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(InputError, match="file: found a file"):
        tiny("bert").save(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "kept"


def file_of(path: Path) -> AbstractContextManager[Any]:
    return bytes_written_whole(path / "out")


def folder_of(path: Path) -> AbstractContextManager[Any]:
    return folder_written_whole(path / "model")


def run_of(path: Path) -> AbstractContextManager[Any]:
    return held(path / ".lock", path)


@pytest.mark.parametrize(
    ("holding", "second"),
    [
        (file_of, lambda path: write(path / "out")),
        (folder_of, lambda path: tiny("bert").save(path / "model")),
        (run_of, lambda path: make(path, posts=10)),
        (run_of, lambda path: demo(path, posts=10)),
        (run_of, lambda path: train(settings(data_folder(path.parent / "data")), path)),
    ],
)
def test_two_runs_on_one_output_do_not_meet(
    holding: Callable[[Path], AbstractContextManager[Any]],
    second: Callable[[Path], Any],
    tmp_path: Path,
) -> None:
    output = tmp_path / "output"
    output.mkdir()
    with holding(output):
        there = sorted(output.rglob("*"))
        with pytest.raises(InputError, match=rf"\(process {os.getpid()} on .+\)") as fault:
            second(output)
        assert str(output) in str(fault.value.where)
        assert sorted(output.rglob("*")) == there
    assert not list(output.rglob(".*"))


def test_what_a_killed_process_left_stops_nobody(tmp_path: Path) -> None:
    for name in (".out.lock", ".out.new", ".model.lock", ".lock"):
        (tmp_path / name).write_text("process 1")
    write(tmp_path / "out")
    tiny("bert").save(tmp_path / "model")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "model", "out"]
