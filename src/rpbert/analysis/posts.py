"""A post as one or two models see it, its errors included: a row of posts.jsonl and of the page."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, get_args

from rpbert.data.labels import Span, strict_spans
from rpbert.evaluation.scoring import RELATION_THRESHOLD

if TYPE_CHECKING:
    from rpbert.analysis.attention import Explanation
    from rpbert.types import Post

ErrorKind: TypeAlias = Literal["type", "boundary", "missed", "spurious"]
Outcome: TypeAlias = Literal[
    "mended", "broken", "differs", "both wrong", "wrong", "both right", "right", "unlabelled"
]
"""How the models answer a post, in the order in which a reader wants to see posts.

With one model ``wrong`` or ``right``. Of two, by what the first makes of the second's answer:
``mended`` and ``broken`` change between wrong and right, ``differs`` is wrong in two ways,
``both wrong`` and ``both right`` agree. ``unlabelled`` posts have no gold entities; where two
models answer such a post differently, that is ``differs``.
"""
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


class EntityError(NamedTuple):
    """A gold entity that was not found as it is, or a found one that is not gold."""

    kind: ErrorKind  # type: the right words under a wrong label; boundary: they overlap
    gold: Span | None
    found: Span | None


def row_of(post: Post, explanations: Sequence[Explanation], number: int) -> dict[str, Any]:
    """The row of the post with that number, as JSON types; places are characters of its text.
    `explanations` are of the model and, if there is one, of the model it is compared with."""
    gold = None
    if post.tags is not None:
        places, spans = post.spans, strict_spans(post.tags)
        gold = [(label, places[first][0], places[end - 1][1]) for label, first, end in spans]
    predictions = [one.prediction for one in explanations]
    answers = [[(e.label, e.start, e.end) for e in found.entities] for found in predictions]
    known = [found.relation for found in predictions if found.relation is not None]
    return {
        "number": number,
        "id": post.id,
        "text": post.text,
        "words": post.spans,
        "image": predictions[0].image,
        "label": None if post.relation is None else post.relation > RELATION_THRESHOLD,
        # Of the first model that has one; none without an image that could be used.
        "r": known[0] if known and explanations[0].attention is not None else None,
        "gold": gold,
        "outcome": outcome(gold, *answers),
        "models": [
            _model(one, [] if gold is None else entity_errors(gold, answer))
            for one, answer in zip(explanations, answers, strict=True)
        ],
    }


def _model(explanation: Explanation, errors: list[EntityError]) -> dict[str, Any]:
    entities = explanation.prediction.entities
    return {
        "r": explanation.prediction.relation,
        "s_tv": explanation.s_tv,
        "s_tv_per_word": explanation.s_tv_per_word,
        "entities": [[e.label, e.start, e.end, round(e.score, 3)] for e in entities],
        "errors": errors,
        "attention": _attention(explanation),
    }


def _attention(explanation: Explanation) -> dict[str, Any] | None:
    """A, block by block of each word, and where the tokens lie if they are on no grid."""
    attention, boxes = explanation.attention, explanation.boxes
    if attention is None:
        return None
    words, rows, columns = attention.shape
    return {
        "rows": rows,
        "columns": columns,
        "words": attention.reshape(words, rows * columns).round(6).tolist(),
        "boxes": None if rows > 1 or boxes is None else boxes.round(4).tolist(),
        "pieces": explanation.pieces,
    }


def entity_errors(gold: Sequence[Span], found: Sequence[Span]) -> list[EntityError]:
    """Every difference once: same words are paired first, then overlaps, then single ones."""
    lost = [span for span in gold if span not in found]
    wrong = [span for span in found if span not in gold]
    errors = []
    for one, other in sorted(product(lost, wrong), key=lambda pair: pair[0][1:] != pair[1][1:]):
        overlap = one[1] < other[2] and other[1] < one[2]
        if overlap and one in lost and other in wrong:
            errors.append(EntityError("type" if one[1:] == other[1:] else "boundary", one, other))
            lost.remove(one)
            wrong.remove(other)
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
    if any(right):
        return "both right" if all(right) else "mended" if right[0] else "broken"
    return "both wrong" if same else "differs"
