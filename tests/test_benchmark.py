"""`rpbert benchmark` on tiny sizes; operations against a count by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rpbert import benchmark
from rpbert.benchmark import COUNTED, SHAPES, Work, counting, run
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


def test_the_whole_as_json(parts: None, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = command(capsys, *TINY, "--precision", "fp32", "--profile", "--json")
    found = json.loads(out)
    assert (code, "inference fp32" in err) == (0, True)
    assert set(found) == {
        *("work", "machine", "inference", "training", "training_gflop_per_post"),
        *("growth", "profile"),
    }
    assert set(found["inference"]["fp32"]) == {
        *("posts_per_second", "latency_seconds", "peak_gib", "gflop_per_post"),
        *("gflop_per_second", "max_difference", "first_prediction_seconds"),
    }
    assert set(found["training"]["fp32"]) == {"posts_per_second", "peak_gib", "moments"}
    assert set(found["training"]["fp32"]["posts_per_second"]) == {"relation", "tagging"}
    assert {axis: list(rates) for axis, rates in found["growth"]["fp32"].items()} == {
        "batch": ["1", "2", "4", "8", "16", "32"],
        "length": ["1", "2", "4", "8"],
        "posts": ["1", "2", "4"],
    }
    assert list(found["profile"]) == ["inference fp32", "training fp32"]


def test_a_table_beside_an_earlier_one(
    parts: None, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    work = Work(size="tiny", batch=2, posts=4, repeats=1)
    found = json.loads(json.dumps(run(work, ["fp32"], print, growth=False)))
    found["inference"]["fp32"]["posts_per_second"]["median"] *= 2
    found["training"]["fp32"]["posts_per_second"]["tagging"]["median"] *= 2
    (tmp_path / "earlier.json").write_text(json.dumps(found))
    found["work"] |= {"size": "published", "batch": 16, "repeats": 9}
    (tmp_path / "other.json").write_text(json.dumps(found))
    given = (*TINY, "--precision", "fp32", "--no-growth", "--compare")
    capsys.readouterr()
    code, out, _ = command(capsys, *given, tmp_path / "earlier.json")
    ratios = [line.split()[-4] for line in out.splitlines() if line.startswith("fp32 ")]
    assert (code, ratios) == (0, ["0.50", "1.00", "0.50"])
    assert "other work" not in out
    out = command(capsys, *given, tmp_path / "other.json")[1]
    assert "other work: size published, batch 16\n" in out


@pytest.mark.parametrize(
    ("options", "named"),
    [
        *((["--compare", content], "other.json") for content in ("no JSON", "[]", "{}", "")),
        (["--compare", "{}", "--json"], "--compare"),
        (["--precision", "fp32,fp8"], "fp8"),
        (["--device", "cuda", "--precision", "int8"], "int8"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_runs(
    options: list[str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "other.json"
    if options[0] == "--compare":
        if options[1]:
            path.write_text(options[1])
        options = ["--compare", str(path), *options[2:]]
    code, out, err = command(capsys, *TINY, *options)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert named in err


def test_a_part_in_a_process_of_its_own() -> None:
    machine = benchmark._in_a_process(benchmark._machine, Work(size="tiny", threads=1), {})
    assert machine["threads"] == 1
    assert set(machine["products"]) >= {"fp32", "bf16"}


def test_products_convolutions_and_attention_are_counted() -> None:
    query = torch.randn(1, 2, 5, 4)  # of 2 heads, 5 tokens and 4 numbers
    with torch.inference_mode(), counting() as counter:
        F.scaled_dot_product_attention(query, query, query)
        nn.Linear(3, 7)(torch.randn(2, 3))
        nn.Conv2d(3, 8, 3, padding=1)(torch.randn(1, 3, 6, 6))
    attention = 2 * (2 * 2 * 5 * 5 * 4)  # scores and what they weigh: a product and a sum as two
    assert counter.get_total_flops() == attention + 2 * 2 * 3 * 7 + 2 * 8 * 6 * 6 * 3 * 9


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
