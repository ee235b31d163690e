"""One small model that finds something, a run with it, and shards of each kind."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.batch.made import Tag, rows, write
from tests.conftest import tiny
from tests.test_cli import run


@pytest.fixture(scope="session")
def tag(tmp_path_factory: pytest.TempPathFactory) -> Tag:
    """Runs with a model of random weights whose tags differ from word to word."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)  # whichever test comes first
        model = tiny("rpbert")
        model.system.get_parameter("tagger.to_tags.weight").mul_(40)
    model.save(folder)
    return Tag(folder)


@pytest.fixture
def predict(capsys: pytest.CaptureFixture[str], tag: Tag) -> Callable[..., Any]:
    """`rpbert predict` with the model: exit code, standard output and standard error."""
    return partial(run, capsys, "predict", tag.model)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Shards of 12, 8 and 6 posts."""
    write(tmp_path / "in" / "a.jsonl", rows(12, 1))
    write(tmp_path / "in" / "b.parquet", rows(8, 2))
    write(tmp_path / "in" / "c.tar", rows(6, 3))
    return tmp_path / "in"
