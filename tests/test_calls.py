"""How many calls lie between a command and the model: a newcomer steps through them."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

import rpbert
from rpbert.cli.predict import predict
from rpbert.cli.train import train
from rpbert.config.reading import write_yaml
from rpbert.models.rpbert import RpBert
from tests.conftest import tiny
from tests.training_runs import data_folder, settings

PACKAGE = str(Path(rpbert.__file__).parent)
LIMIT = 6


class Reached(Exception):
    """Raised by the model."""


@pytest.mark.parametrize("command", ["predict --text", "predict --input", "train"])
def test_few_calls_lie_between_a_command_and_the_model(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package's calls between a command's function and the model, both exclusive."""

    def forward(*_: object) -> None:
        raise Reached

    tiny("rpbert").save(tmp_path / "model")
    # Without a relation the first task is the one that runs the whole model.
    write_yaml(settings(data_folder(tmp_path / "data", relations=False)), tmp_path / "run.yaml")
    monkeypatch.setattr(RpBert, "forward", forward)
    with pytest.raises(Reached) as raised:
        if command == "train":
            train(str(tmp_path / "run.yaml"), tmp_path / "run")
        elif command == "predict --text":
            predict(str(tmp_path / "model"), text="Ada")
        else:
            posts = tmp_path / "posts.jsonl"
            posts.write_text('{"id": "1", "text": "Ada"}\n')
            predict(str(tmp_path / "model"), source=str(posts), output=f"{posts}.out.jsonl")
    ours = [f for f in traceback.extract_tb(raised.value.__traceback__) if PACKAGE in f.filename]
    assert "/cli/" in ours[0].filename
    calls = [f"{Path(frame.filename).name}:{frame.name}" for frame in ours[1:]]
    assert len(calls) <= LIMIT, calls
