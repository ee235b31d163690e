"""Published relation labels joined with a user's own tweets, damage and all."""

from __future__ import annotations

from pathlib import Path

import pytest

from rpbert.errors import InputError
from tests.data.files import folder_of, jsonl, read

HEADER = (
    "tweet_id,text_is_represented,image_adds,image_adds_text_repr,image_adds_text_notrepr,"
    "image_notadds_text_repr,image_notadds_text_notrepr,,,"
)


def trc_folder(root: Path, rows: list[str], tweets: dict[str | int, str]) -> Path:
    text = "\r\n".join([HEADER, *rows]) + "\r\n"
    folder_of(root, {"labels.csv": text, "images/11.png": ""})
    jsonl(root / "tweets.jsonl", ({"id": id, "text": text} for id, text in tweets.items()))
    return root


def test_relation_labels_are_joined_with_the_users_tweets(tmp_path: Path) -> None:
    rows = [
        "10,0,0,0,0,0,1,,,",
        "11,0,1,0,1,0,0,,,",
        "6.92E+17,1,1,1,0,0,0,,,",
        '12,so, it \\" said",1,1,1,0,0,0,',
        "13,0,0,0,0,1,,,,",
        "14,0,1,1,0,0,0,,,",
        "15,1,0,0,0,1,0,,,",
    ]
    tweets = {"12": "twelve", "10": "ten", 10: "again", "6.92E+17": "never joined", "99": "alone"}
    folder = trc_folder(tmp_path, rows, {11: "eleven", **tweets})
    posts, quirks = read(folder, "train")
    assert [(post.id, post.text, post.relation, post.image) for post in posts] == [
        ("10", "ten", 0.0, folder / "images" / "10.jpg"),
        ("11", "eleven", 1.0, folder / "images" / "11.png"),
        ("12", "twelve", 1.0, folder / "images" / "12.jpg"),
    ]
    assert [(quirk.file, quirk.line, quirk.kind) for quirk in quirks] == [
        ("tweets.jsonl", 4, "tweet given twice"),
        ("labels.csv", 1, "CRLF line ends"),
        ("labels.csv", 2, "no image for the label"),
        ("labels.csv", 4, "id rewritten by a spreadsheet, dropped"),
        ("labels.csv", 5, "row shifted by commas, recovered"),
        ("labels.csv", 5, "no image for the label"),
        ("labels.csv", 6, "damaged row, dropped"),
        ("labels.csv", 7, "damaged row, dropped"),
        ("labels.csv", 8, "no tweet for the label"),
    ]


def test_the_published_labels_in_full(shared: Path, tmp_path: Path) -> None:
    labels = (shared / "trc" / "textimage.csv").read_bytes()
    folder_of(tmp_path, {"any.csv": labels})
    rows = [line.split(",")[0] for line in labels.decode().splitlines()[1:]]
    jsonl(tmp_path / "tweets.jsonl", ({"id": id, "text": "made"} for id in rows))
    (train, quirks), (test, more) = read(tmp_path, "train"), read(tmp_path, "test")
    dropped = [q.line for q in quirks + more if q.kind.startswith("id rewritten")]
    shifted = [q.line for q in quirks + more if "shifted" in q.kind or "damaged" in q.kind]
    assert len(dropped) == len(set(dropped)) == 28
    assert len(shifted) == len(set(shifted)) == 34
    lost = set(dropped) | {q.line for q in quirks + more if q.kind.startswith("damaged")}
    # Published: 4,471 rows, of which the first 3,576 train; line 1 is the header.
    assert [post.id for post in train + test] == [
        id for line, id in enumerate(rows, start=2) if line not in lost
    ]
    assert len(train) == 3576 - sum(line <= 3577 for line in lost)
    assert len(train) + len(test) == 4471 - len(lost)
    share = sum(post.relation == 0 for post in train + test) / len(train + test)
    assert share == pytest.approx(0.558, abs=0.001)


def test_labels_and_tweets_that_do_not_meet_are_refused(tmp_path: Path) -> None:
    folder = trc_folder(tmp_path, ["10,0,0,0,0,0,1"], {"11": "x"})
    with pytest.raises(InputError, match=r"tweets\.jsonl: found none of the 1 ids"):
        read(folder, "train")
    (folder / "tweets.jsonl").unlink()
    with pytest.raises(InputError, match=r"no tweets\.jsonl beside labels\.csv"):
        read(folder, "train")
