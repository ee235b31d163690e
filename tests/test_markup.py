"""Predictions as HTML."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from rpbert import Entity, Prediction
from rpbert.markup import IMAGES


class Reader(HTMLParser):
    """What a browser makes of a fragment: its elements, and its text outside the style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data if self.elements[-1][0] != "style" else ""


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
    marks = [attributes for tag, attributes in read.elements if tag == "mark"]
    assert [mark["data-label"] for mark in marks] == ['X"><i>', "LOC"]
    assert read.text.startswith(f"{HOSTILE}X\"><i> at Lake ComoLOC 'now' r = 0.25")
    assert dict(read.elements)["meter"]["value"] == "0.2500"
    for status, said in IMAGES.items():
        score = None if status == "used" else 0.0
        read = Reader(replace(POST, relation=score, image=status)._repr_html_())  # type: ignore[arg-type]
        assert read.text.endswith(said)
        assert "meter" not in dict(read.elements)


@given(st.text(max_size=40))
def test_any_text_comes_back(text: str) -> None:
    plain = Prediction("1", text, [], None, "none")
    assert Reader(plain._repr_html_()).text == f"{text}no image"
