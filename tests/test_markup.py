"""Predictions as HTML and for displaCy."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpbert import Entity, Prediction
from rpbert.types import ImageStatus


class Reader(HTMLParser):
    """What a browser makes of a fragment: its elements, and its text by the element it is in."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: dict[str, str] = {}
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.text[tag] = self.text.get(tag, "") + data


HOSTILE = '<script>alert("1")</script> & </p></style> <b'
END = len(HOSTILE)
ENTITIES = [
    Entity(HOSTILE, 'X"><i>', 0, END, 0.5),
    Entity("Lake Como", "LOC", END + 4, END + 13, 0.98),
]
POST = Prediction("1", f"{HOSTILE} at Lake Como 'now'", ENTITIES, 0.25, "used")


def test_a_post_that_looks_like_html_is_shown_as_text() -> None:
    read = Reader(POST._repr_html_())
    tags = ["div", "style", "p", "mark", "span", "mark", "span", "p", "meter"]
    assert [tag for tag, _ in read.elements] == tags
    assert not read.open
    marks = [attributes for tag, attributes in read.elements if tag == "mark"]
    assert [mark["data-label"] for mark in marks] == ['X"><i>', "LOC"]
    assert marks[1]["title"] == "LOC, score 0.98"
    shown = f"{HOSTILE}X\"><i> at Lake ComoLOC 'now'"
    assert read.text["p"].startswith(shown)
    assert dict(read.elements)["meter"]["value"] == "0.2500"
    assert "r = 0.25" in read.text["p"]


@given(st.text(max_size=40))
def test_any_text_comes_back(text: str) -> None:
    plain = Prediction("1", text, [], None, "none")
    assert Reader(plain._repr_html_()).text["p"] == f"{text}no image"


@pytest.mark.parametrize(
    ("image", "relation", "said"),
    [("used", None, "not learnt"), ("none", 0.0, "no image"),
     ("missing", 0.0, "missing"), ("unreadable", 0.0, "unreadable")],
)  # fmt: skip
def test_what_became_of_the_image_is_said(
    image: ImageStatus, relation: float | None, said: str
) -> None:
    read = Reader(Prediction("1", "Ada", [], relation, image)._repr_html_())
    assert said in read.text["p"]
    assert "meter" not in dict(read.elements)


def test_displacy_draws_it() -> None:
    """spaCy's own renderer finds every entity with its label."""
    displacy = pytest.importorskip("spacy").displacy
    post = replace(POST, entities=[replace(e, label="LOC") for e in POST.entities])
    drawn = Reader(displacy.render(post.to_displacy(), style="ent", manual=True, jupyter=False))
    assert [tag for tag, _ in drawn.elements].count("mark") == 2
    shown = " ".join(drawn.text["mark"].split())
    assert shown == f"{' '.join(HOSTILE.split())} LOC Lake Como LOC"
    assert [mark["label"] for mark in POST.to_displacy()["ents"]] == ['X"><i>', "LOC"]
