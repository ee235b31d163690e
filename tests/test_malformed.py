"""Malformed CoNLL, JSON lines, Parquet, YAML: one line that names the place, or left out."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from rpbert.config.reading import config_file, write_yaml
from rpbert.config.run import DataSettings, load_run
from rpbert.data.readers import open_data
from rpbert.data.reading import LeftOut
from rpbert.errors import InputError
from rpbert.models import parse_options
from rpbert.training.relation_sources import relation_posts
from tests.conftest import made_posts, tiny
from tests.data.files import jsonl, table
from tests.hostile import LENGTHS, SYNTAX, mutated
from tests.soak import Soak
from tests.test_cli import run as command
from tests.training_runs import data_folder, settings

WORDS, TAGS = ["RT", "Ada", "Lovelace", "in", "Como"], ["O", "B-PER", "I-PER", "O", "B-LOC"]
POST = {"text": " ".join(WORDS), "tokens": WORDS, "tags": TAGS, "image": "a.jpg"}
ROWS = [{"id": str(i), **POST, "relation": i % 2} for i in range(12)]
TAGGED = [f"{word}\t{tag}" for word, tag in zip(WORDS, TAGS, strict=True)]
CONFIG = config_file("captions").read_bytes().replace(b"data: {}", b"data: {path: posts}")


def broken(path: Path, draw: random.Random) -> tuple[str, str | None]:
    """Break a line of a file, or all of it; returns the place to name, and the post it is in."""
    if path.suffix in (".yaml", ".parquet"):
        whole = CONFIG if path.suffix == ".yaml" else b""
        whole = whole or table(path, ROWS).read_bytes()
        path.write_bytes(mutated(whole, draw, LENGTHS + SYNTAX, 5))
        return re.escape(f"{path}:"), None
    lines: list[tuple[str, bytes]] = []
    for row in ROWS:
        conll = [f"IMGID:{row['id']}", *TAGGED, ""]
        of = [json.dumps(row)] if path.suffix == ".jsonl" else conll
        lines += [(str(row["id"]), line.encode()) for line in of]
    at = draw.choice([i for i, (_, line) in enumerate(lines) if line])
    id, line = lines[at]
    lines[at] = id, mutated(line, draw, SYNTAX, 3).replace(b"\n", b"")
    path.write_bytes(b"".join(line + b"\n" for _, line in lines))
    # Of a broken header the first word may be told, which is then outside any post.
    return re.escape(f"{path}:") + f"({at + 1}|{at + 2}): ", id


def outcome(path: Path, draw: random.Random) -> str:
    """Break a file and read it; faults are told in one line, and leave every other post."""
    place, touched = broken(path, draw)
    try:
        if path.suffix == ".yaml":
            parse_options(load_run(path).model, path)
        else:
            list(open_data(path.parent).read("train"))
        return "harmless"  # what was broken can be meant
    except InputError as error:
        line = str(error)
        assert re.match(place, line), line
        assert line.isprintable()
        assert len(line) < 600 + len(str(path))
    if touched is None:
        return "refused"
    left_out = LeftOut()
    posts = open_data(path.parent, faults=left_out).read("train")
    found = [(post.id, post.text, [*post.words], [*(post.tags or ())]) for post in posts]
    assert re.search(place, str(left_out))
    for row in ROWS:
        if row["id"] != touched:
            assert (row["id"], row["text"], row["tokens"], row["tags"]) in found
    return "left out"


def broken_files(folder: Path, each: int) -> Counter[str]:
    """Break so many files of each kind; counts all outcomes."""
    counts: Counter[str] = Counter()
    for suffix in (".txt", ".jsonl", ".parquet", ".yaml"):
        draw, path = random.Random(suffix), folder / suffix / f"train{suffix}"
        path.parent.mkdir()
        counts.update(outcome(path, draw) for _ in range(each))
    return counts


def test_some_malformed_files(tmp_path: Path) -> None:
    counts = broken_files(tmp_path, 30)
    assert min(counts["refused"], counts["left out"]) > 30


@pytest.mark.slow("malformed CoNLL, JSON lines, Parquet, YAML", "500")
def test_many_malformed_files(tmp_path: Path, soak: Soak) -> None:
    counts = broken_files(tmp_path, 125)
    soak(
        f"{counts['refused']} refused in one line with the place, {counts['left out']} so and "
        f"gone on behind with --lenient, {counts['harmless']} harmless"
    )


ALIASES = [f"{c}: &{c} [{(f'*{b},') * 9}]" for b, c in pairwise("xabcdefgh")]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a: 1\nb: !!python/object/apply:os.system [ls]\n", r"run\.yaml:2: "),
        ("a: 1\na: 2\n", r"run\.yaml:2: found .*'a'"),
        ("a: &a [*a]\n", r"run\.yaml:1: .*aliases"),
        ("a: !!int x\n", r"run\.yaml:1: .*'x'"),
        ("a: 1\n\nb: \0\n", r"run\.yaml:3: .*'\\x00'"),
        ("a: " + "[" * 5000, r"run\.yaml:1: .*nested"),
        ("a" * (1 << 21), r"run\.yaml: found 2,097,152 bytes"),
        ("\n".join(["x: &x [1,1,1,1,1,1,1,1,1]", *ALIASES]), "aliases"),
    ],
)
def test_yaml_of_strangers(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(InputError, match=found):
        load_run(tmp_path / "run.yaml")


def test_training_and_scoring_leave_faulty_rows_out_and_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = data_folder(tmp_path / "data"), tmp_path / "run"
    for split in ("train", "test"):
        text = (data / f"{split}.txt").read_text()
        (data / f"{split}.txt").write_text(text.replace("B-PER", "PER", 1))
    write_yaml(settings(data, "bilstm_crf", epochs=1), tmp_path / "run.yaml")
    given = ["train", tmp_path / "run.yaml", "--output", run]
    code, _, err = command(capsys, *given)
    assert (code, "train.txt:5: found the tag 'PER'" in err) == (2, True)
    code, _, err = command(capsys, *given, "data.lenient=true")
    assert code == 0
    # The two files of train and test; each of them is read once.
    assert "data.lenient: 2 faulty rows" in err
    assert "Task tagging: 7 posts" in err
    code, out, err = command(capsys, "evaluate", run, data, "--lenient", "--json")
    assert (code, json.loads(out)["tags"]["posts"]) == (0, 7)
    assert "1 faulty row" in err


def test_relations_of_other_data_leave_faulty_rows_out_and_say_so(tmp_path: Path) -> None:
    row = {"text": "RT", "relation": 1, "image": "data/images/0.jpg"}
    relations = jsonl(tmp_path / "r.jsonl", [{"id": "0", **row}, {"id": "x"}, {"id": "1", **row}])
    path = data_folder(tmp_path / "data")
    given = DataSettings(path=path, relations=relations, lenient=True)
    reader = tiny("rpbert").collator().evidence
    supply = relation_posts(given, made_posts(), "joined", reader, seed=0)
    assert [post.id for post in supply.known] == ["0", "1"]
    assert "labels (2 posts); data.lenient: 1 faulty row" in supply.description
