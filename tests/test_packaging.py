"""Wheel and sdist outside a clone, the service's image without Docker, and `rpbert doctor`."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from importlib.metadata import metadata, version
from pathlib import Path

import pytest

import rpbert
from rpbert.cli import doctor
from tests.conftest import tiny
from tests.test_cli import run as command

ROOT = Path(__file__).parents[1]
NOBODY = 65534


def built(kind: str, tree: Path) -> Path:
    """What the build backend makes of a tree, without an environment of its own."""
    code = f"from setuptools import build_meta as b; print(b.build_{kind}('dist'))"
    return tree / "dist" / said([sys.executable, "-c", code], tree).split()[-1]


def said(words: list[str], folder: Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the sdist of what the package is built from, which is that of the tree."""
    folder = tmp_path_factory.mktemp("build")
    tree = folder / "tree"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", tree / "src", ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    shutil.unpack_archive(built("sdist", tree), folder)
    mine = built("wheel", folder / f"rpbert-{rpbert.__version__}")
    contents = []
    for path in (mine, built("wheel", tree)):
        with zipfile.ZipFile(path) as made:
            contents.append(
                {i.filename: i.CRC for i in made.infolist() if "RECORD" not in i.filename}
            )
    assert contents[0] == contents[1]
    there = {f.relative_to(tree / "src").as_posix() for f in (tree / "src/rpbert").rglob("*.*")}
    assert there <= contents[0].keys() | {n for n in there if (tree / "src" / n).is_dir()}
    return mine


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Where the wheel's package is the one that is imported."""
    site = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as made:
        made.extractall(site)
    return {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}


def test_the_wheel_alone_trains_predicts_and_says_what_it_has(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """In an empty folder, with the settings that are known by name."""

    def call(*given: str) -> str:
        return said([sys.executable, "-m", "rpbert", *given], tmp_path, environment)

    shown = [sys.executable, "-c", "import rpbert; print(rpbert.__file__)"]
    assert said(shown, tmp_path, environment).startswith(environment["PYTHONPATH"])
    assert call("--version") == f"rpbert {rpbert.__version__}\n"
    assert "START HERE" in call("train", "--list")
    assert "--seed" in call("demo", "--help")
    assert call("data", "list").count("Licence") > 4
    call("data", "make", "made", "--posts", "60")
    short = ["training.epochs=1", "data.posts=20"]
    call("train", "controlled", "model.system=bert", "data.path=made", *short, "--output", "run")
    assert "entities" in json.loads(call("predict", "run", "--text", "in Lima", "--json"))
    assert json.loads(call("doctor", "--json"))["versions"]["rpbert"] == rpbert.__version__
    assert {path.name for path in tmp_path.iterdir()} == {"made", "run"}


@pytest.fixture
def image() -> dict[str, list[str]]:
    """The commands of the Dockerfile; what it copies is there."""
    text = (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
    for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE):
        assert all((ROOT / name).exists() for name in line.split()[:-1])
    assert "useradd" in text
    assert text.index("USER 10001") < text.index("ENTRYPOINT")
    found = re.findall(r"^(?:HEALTHCHECK .*?)?(ENTRYPOINT|CMD) (\[.*\])$", text, re.MULTILINE)
    checks = re.findall(r"^HEALTHCHECK .*CMD (\[.*\])$", text, re.MULTILINE)
    commands = {name: json.loads(words) for name, words in found if words not in checks}
    return {**commands, "HEALTHCHECK": json.loads(checks[0])}


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs root to become nobody")
def test_the_image_serves_a_read_only_model_as_a_user_without_rights(
    environment: dict[str, str], image: dict[str, list[str]], tmp_path: Path
) -> None:
    if not shutil.which("setpriv"):
        pytest.skip("no setpriv")
    tiny("bert").save(tmp_path / "model")
    for path in (tmp_path, *tmp_path.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    given = [*image["ENTRYPOINT"], *image["CMD"]]
    assert given[0] == "rpbert"
    place = {"/model": str(tmp_path / "model"), "8000": port, "0.0.0.0": "127.0.0.1"}
    words = [sys.executable, "-m", "rpbert", *(place.get(word, word) for word in given[1:])]
    # It may read everything, as the interpreter can lie in a home, and write nothing.
    reads = "+dac_read_search"
    nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    nobody += [f"--inh-caps={reads}", f"--ambient-caps={reads}"]
    own = {**environment, "HF_HUB_OFFLINE": "1", "HOME": "/tmp", "PYTHONDONTWRITEBYTECODE": "1"}
    server = subprocess.Popen([*nobody, *words], cwd="/tmp", env=own, stderr=subprocess.PIPE)
    check = [word.replace("8000", port) for word in image["HEALTHCHECK"]]
    assert check[0] == "python"
    try:
        asked = [sys.executable, *check[1:]]
        while subprocess.run(asked, capture_output=True).returncode:
            assert server.poll() is None, server.stderr and server.stderr.read().decode()
            time.sleep(0.5)
        assert f"Uid:\t{NOBODY}" in Path(f"/proc/{server.pid}/status").read_text()
    finally:
        server.terminate()
        server.wait(30)
    assert subprocess.run(asked, capture_output=True).returncode


def test_the_doctor_tells_versions_extras_and_what_is_out_of_reach(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "REACHED", {"here": "http://127.0.0.1:1"})
    hidden = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda n: None if n == "uvicorn" else hidden(n))
    found = json.loads(command(capsys, "doctor", "--json")[1])
    assert found["versions"]["torch"] == version("torch")
    extras = metadata("rpbert").get_all("Provides-Extra") or ()
    assert found["extras"].keys() == {*extras} - {"dev"}
    assert found["extras"]["serve"]["missing"] == ["uvicorn"]
    assert "cannot be reached" in found["reached"]["here"]
    assert "pip install 'rpbert[serve]'" in command(capsys, "doctor")[1]
