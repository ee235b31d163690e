"""An evaluation as an aligned table of text."""

from __future__ import annotations

from collections.abc import Mapping

from rpbert.errors import counted
from rpbert.evaluation.scoring import (
    RELATION_THRESHOLD,
    SCORERS,
    Counts,
    Evaluation,
    RelationScores,
    TagScores,
)

_COLUMNS = f"{'precision':>12}{'recall':>8}{'F1':>7}{'support':>9}"


def render(evaluation: Evaluation) -> str:
    """The evaluation as an aligned table of text: percentages, and the support of each."""
    lines = (
        [] if evaluation.tags is None else _tag_lines(evaluation.tags, evaluation.by_familiarity)
    )
    if evaluation.relation is not None:
        lines += _relation_lines(evaluation.relation)
    for name, error in evaluation.calibration.items():
        lines += [
            f"calibration error of {name}: {100 * error.before:.1f} before and "
            f"{100 * error.after:.1f} after its temperature of {error.temperature:.2f} "
            f"({error.support:,} scores)"
        ]
    if evaluation.images:
        counts = ", ".join(f"{count:,} {status}" for status, count in evaluation.images.items())
        lines += [f"images: {counts}"]
    if evaluation.cut_words:
        lines += [
            f"{evaluation.cut_words:,} words cut at gold entities: tagging would not cut them"
        ]
    if evaluation.tags is not None and evaluation.fp32_f1 is not None:
        f1, exact = 100 * evaluation.tags.strict.f1, 100 * evaluation.fp32_f1
        lines += [f"strict F1 in this precision {f1:.2f}, in fp32 {exact:.2f}: {f1 - exact:+.2f}"]
    return "\n".join(lines).rstrip()


def _tag_lines(tags: TagScores, by_familiarity: Mapping[str, TagScores]) -> list[str]:
    labels = sorted(tags.strict.by_type.keys() | tags.lenient.by_type.keys())
    by_type = [
        (label, tags.strict.by_type.get(label, Counts()), tags.lenient.by_type.get(label, Counts()))
        for label in labels
    ]
    sections = [
        [_overall("all entities", tags)],
        by_type,
        [_overall(f"{name} ({counted(s.posts, 'post')})", s) for name, s in tags.by_group.items()],
        [_overall(f"{name} in training", s) for name, s in by_familiarity.items()],
    ]
    title = f"{counted(tags.posts, 'post')}, %"
    width = max(len(title), *(len(name) for section in sections for name, _, _ in section))
    lines = [
        f"{title:{width}}" + "".join(f"{name:>{len(_COLUMNS)}}" for name in SCORERS.values()),
        " " * width + _COLUMNS * len(SCORERS),
    ]
    for section in filter(None, sections):
        lines += [f"{name:{width}}{_cells(one)}{_cells(two)}" for name, one, two in section] + [""]
    return lines


def _overall(name: str, scores: TagScores) -> tuple[str, Counts, Counts]:
    return name, scores.strict.overall, scores.lenient.overall


def _cells(counts: Counts) -> str:
    shares = (counts.precision, counts.recall, counts.f1)
    precision, recall, f1 = (f"{100 * share:.1f}" for share in shares)
    return f"{precision:>12}{recall:>8}{f1:>7}{counts.support:>9,}"


def _relation_lines(scores: RelationScores) -> list[str]:
    classes = (("image adds", scores.adds), ("image doesn't add", scores.does_not_add))
    title = f"relation, r > {RELATION_THRESHOLD}, %"
    width = max(len(title), *(len(name) for name, _ in classes))
    low, high = ("–" if mean is None else f"{mean:.2f}" for mean in scores.mean_r)
    return [
        f"{title:{width}}{_COLUMNS}",
        *(f"{name:{width}}{_cells(counts)}" for name, counts in classes),
        f"mean r {high} where the image adds, {low} where it doesn't",
        f"accuracy {100 * scores.accuracy:.1f}, macro F1 {100 * scores.macro_f1:.1f}, "
        f"weighted F1 {100 * scores.weighted_f1:.1f}, {counted(scores.support, 'post')}",
    ]
