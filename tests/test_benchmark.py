"""`rpbert benchmark` on tiny sizes; operations against a count by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from rpbert import benchmark
from rpbert.benchmark import COUNTED, SHAPES, Work
from tests.test_cli import run as command

TINY = ("benchmark", "--size", "tiny", "--batch", "2", "--posts", "4", "--repeats", "1")
WORK = Work("bert", "tiny", batch=2, posts=2, repeats=1)


@pytest.fixture(scope="module")
def parts() -> Iterator[None]:
    """Parts run in this process; one that is asked for again gives the same at once."""
    given: dict[str, Any] = {}

    def here(measure: Any, work: Work, arguments: dict[str, Any]) -> Any:
        key = f"{measure.__name__} { {k: v for k, v in arguments.items() if k != 'folder'} }"
        if key not in given or "folder" in arguments:
            given[key] = json.loads(json.dumps(measure(work, **arguments)))
        return given[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "_in_a_process", here)
        yield


def test_the_whole_as_json_and_as_a_table(parts: None, capsys: pytest.CaptureFixture[str]) -> None:
    given = (*TINY, "--precision", "fp32")
    code, out, err = command(capsys, *given, "--json")
    found = json.loads(out)
    assert (code, "inference fp32" in err) == (0, True)
    growth = {axis: list(rates) for axis, rates in found["growth"]["fp32"].items()}
    assert growth["posts"] == ["1", "2", "4"]
    lines = [line for line in command(capsys, *given)[1].splitlines() if line[:4] == "fp32"]
    assert len(lines) == 4  # inference, two tasks, growth


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("--precision fp32,fp8", "fp8"),
        ("--device cuda --precision int8", "int8"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_runs(
    options: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = command(capsys, *TINY, *options.split())
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert named in err


def test_a_part_in_a_process_of_its_own() -> None:
    machine = benchmark._in_a_process(benchmark._machine, Work(size="tiny", threads=1), {})
    assert machine["threads"] == 1
    assert set(machine["products"]) >= {"fp32", "bf16"}


def by_hand(first: int = 0, lstm: bool = True) -> float:
    """Operations of a post forwards: products of BERT, of the characters', and the words' LSTM."""
    shape = SHAPES["tiny"]["model"]
    keys = ("hidden_size", "intermediate_size", "num_hidden_layers")
    wide, inner, layers = (shape["encoder"]["shape"][key] for key in keys)
    keys = ("lstm_hidden", "word_dimension", "character_dimension")
    hidden, vector, letter = (shape["tagger"][key] for key in keys)
    model = WORK.model()
    collator, total = model.collator(), 0
    for post in WORK.texts(first, COUNTED):
        batch = collator([post])
        tokens, words = batch.subwords.shape[1], len(post.words)
        letters = int((batch.form_characters != 0).sum())
        linear = tokens * (4 * wide * wide + 2 * wide * inner)
        attention = 2 * tokens * tokens * wide
        read = vector + 2 * letter + wide + 2 * hidden  # by the first layer, and by the second
        reading = words * 2 * 4 * hidden * (read + 2 * hidden)
        spelling = letters * 2 * 4 * letter * (letter + letter)
        tags = words * 2 * hidden * len(model.vocabulary.tags)
        total += layers * (linear + attention) + lstm * reading + spelling + tags
    return 2 * total / COUNTED


def test_the_operations_of_a_post_are_those_counted_by_hand() -> None:
    exact, half = benchmark._inference(WORK, "fp32"), benchmark._inference(WORK, "bf16")
    assert exact["gflop_per_post"] == pytest.approx(by_hand() / 1e9, rel=1e-9)
    assert exact["max_difference"] < 1e-5 < half["max_difference"] < 0.1
    assert exact["latency_seconds"]["p50"] <= exact["latency_seconds"]["p95"]


def test_a_step_backwards_takes_twice_the_operations_of_a_step_forwards() -> None:
    # Each product has two of its size behind it; whether the words' LSTM is seen, its kernel says.
    low, high = (by_hand(COUNTED, lstm) / 1e9 for lstm in (False, True))
    found = benchmark._operations(replace(WORK, batch=4))["tagging"]
    assert 2.95 * low < found < 3.05 * high
