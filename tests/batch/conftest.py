"""One small model for all tests of shards."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.batch.made import saved_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_model(tmp_path_factory.mktemp("saved") / "model")
