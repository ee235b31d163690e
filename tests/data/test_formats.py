"""What other tools write is read without a conversion by hand: each row of docs/formats.md, and
counts by type that seqeval gives for real layouts."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from seqeval.metrics.sequence_labeling import get_entities

from rpbert.data.check import check, render
from rpbert.data.readers import open_data, read_shard
from rpbert.data.reading import ReadingNote
from rpbert.data.words import SPLITTERS
from rpbert.errors import InputError
from tests.data.files import folder_of, jsonl, read, table

TEXT, WORDS, TAGS = "Ada in Lake Como", ["Ada", "in", "Lake", "Como"], ["B-P", "O", "B-L", "I-L"]
TRIPLES = [[0, 3, "P"], [7, 16, "L"]]
SPANS = [{"start": start, "end": end, "label": label} for start, end, label in TRIPLES]
NAMES = ["O", "B-L", "I-L", "B-P", "I-P"]
FEATURES = {"ner_tags": {"feature": {"names": NAMES, "_type": "ClassLabel"}, "_type": "Sequence"}}
NUMBERS = [NAMES.index(tag) for tag in TAGS]
REGIONS = [{"start": 0, "end": 3, "text": "Ada", "labels": ["P"]},
           {"start": 7, "end": 16, "text": "Lake Como", "labels": ["L"]}]  # fmt: skip
RESULT = [{"type": "labels", "value": of} for of in REGIONS] + [{"type": "relation"}]
CANCELLED = {"was_cancelled": True, "result": RESULT[:1]}
LETTERED = {"bioes": ["S-P", "O", "B-L", "E-L"], "bilou": ["U-P", "O", "B-L", "L-L"]}

ROWS: dict[str, list[tuple[str, Any]]] = {
    "CoNLL": [
        ("w.conll", "Ada\tB-P\nin\tO\nLake\tB-L\nComo\tI-L\n"),
        ("w.txt", "IMGID:1\nAda\tB-P\nin\tO\nLake\tB-L\nComo\tI-L\n\n"),
        ("w.bio", "-DOCSTART- -X- -X- O\n\nAda NNP B-NP B-P\nin  IN B-PP O\nLake NNP B-NP B-L\n"
                  "Como NNP I-NP I-L\n"),
        ("w.conllu", "0\tAda\tB-P\n1\tin\tO\n2\tLake\tB-L\n3\tComo\tI-L\n"),
        ("w.tsv", "#\thttp://x\n1\tAda\tB-P\n2\tin\tO\n3\tLake\tB-L\n4\tComo\tI-L\n\n"),
        ("w.iob2", "# id 7f\tdomain=en\nAda _ _ B-P\nin _ _ O\nLake _ _ B-L\nComo _ _ I-L\n"),
    ],
    "Label Studio JSON": [
        ("a.json", [{"id": 1, "data": {"text": TEXT},
                     "annotations": [CANCELLED, {"result": RESULT}]}]),
        ("a.json", [{"id": 1, "data": {"tweet": TEXT}, "annotations": [{"result": RESULT}]}]),
    ],
    "Label Studio JSON-MIN": [("a.json", [{"id": 1, "text": TEXT, "ner": REGIONS}])],
    "Prodigy": [
        ("a.jsonl", [{"text": TEXT, "spans": SPANS, "answer": "accept", "_input_hash": 1},
                     {"text": TEXT, "spans": SPANS, "answer": "reject"}]),
        ("a.jsonl", [{"text": TEXT, "spans": SPANS, "tokens": [{"text": word} for word in WORDS]}]),
    ],
    "doccano": [
        ("a.jsonl", [{"id": 1, "text": TEXT, "label": TRIPLES, "Comments": [], "relations": []}]),
        ("a.jsonl", [{"id": 1, "data": TEXT, "labels": TRIPLES}]),
        ("a.jsonl", [{"id": 1, "text": TEXT, "relations": [{"id": 5, "from_id": 1}], "entities":
                      [{"start_offset": s, "end_offset": e, "label": x} for s, e, x in TRIPLES]}]),
    ],
    "spaCy": [
        ("a.jsonl", [{"text": TEXT, "entities": TRIPLES}]),
        ("a.jsonl", [[TEXT, {"entities": TRIPLES}]]),
        ("a.json", [[TEXT, {"entities": TRIPLES}]]),
        ("a.jsonl", [{"text": TEXT, "ents": SPANS, "tokens":
                      [{"start": m.start(), "end": m.end()} for m in re.finditer(r"\S+", TEXT)]}]),
    ],
    "datasets": [
        ("a.parquet", {"tokens": WORDS, "ner_tags": NUMBERS}),
        ("a.parquet", {"id": "1", "words": WORDS, "labels": TAGS}),
        ("a.jsonl", [{"tokens": WORDS, "ner_tags": TAGS}]),
        ("dataset_info.json", [{"tokens": WORDS, "ner_tags": NUMBERS}]),
        ("a.jsonl", [{"tokens": WORDS, "ner_tags": LETTERED["bilou"]}]),
    ],
    "JSON lines": [
        ("a.ndjson", [{"id": "1", "text": TEXT, "entities": SPANS}]),
        ("a.json", [{"id": "1", "tokens": WORDS, "tags": LETTERED["bioes"]}]),
    ],
}  # fmt: skip


def written(folder: Path, name: str, content: Any) -> Path:
    """One case as a file."""
    if isinstance(content, str):
        return folder_of(folder, {name: content}) / name
    if isinstance(content, dict):
        made = pa.Table.from_pylist([content])
        info = json.dumps({"info": {"features": FEATURES}})
        pq.write_table(made.replace_schema_metadata({"huggingface": info}), folder / name)
        return folder / name
    if name == "dataset_info.json":
        (folder / name).write_text(json.dumps({"features": FEATURES}))
        return jsonl(folder / "a.jsonl", content)
    if name.endswith(".json"):
        (folder / name).write_text(json.dumps(content, indent=1))
        return folder / name
    return jsonl(folder / name, content)


CASES = [(format, *case) for format, cases in ROWS.items() for case in cases]


@pytest.mark.parametrize(("format", "name", "content"), CASES)
def test_every_format_means_the_same_post(
    tmp_path: Path, format: str, name: str, content: Any
) -> None:
    path = written(tmp_path, name, content)
    report = check(path)
    (split,) = report["splits"].values()
    assert (split["posts"], split["words"], split["tagged"]) == (1, 4, 1)
    assert split["entities_strict"] == {"total": 2, "by_type": {"L": 1, "P": 1}}
    known = format in ("CoNLL", "JSON lines")
    assert any("of another tool" in note for note in report["notes"]) != known
    (post,), _ = read(path)
    assert (post.words, post.tags) == (tuple(WORDS), tuple(TAGS))
    assert post.id
    if format != "CoNLL":  # for tagging the text is found as well, and no gold is read
        (bare,) = read_shard(path, SPLITTERS["joined"])
        assert (bare.words, bare.tags) == (post.words, None)


def test_the_table_of_formats_names_each_and_no_other() -> None:
    page = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
    table_ = page.split("\n\n")[2].splitlines()[2:]
    assert [row.split("|")[1].strip() for row in table_] == list(ROWS)
    for row, cases in zip(table_, ROWS.values(), strict=True):
        for suffix in {Path(name).suffix for name, _ in cases if "info" not in name}:
            assert f"`{suffix}`" in row


LAYOUTS = {  # word and tag → line; what stands before and between posts, in real files
    "W-NUT-17": ("wnut", "{word}\t{tag}", "", "\t"),
    "CoNLL-2003": ("conll", "{word} NN B-NP {tag}", "-DOCSTART- -X- O O\n\n", ""),
    "WikiNEuRal": ("conllu", "{place}\t{word}\t{tag}", "", ""),
    "GMNER": ("txt", "{word}\t{tag}", "IMGID:{post}\n", ""),
    "FMNERG": ("txt", "{word}\t{coarse}\t{tag}", "IMGID:{post}\n", ""),
}


@pytest.mark.parametrize("scheme", ["iob1", "iob2", "bioes"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_real_layouts_give_the_counts_of_seqeval(tmp_path: Path, layout: str, scheme: str) -> None:
    """Made posts of the layouts; conlleval's reading of the tags as they are written."""
    suffix, line, head, blank = LAYOUTS[layout]
    draw, counts = random.Random(layout), Counter[str]()
    suffix = {"wnut": "conll", "conll": "txt"}.get(suffix, suffix)
    for split in ("train", "dev", "test"):
        text = ""
        for number in range(80):
            tags: list[str] = []
            while len(tags) < 8:
                label, length = draw.choice(["creative-work", "PER", "LOC"]), draw.randint(1, 3)
                first = (
                    "I-" if scheme == "iob1" else "B-" if length > 1 or scheme == "iob2" else "S-"
                )
                last = "E-" if scheme == "bioes" else "I-"
                inside = [first, *["I-"] * (length - 2), last][:length] if length > 1 else [first]
                tags += [*(mark + label for mark in inside), "O"]
            counts.update(label for label, *_ in get_entities(list(tags)))
            text += head.format(post=number) if "IMGID" in head or number == 0 else ""
            for place, tag in enumerate(tags):
                coarse = tag[:1] + ("-X" if tag != "O" else "")
                text += line.format(word=f"w{place}", tag=tag, place=place, coarse=coarse) + "\n"
            text += blank + "\n"
        (tmp_path / f"{split}.{suffix}").write_text(text)
    splits = check(tmp_path)["splits"].values()
    found = sum((Counter(of["entities_strict"]["by_type"]) for of in splits), Counter[str]())
    assert found == counts
    for post in open_data(tmp_path).read("train"):
        assert set(post.words) <= {f"w{place}" for place in range(20)}  # never a tag


def test_the_columns_of_a_file_are_named_and_chosen(tmp_path: Path) -> None:
    folder_of(tmp_path, {"train.txt": "Ada\tB-P\tB-artist\nin\tO\tO\n", "dev.txt": "x\tO\n"})
    (note,) = (note for note in check(tmp_path)["notes"] if "train" in note)
    assert "the tag from column 3" in note
    assert "also in column 2: data.tag_column" in note
    for column, label in ((-1, "artist"), (3, "artist"), (2, "P"), (-2, "P")):
        (post,) = open_data(tmp_path, tag_column=column).read("train")
        assert (post.words, post.tags) == (("Ada", "in"), (f"B-{label}", "O"))
        assert len(list(open_data(tmp_path, tag_column=column).read("dev"))) == 1
    notes = check(tmp_path, tag_column=2)["notes"]
    assert any("the tag from column 2" in note for note in notes)
    for column in (0, 4, -4):
        with pytest.raises(InputError, match=r"data\.tag_column"):
            list(open_data(tmp_path, tag_column=column).read("train"))
    forced = open_data(tmp_path, scheme="bioes")  # what is said counts more than what is seen
    with pytest.warns(ReadingNote, match="BIOES"):
        assert [post.tags for post in forced.read("train")] == [("B-artist", "O")]


def test_comments_and_hash_signs_of_plain_files(tmp_path: Path) -> None:
    """``#`` is a word of posts; a comment is told by its form, and listed."""
    text = "# id = p1\n#\tO\nNBA\tB-X\n\n# newdoc\nx\tO\n\n#\tO\n"
    posts, quirks = read(folder_of(tmp_path, {"w.conll": text}) / "w.conll")
    assert [(post.id, post.words) for post in posts] == [
        ("p1", ("#", "NBA")), ("w:6", ("x",)), ("w:8", ("#",)),
    ]  # fmt: skip
    assert [quirk.line for quirk in quirks if quirk.kind == "comment"] == [1, 5]
    (tmp_path / "w.conll").write_text("#\tB_X\nx\tO\n")
    with pytest.raises(InputError, match=r"w\.conll:1: found the tag 'B_X'"):
        read(tmp_path / "w.conll")


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"ner_tags": NUMBERS}, "ner_tags looks like gold in 1 row"),
        ({"named": TAGS}, "named looks like gold"),
        ({"mentions": SPANS}, "mentions looks like gold"),
        ({"image_path": "a.jpg"}, "image_path looks like an image in 1 row"),
        ({"img": "a"}, "img looks like an image"),
        ({"media": "b/photo.PNG"}, "media looks like an image"),
        ({"relations": [], "Tag": [], "Comments": None, "lang": "en", "images_seen": 2}, ""),
    ],
)
def test_what_looks_like_gold_or_an_image_and_is_not_read_is_named(
    tmp_path: Path, suffix: str, row: dict[str, Any], told: str
) -> None:
    path = table(tmp_path / f"a{suffix}", [{"id": "1", "tokens": WORDS, **row}])
    notes = [note for note in check(path)["notes"] if "is not read" in note]
    assert len(notes) == bool(told)
    assert told in "".join(notes)
    (post,) = read_shard(path, SPLITTERS["joined"])
    assert post.words == tuple(WORDS)


def test_gold_is_no_slip_where_it_is_not_read(tmp_path: Path) -> None:
    for key, value in (
        ("relations", [{"id": 1}]),
        ("tag", "x"),
        ("entitys", SPANS),
        ("Tags", TAGS),
    ):
        path = jsonl(tmp_path / "a.jsonl", [{"id": "1", "text": TEXT, key: value}])
        assert len(list(read_shard(path, SPLITTERS["joined"]))) == 1
    path = jsonl(tmp_path / "a.jsonl", [{"id": "1", "text": TEXT, "entitys": SPANS}])
    with pytest.raises(InputError, match="'entitys'; expected entities"):
        read(path)


def test_entities_of_people_are_mended_or_refused_with_the_reason(tmp_path: Path) -> None:
    twice = [{"start": 6, "end": 16, "label": "creative work"}] * 2
    row = {
        "id": "1",
        "text": TEXT + " ",
        "entities": [*twice, {"start": 0, "end": 3, "label": "P"}],
    }
    (post,), quirks = read(jsonl(tmp_path / "a.jsonl", [row]))
    assert post.tags == ("B-P", "O", "B-creative work", "I-creative work")
    assert {quirk.kind for quirk in quirks} == {
        "entity given twice",
        "white space at an entity's edge",
    }
    assert "left out of it" in render(check(tmp_path / "a.jsonl"))
    for entity, reason in (
        ({"start": 0, "end": 3, "label": "P "}, "the label 'P '"),
        ({"start": 0, "end": 3, "label": "P", "text": "Lake"}, "'Lake' where the text has 'Ada'"),
        ({"start": 3, "end": 4, "label": "P"}, "cuts a word"),
    ):
        with pytest.raises(InputError, match=re.escape(reason)):
            read(jsonl(tmp_path / "a.jsonl", [row | {"entities": [entity]}]))
    same = [{"start": 0, "end": 3, "label": label} for label in "PL"]
    with pytest.raises(InputError, match="overlap"):
        read(jsonl(tmp_path / "a.jsonl", [row | {"entities": same}]))


def test_other_and_misc_stay_two_types_where_the_data_or_the_model_has_both(tmp_path: Path) -> None:
    folder_of(tmp_path, {"train.txt": "a\tB-OTHER\n", "test.txt": "b\tB-OTHER\n\nc\tB-X\n"})
    with pytest.warns(ReadingNote, match=r"test\.txt: types that the train split does not know: X"):
        assert [post.tags for post in open_data(tmp_path).read("test")] == [("B-MISC",), ("B-X",)]
    known = open_data(tmp_path, types=("MISC", "OTHER"))
    with pytest.warns(ReadingNote, match="the model does not know: X; it has MISC, OTHER"):
        assert [post.tags for post in known.read("test")] == [("B-OTHER",), ("B-X",)]
    with pytest.warns(ReadingNote, match="so all there are"):
        list(open_data(tmp_path, types=("PER",)).read("train"))
    (tmp_path / "dev.txt").write_text("d\tB-MISC\n")
    assert [post.tags for post in open_data(tmp_path).read("train")] == [("B-OTHER",)]


def test_images_are_found_by_ids_with_any_suffix(tmp_path: Path) -> None:
    files = dict.fromkeys(["a1.jpg", "a2.jfif", "a3.PNG", "a4.heic", "a5.b.png", "a6.txt"], "")
    folder_of(tmp_path, {f"images/{name}": "" for name in files})
    asked = {"a1.jpg": "a1.jpg", "a1": "a1.jpg", "a1.png": "a1.jpg", "a2": "a2.jfif",
             "a3.png": "a3.PNG", "a4": "a4.heic", "a5.b": "a5.b.png", "a5": "a5.jpg",
             "a6": "a6.jpg", "a7.gif": "a7.gif"}  # fmt: skip
    text = "".join(f"IMGID:{id}\nx\tO\n\n" for id in asked)
    posts, _ = read(folder_of(tmp_path, {"train.txt": text}), "train")
    assert [post.image for post in posts] == [tmp_path / "images" / of for of in asked.values()]
    (alone,), _ = read(folder_of(tmp_path, {"w.txt": "IMGID:a1\nx\tO\n"}) / "w.txt")
    assert alone.image == tmp_path / "images" / "a1.jpg"
