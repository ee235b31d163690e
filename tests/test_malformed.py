"""Malformed CoNLL, JSON lines, Parquet, YAML: one line that names the place, or gone on behind."""

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
from tests import malformed
from tests.conftest import made_posts, tiny
from tests.malformed import Broken, whole
from tests.soak import Soak
from tests.test_cli import run as command
from tests.training_runs import data_folder, settings

KINDS: dict[str, Callable[[Path, random.Random], Broken]] = {
    "CoNLL": malformed.conll,
    "JSON lines": malformed.jsonl,
    "Parquet": malformed.parquet,
    "YAML": malformed.settings,
}
EXPECTED = {
    row["id"]: (row["text"], tuple(row["tokens"]), tuple(row["tags"]), row["relation"])
    for row in malformed.rows()
}


def read(broken: Broken) -> None:
    """Read all of a broken file."""
    if broken.path.suffix == ".yaml":
        parse_options(load_run(broken.path).model, broken.path)
    else:
        list(open_data(broken.path).read("train"))


def is_told(kind: str, broken: Broken) -> bool:
    """Whether a file is refused, which has to be in one line that begins with the place."""
    try:
        read(broken)
    except InputError as error:
        line = str(error)
        assert "\n" not in line
        assert broken.place.match(line), line
        assert line.isprintable()
        assert len(line) < 600 + len(str(broken.path))
        return True
    return False  # what was broken can be meant


def goes_on(kind: str, broken: Broken) -> bool:
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
    if broken.touched is not None:
        expected = {id: post for id, post in EXPECTED.items() if id not in broken.touched}
        if kind == "CoNLL":  # whose relations and texts are elsewhere
            expected = {id: (*post[:3], None) for id, post in expected.items()}
        found = whole(posts)
        assert {id: found.get(id) for id in expected} == expected
    return True


def broken_files(folder: Path, each: int) -> Counter[str]:
    """Break files of each kind until so many were refused; counts what became of them."""
    counts: Counter[str] = Counter()
    for kind, breaking in KINDS.items():
        draw, tried = random.Random(kind), 0
        while counts[kind] < each:
            tried += 1
            assert tried < 4 * each + 20, f"{kind}: too much is let pass"
            broken = breaking(folder / kind / str(tried), draw)
            if not is_told(kind, broken):
                counts["harmless"] += 1
                continue
            counts[kind] += 1
            if kind != "YAML":
                counts["gone on behind"] += goes_on(kind, broken)
    return counts


def test_some_malformed_files(tmp_path: Path) -> None:
    assert broken_files(tmp_path, 25)["gone on behind"] > 25


@pytest.mark.slow("malformed CoNLL, JSON lines, Parquet, YAML", "500")
def test_many_malformed_files(tmp_path: Path, soak: Soak) -> None:
    counts = broken_files(tmp_path, 125)
    told = sum(counts[kind] for kind in KINDS)
    assert told == 500
    soak(
        f"{told} refused in one line with the place; {counts['gone on behind']} of "
        f"{told - counts['YAML']} gone on behind with --lenient; {counts['harmless']} more harmless"
    )


def test_training_and_scoring_go_on_behind_faulty_rows_and_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = data_folder(tmp_path / "data")
    for split in ("train", "test"):
        text = (data / f"{split}.txt").read_text()
        (data / f"{split}.txt").write_text(text.replace("B-PER", "PER", 1))
    write_yaml(settings(data, "bilstm_crf", epochs=1), tmp_path / "run.yaml")
    given = ["train", tmp_path / "run.yaml", "data.lenient=true", "--output", tmp_path / "run"]
    code, _, err = command(capsys, *given[:2], *given[3:])
    assert (code, "train.txt:5: found the tag 'PER'" in err) == (2, True)
    code, _, err = command(capsys, *given)
    assert code == 0
    # The two files of train and test; each of them is read once.
    assert "data.lenient: 2 faulty rows left out or mended" in err
    assert "Task tagging: 7 posts" in err
    assert command(capsys, "evaluate", tmp_path / "run", data)[0] == 2
    code, out, err = command(capsys, "evaluate", tmp_path / "run", data, "--lenient", "--json")
    assert (code, json.loads(out)["tags"]["posts"]) == (0, 7)
    assert "1 faulty row left out or mended" in err


def test_relations_of_other_data_go_on_behind_faulty_rows_and_say_so(tmp_path: Path) -> None:
    """Those that Task#1 alone learns from."""
    data = data_folder(tmp_path / "data")
    row = '{"id": "%d", "text": "RT", "image": "data/images/%d.jpg", "relation": 1}'
    rows = [row % (i, i) for i in range(2)]
    (tmp_path / "relations.jsonl").write_text("\n".join([rows[0], "{broken", rows[1]]))
    given = {"path": data, "relations": tmp_path / "relations.jsonl"}
    reader, posts = tiny("rpbert").collator().evidence, made_posts()
    with pytest.raises(InputError, match=r"relations\.jsonl:2"):
        relation_posts(DataSettings(**given), posts, "joined", reader, seed=0)
    supply = relation_posts(DataSettings(**given, lenient=True), posts, "joined", reader, seed=0)
    assert [post.id for post in supply.known] == ["0", "1"]
    assert "labels (2 posts); data.lenient: 1 faulty row left out or mended" in supply.description


def test_what_was_left_out_is_one_line() -> None:
    left_out = LeftOut()
    for number in range(5):
        left_out(InputError(f"a.txt:{number}", "x", "y"))
    assert str(left_out) == (
        "5 faulty rows left out or mended: a.txt:0: found x; expected y | "
        "a.txt:1: found x; expected y | a.txt:2: found x; expected y | …"
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a: 1\nb: !!python/object/apply:os.system [ls]\n", r"run\.yaml:2: found broken YAML"),
        ("a: 1\na: 2\n", r"run\.yaml:2: found .*the key 'a' a second time"),
        ("a: &a [*a]\n", r"run\.yaml:1: found aliases that stand for more than 100,000 values"),
        ("a: !!int x\n", r"run\.yaml:1: found broken YAML \('x' is no int"),
        ("a: 1\n\nb: \0\n", r"run\.yaml:3: found the character '\\x00'"),
        ("a: " + "[" * 5000, r"run\.yaml:1: found YAML nested too deeply"),
        ("a" * (1 << 21), r"run\.yaml: found 2,097,152 bytes"),
    ],
)
def test_yaml_of_strangers(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(InputError, match=found):
        load_run(tmp_path / "run.yaml")


def test_a_few_lines_of_aliases_do_not_fill_the_memory(tmp_path: Path) -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 10)}]" for i in range(30)]
    (tmp_path / "run.yaml").write_text("\n".join(lines))
    with pytest.raises(InputError, match="aliases"):
        load_run(tmp_path / "run.yaml")


def test_aliases_of_a_few_values_are_taken(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        "model: {system: bilstm_crf}\ndata: {path: posts}\n"
        "training: {tagging: &rates {head: 1, encoder: 1, projection: 1, visual: 1}, "
        "relation: *rates}\n"
    )
    run = load_run(tmp_path / "run.yaml")
    assert run.training.tagging == run.training.relation
