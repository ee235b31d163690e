"""Untrusted input is not run and not followed out of its folder; a changed model is refused."""

from __future__ import annotations

import ast
import os
import pickle
import random
from pathlib import Path

import pytest

import rpbert
from rpbert.errors import InputError
from rpbert.models.saved import TaggingModel
from tests.conftest import tiny
from tests.storage.hostile_folders import HARMLESS, REFUSED, WATCHES, Scene, watch

PACKAGE = Path(rpbert.__file__).parent


def test_the_watch_sees_what_a_pickle_runs(tmp_path: Path) -> None:
    at = Scene(tmp_path, tmp_path / "canary", tmp_path / "secret")
    watch()
    seen = WATCHES[os.path.realpath(at.secret)] = []
    at.secret.write_text("secret")
    pickle.loads(at.pickle())
    WATCHES.clear()
    assert [event.split()[0] for event in seen] == [*seen[:1], "pickle.find_class", "os.system"]
    assert seen[0] == os.path.realpath(at.secret)
    assert at.canary.exists()


@pytest.mark.parametrize("case", [*REFUSED, *HARMLESS])
def test_nothing_runs_and_nothing_outside_is_opened(case: str, tmp_path: Path) -> None:
    at = Scene(tmp_path / "given", tmp_path / "canary", tmp_path / "secret")
    at.folder.mkdir()
    at.secret.write_text("secret")
    watch()
    seen = WATCHES[os.path.realpath(at.secret)] = []
    try:
        if case in REFUSED:
            with pytest.raises(InputError) as told:
                REFUSED[case](at)
            assert "\n" not in str(told.value)
        else:
            HARMLESS[case](at)
        assert seen == []
    finally:
        WATCHES.clear()
    assert not at.canary.exists()


def test_a_model_that_was_tampered_with_is_refused_by_the_file(tmp_path: Path) -> None:
    """Each file in turn lost, a byte of it changed, cut, or made longer."""
    folder, draw = tmp_path / "model", random.Random(0)
    tiny("rpbert").save(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert len(files) >= 5
    for path in files:
        content = path.read_bytes()
        at = draw.randrange(len(content))
        other = bytes([content[at] ^ draw.randrange(1, 256)])
        changed = content[:at] + other + content[at + 1 :]
        path.unlink()
        for damaged in (None, changed, content[:at], content + b"\n"):
            if damaged is not None:
                path.write_bytes(damaged)
            with pytest.raises(InputError) as told:
                TaggingModel.load(folder)
            assert str(told.value.where) == str(path)
        path.write_bytes(content)
    TaggingModel.load(folder)


def test_no_code_of_the_package_loads_a_pickle_or_runs_a_text() -> None:
    """Anywhere but in `convert`, which reads published pickles as tensors alone."""
    forbidden = {
        "eval", "exec", "compile", "os.system", "os.popen", "pickle.load", "pickle.loads",
        "yaml.load", "yaml.unsafe_load", "yaml.full_load", "marshal.loads", "shelve.open",
        "joblib.load", "np.load", "numpy.load", "torch.load", "torch.jit.load", "__import__",
    }  # fmt: skip
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in forbidden:
                found.append((path.relative_to(PACKAGE).as_posix(), ast.unparse(node)))
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                assert ast.unparse(node.value) == "False", path
            if isinstance(node, ast.keyword) and node.arg == "use_safetensors":
                assert ast.unparse(node.value) == "True", path
    load = "torch.load(path, map_location='cpu', weights_only=True)"
    assert found == [("integrations/convert.py", load)]
