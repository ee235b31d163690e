"""How many calls lie between a command and the model: a newcomer steps through them."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

import rpbert
from rpbert.config.reading import write_yaml
from rpbert.models.rpbert import RpBert
from tests.conftest import tiny
from tests.training_runs import data_folder, settings

PACKAGE = str(Path(rpbert.__file__).parent)
LIMIT = 6


class Reached(Exception):
    """Raised by the model."""


def calls_to_forward(run: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The package's calls between a command's function and the model, both exclusive."""

    def forward(*_: object) -> None:
        raise Reached

    monkeypatch.setattr(RpBert, "forward", forward)
    with pytest.raises(Reached) as raised:
        run()
    ours = [f for f in traceback.extract_tb(raised.value.__traceback__) if PACKAGE in f.filename]
    assert "/cli/" in ours[0].filename
    return [f"{Path(frame.filename).name}:{frame.name}" for frame in ours[1:]]


@pytest.mark.parametrize("source", ["--text", "--input"])
def test_few_calls_lie_between_predict_and_the_model(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rpbert.cli.predict import predict

    tiny("rpbert").save(tmp_path / "model")
    (tmp_path / "posts.jsonl").write_text('{"id": "a", "text": "Ada at Como"}\n')
    given = {"text": "Ada"} if source == "--text" else {"source": str(tmp_path / "posts.jsonl")}
    calls = calls_to_forward(lambda: predict(str(tmp_path / "model"), **given), monkeypatch)  # type: ignore[arg-type]
    assert len(calls) <= LIMIT, calls


def test_few_calls_lie_between_train_and_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rpbert.cli.train import train

    # Without a relation the first task is the one that runs the whole model.
    chosen = settings(data_folder(tmp_path / "data", relations=False))
    write_yaml(chosen, tmp_path / "run.yaml")
    calls = calls_to_forward(lambda: train(tmp_path / "run.yaml", tmp_path / "run"), monkeypatch)
    assert len(calls) <= LIMIT, calls
