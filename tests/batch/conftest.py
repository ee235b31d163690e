"""One small model that finds something, and shards of each kind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rpbert import Tagger
from tests.batch.made import Loaded, rows, write_jsonl, write_parquet, write_tar
from tests.conftest import tiny


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights whose tags differ from word to word."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)  # whichever test comes first
        model = tiny("rpbert")
        model.system.get_parameter("tagger.to_tags.weight").mul_(40)
    model.save(folder)
    return folder


@pytest.fixture(scope="session")
def engine(model: Path) -> Loaded:
    """The engine of this process with its model."""
    return Loaded(Tagger.from_pretrained(model, "cpu"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Shards of 12, 8 and 6 posts."""
    write_jsonl(tmp_path / "in" / "a.jsonl", rows(12, 1))
    write_parquet(tmp_path / "in" / "b.parquet", rows(8, 2))
    write_tar(tmp_path / "in" / "c.tar", rows(6, 3))
    return tmp_path / "in"
