"""The demo end to end on a handful of posts, and how its result reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rpbert.cli.show import print_demo, print_prediction
from rpbert.errors import InputError
from rpbert.evidence.networks import random_network
from rpbert.synthetic.demo import RESULT, demo, finished, settings_of
from rpbert.types import Entity, Prediction


def test_the_demos_image_becomes_the_papers_grid() -> None:
    """Table 2 and Eq. 1: 49 blocks."""
    given = settings_of("rpbert", Path(), 0).model["evidence"]["blocks"]
    blocks, _ = random_network(given["shape"], {"size": given["image_size"]})
    assert blocks(torch.zeros(1, 3, given["image_size"], given["image_size"])).shape[1] == 49


def test_the_demo_trains_scores_predicts_and_can_be_run_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        said: list[str] = []
        result = demo(tmp_path / "demo", posts=60, say=said.append)
        assert said == [f"{n} of 3: {row['title']}" for n, row in enumerate(result["rows"], 1)]
    assert [row["system"] for row in result["rows"]] == ["rpbert", "none", "bert"]
    assert [row["relation_accuracy"] is None for row in result["rows"]] == [False, True, True]
    assert result["posts"] == {"train": 42, "dev": 6, "test": 12}
    assert all(example["multimodal"]["image"] == "used" for example in result["examples"])
    assert all(Path(example["image"]).exists() for example in result["examples"])
    print_demo(result)
    assert "rpbert predict" in capsys.readouterr().out
    folder = tmp_path / "demo"
    assert finished(folder, seed=0) == json.loads(json.dumps(result))
    assert finished(folder, seed=1) is None
    (folder / RESULT).write_text("{")  # as when it was stopped there
    assert finished(folder, seed=0) is None
    (tmp_path / "mine").write_text("keep")  # a folder of others is never cleared
    with pytest.raises(InputError):
        demo(tmp_path, posts=60)
    assert (tmp_path / "mine").read_text() == "keep"


@pytest.mark.parametrize(
    ("image", "relation", "gauge"),
    [
        ("used", 0.5, "█████░░░░░ 0.50"),
        ("used", None, "used, r not learnt"),
        ("missing", 0.0, "missing"),
    ],
)
def test_a_prediction_shows_its_entities_in_place_and_its_image(
    image: Any, relation: float | None, gauge: str, capsys: pytest.CaptureFixture[str]
) -> None:
    entity = Entity("Lake [Como]", "LOC", 3, 14, 0.9)
    prediction = Prediction("1", "at Lake [Como] 😀", [entity], relation, image)
    print_prediction(prediction.to_dict())
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == "at [LOC Lake [Como]] 😀"
    assert second.split() == ["LOC", "0.90", "3-14", "Lake", "[Como]"]
    assert third.endswith(f": {gauge}")
