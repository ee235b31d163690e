"""What is wrong with a post's entities, and what one model mends or breaks of another's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from rpbert.data.labels import Span

ErrorKind: TypeAlias = Literal["type", "boundary", "missed", "spurious"]
Outcome: TypeAlias = Literal[
    "mended", "broken", "differs", "both wrong", "wrong", "both right", "right", "unlabelled"
]
"""How a post came out, in the order in which a reader wants to see posts.

With one model ``wrong`` or ``right``. Of two, by what the first makes of the second's answer:
``mended`` and ``broken`` change between wrong and right, ``differs`` is wrong in two ways,
``both wrong`` and ``both right`` say the same. ``unlabelled`` posts have no gold entities to
compare with and one answer; where two models answer differently, that is ``differs``.
"""
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


@dataclass(frozen=True, slots=True)
class EntityError:
    """A gold entity that was not found as it is, or a found one that is not gold.

    Attributes:
        kind: ``type``: the right words under a wrong label; ``boundary``: they overlap;
            ``missed``: nothing was found there; ``spurious``: nothing is there.
    """

    kind: ErrorKind
    gold: Span | None
    found: Span | None


def entity_errors(gold: Sequence[Span], found: Sequence[Span]) -> list[EntityError]:
    """Every difference once: gold and found entities in pairs where they meet, else alone.

    Same words come first, then overlaps from left to right; exact matches are no errors.
    """
    lost = [span for span in gold if span not in found]
    wrong = [span for span in found if span not in gold]
    errors = []
    for kind in ("type", "boundary"):
        for of_gold in list(lost):
            for of_found in wrong:
                if _meet(of_gold, of_found, exactly=kind == "type"):
                    errors.append(EntityError(kind, of_gold, of_found))
                    lost.remove(of_gold)
                    wrong.remove(of_found)
                    break
    errors += [EntityError("missed", span, None) for span in lost]
    errors += [EntityError("spurious", None, span) for span in wrong]
    return sorted(errors, key=lambda error: (error.gold or error.found or ("", 0, 0))[1:])


def outcome(gold: Sequence[Span] | None, *answers: Sequence[Span]) -> Outcome:
    """How a post came out, given the answers of one model or of two."""
    same = all(set(answer) == set(answers[0]) for answer in answers)
    if gold is None:
        return "unlabelled" if same else "differs"
    right = [set(answer) == set(gold) for answer in answers]
    if len(answers) == 1:
        return "right" if right[0] else "wrong"
    if right[0] and right[1]:
        return "both right"
    if right[0]:
        return "mended"
    if right[1]:
        return "broken"
    return "both wrong" if same else "differs"


def _meet(one: Span, other: Span, *, exactly: bool) -> bool:
    if exactly:
        return one[1:] == other[1:]
    return one[1] < other[2] and other[1] < one[2]
