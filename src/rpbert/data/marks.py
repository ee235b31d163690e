"""Notices posts whose ``#`` and ``@`` are split in another way than a model's training posts were.

Raw text is split in the model's own way. Posts that come as words, or as text with spaces where
words were cut, bring their own, and a model of the other way then meets words it never saw.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from rpbert.types import Post

ENOUGH = 20
"""Marks that are seen before anything is said."""
MOST = 0.75
"""Share of them that has to be of the other style."""

_SHOWN = {
    "joined": "begin a longer word, as in Twitter-2015",
    "apart": "stand apart, as in Twitter-2017",
}


class SplittingWarning(UserWarning):
    """Posts are split in another way than those a model was trained on."""


class MarksWatch:
    """Counts marks over all posts that pass, and warns once.

    Args:
        style: how the training posts were split, the name of one of `rpbert.data.words.SPLITTERS`.
    """

    def __init__(self, style: str) -> None:
        self.style = style
        self.marks = self.others = 0
        self.told = False

    def see(self, posts: Iterable[Post]) -> None:
        """Count the marks of some posts."""
        if self.told:
            return
        marked = [word for post in posts for word in post.words if word[:1] in ("#", "@")]
        apart = marked.count("#") + marked.count("@")
        self.marks += len(marked)
        self.others += len(marked) - apart if self.style == "apart" else apart
        if self.marks >= ENOUGH and self.others > MOST * self.marks:
            self.told = True
            other = "joined" if self.style == "apart" else "apart"
            warnings.warn(
                f"of {self.marks} # and @ so far {self.others} {_SHOWN[other]}; those of the "
                f"model's training posts {_SHOWN[self.style]}: give the raw text, or words that "
                "are split so",
                SplittingWarning,
                stacklevel=2,
            )
