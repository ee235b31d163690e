"""Malformed CoNLL, JSON lines, Parquet, YAML: one line that names the place, or left out."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from rpbert.config.reading import write_yaml
from rpbert.config.run import DataSettings, load_run
from rpbert.data.readers import open_data
from rpbert.data.reading import LeftOut
from rpbert.errors import InputError
from rpbert.models import parse_options
from rpbert.training.relation_sources import relation_posts
from tests import hostile
from tests.conftest import made_posts, tiny
from tests.data.files import jsonl
from tests.hostile import ROWS, Broken
from tests.soak import Soak
from tests.test_cli import run as command
from tests.training_runs import data_folder, settings

KINDS: dict[str, Callable[[Path, random.Random], Broken]] = {
    "CoNLL": hostile.conll,
    "JSON lines": hostile.jsonl,
    "Parquet": hostile.parquet,
    "YAML": hostile.settings,
}


def is_refused(broken: Broken) -> bool:
    """Whether a file is refused, which has to be in one line that begins with the place."""
    try:
        if broken.path.suffix == ".yaml":
            parse_options(load_run(broken.path).model, broken.path)
        else:
            list(open_data(broken.path).read("train"))
    except InputError as error:
        line = str(error)
        assert broken.place.match(line), line
        assert line.isprintable()
        assert len(line) < 600 + len(str(broken.path))
        return True
    return False  # what was broken can be meant


def is_left_out(broken: Broken) -> bool:
    """Whether lenient reading counts the fault and leaves every other post as it was."""
    left_out = LeftOut()
    try:
        posts = list(open_data(broken.path, faults=left_out).read("train"))
    except InputError:
        if broken.touched is None:
            return False  # not even a lenient reader reads a part of a damaged file
        raise
    assert left_out.count >= 1
    assert broken.place.search(str(left_out))
    found = {post.id: post for post in posts}
    whole = [row for row in ROWS if broken.touched is not None and row["id"] not in broken.touched]
    for row in whole:
        post = found[row["id"]]
        assert (post.text, list(post.words)) == (row["text"], row["tokens"])
        assert list(post.tags or ()) == row["tags"]
        assert post.relation in (row["relation"], None)
    return True


def broken_files(folder: Path, each: int) -> Counter[str]:
    """Break files of each kind until so many were refused; counts all outcomes."""
    counts: Counter[str] = Counter()
    for kind, breaking in KINDS.items():
        draw, tried = random.Random(kind), 0
        while counts[kind] < each:
            tried += 1
            assert tried < 4 * each + 20, f"{kind}: too much is let pass"
            broken = breaking(folder / kind / str(tried), draw)
            if not is_refused(broken):
                counts["harmless"] += 1
                continue
            counts[kind] += 1
            if kind != "YAML":
                counts["left out"] += is_left_out(broken)
    return counts


def test_some_malformed_files(tmp_path: Path) -> None:
    assert broken_files(tmp_path, 25)["left out"] > 25


@pytest.mark.slow("malformed CoNLL, JSON lines, Parquet, YAML", "500")
def test_many_malformed_files(tmp_path: Path, soak: Soak) -> None:
    counts = broken_files(tmp_path, 125)
    refused = sum(counts[kind] for kind in KINDS)
    soak(
        f"{refused} refused in one line with the place; {counts['left out']} of "
        f"{refused - counts['YAML']} left out with --lenient; {counts['harmless']} more harmless"
    )


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
        ("\n".join(["x: &x [1,1,1,1,1,1,1,1,1]", *hostile.ALIASES]), "aliases"),
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
    assert command(capsys, "evaluate", run, data)[0] == 2
    code, out, err = command(capsys, "evaluate", run, data, "--lenient", "--json")
    assert (code, json.loads(out)["tags"]["posts"]) == (0, 7)
    assert "1 faulty row" in err


def test_relations_of_other_data_leave_faulty_rows_out_and_say_so(tmp_path: Path) -> None:
    row = {"text": "RT", "relation": 1}
    rows = [{"id": str(i), "image": f"data/images/{i}.jpg", **row} for i in range(3)]
    relations = jsonl(tmp_path / "relations.jsonl", [rows[0], {"id": "x"}, rows[1]])
    given = DataSettings(path=data_folder(tmp_path / "data"), relations=relations)
    reader, posts = tiny("rpbert").collator().evidence, made_posts()
    with pytest.raises(InputError, match=r"relations\.jsonl:2"):
        relation_posts(given, posts, "joined", reader, seed=0)
    lenient = given.model_copy(update={"lenient": True})
    supply = relation_posts(lenient, posts, "joined", reader, seed=0)
    assert [post.id for post in supply.known] == ["0", "1"]
    assert "labels (2 posts); data.lenient: 1 faulty row" in supply.description
