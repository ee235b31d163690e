"""docs/adding_a_system.md: its file and its lines make a system that passes the common suite."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rpbert import models
from rpbert.evaluation.evaluate import describe_systems
from tests import conftest, test_systems

DOCUMENT = (Path(__file__).parents[1] / "docs" / "adding_a_system.md").read_text("utf-8")
FILE, LINE, TINY = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
VARIANT: tuple[str, dict[str, Any]] = ("mean_image", {})


@pytest.fixture(autouse=True)
def _added(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system as it would stand in the package."""
    module = ModuleType("mean_image")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(FILE, "mean_image.py", "exec"), module.__dict__)
    names = {**vars(models), "MeanImage": module.MeanImage}
    for target, line, known in (
        (models.SYSTEMS, LINE, names),
        (conftest.TINY, TINY, vars(conftest)),
    ):
        for name, entry in eval(f"{{{line}}}", dict(known)).items():
            monkeypatch.setitem(target, name, entry)


def test_it_is_one_short_file_and_listed() -> None:
    assert len([line for line in FILE.splitlines() if line.strip()]) <= 40
    row = next(row for row in describe_systems() if row["name"] == "mean_image")
    assert row["evidence"] == ["blocks", "global", "regions", "captions", "ocr", "knowledge"]
    assert row["parameters"] > 50_000_000


def test_it_passes_the_common_suite(tmp_path: Path) -> None:
    test_systems.test_shapes_losses_and_a_gradient_for_every_parameter(VARIANT)
    test_systems.test_save_and_load_keep_every_prediction(VARIANT, tmp_path)
    test_systems.test_eight_posts_are_learnt_by_heart(VARIANT)
    test_systems.test_text_of_any_kind_is_tagged(VARIANT)


@pytest.mark.parametrize("kind", [kind for kind in conftest.EVIDENCE if kind != "sentence"])
def test_it_takes_any_evidence(kind: str) -> None:
    variant = ("mean_image", {"evidence": conftest.EVIDENCE[kind]})
    test_systems.test_a_batch_of_n_equals_n_batches_of_one(variant)
    test_systems.test_the_image_counts_where_it_should(variant)
