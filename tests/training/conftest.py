"""What every test of training needs: made posts as a data folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training_runs import data_folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return data_folder(tmp_path / "data")


@pytest.fixture
def unlabelled(tmp_path: Path) -> Path:
    return data_folder(tmp_path / "unlabelled", relations=False)
