"""Runs a model over the posts of a split, scores its answers and shows the scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from rpbert.config.run import Backend, Precision
from rpbert.data.readers import open_data
from rpbert.data.reading import Quirk
from rpbert.data.tables import CUT_WORD
from rpbert.data.vocabulary import Vocabulary, tag_set
from rpbert.data.words import SPLITTERS
from rpbert.errors import Faults, InputError, counted, refuse
from rpbert.evaluation.scoring import (
    CalibrationScores,
    CurvePoint,
    Evaluation,
    expected_calibration_error,
    relation_calibration,
    relation_groups,
    score_familiarity,
    score_partial,
    score_relations,
    score_table,
    score_tags,
    spans_right,
    threshold_curve,
)
from rpbert.inference import Decoder, Tagger
from rpbert.models import SYSTEMS, build, parse_options
from rpbert.models.build import Builder, WordEmbeddings
from rpbert.models.tagger import BiLstmSettings, SystemSettings
from rpbert.types import Calibration, ImageStatus, Post, image_counts


def evaluate_model(
    name: str,
    data: Path,
    split: str | None = None,
    faults: Faults = refuse,
    precision: Precision = "fp32",
    backend: Backend = "torch",
) -> Evaluation:
    """Score the model of a folder or hub id on a split of a data set: unless named the test split,
    or all posts of a single file. A precision other than fp32 is scored beside fp32."""
    if not data.exists():  # before the model is loaded, which takes longer
        raise InputError(data, "no such file or folder", "a data set")
    tagger = Tagger.from_pretrained(name, None, precision, backend)
    model = tagger.model
    types, column = model.vocabulary.types, model.notes.get("tag_column", -1)
    splitter = SPLITTERS[model.vocabulary.marks]
    source = open_data(data, splitter, faults, types=types, tag_column=column)
    if split is None:
        split = source.splits[0] if data.is_file() else "test"
    quirks: list[Quirk] = []
    posts = list(source.read(split, quirks))
    evaluation = evaluate_posts(tagger, posts)
    if precision != "fp32" and evaluation.tags is not None:
        exact = evaluate_posts(Tagger(tagger.model, tagger.device, backend=backend), posts)
        evaluation = replace(evaluation, fp32_f1=exact.tags.strict.f1 if exact.tags else None)
    return replace(evaluation, cut_words=sum(quirk.kind == CUT_WORD for quirk in quirks))


def evaluate_posts(tagger: Tagger, posts: Sequence[Post]) -> Evaluation:
    """Score a model on posts that all have tags, or on relations alone."""
    system = tagger.model.system
    bare = [post for post in posts if post.tags is None]
    tagged = system.tags_words and len(bare) < len(posts)
    if tagged and bare:
        where = bare[0].origin or bare[0].id
        raise InputError(where, "no tags", "tags or entities, as other posts have")
    decoded = tagger.decoder.decode(posts)
    pairs = list(zip(posts, decoded, strict=True))
    # Of a system without a classifier r is an oracle's, the label itself.
    known = [k for post, answer in pairs for k in answer.known(post)] if system.has_relation else []
    if not tagged and not known:
        where = posts[0].origin if posts else "data"
        expected = "posts with tags, or with relations for a system with a relation gate"
        raise InputError(where, "nothing to score against", expected)
    tags, by_familiarity, partial, calibration = None, {}, {}, {}
    curve: tuple[CurvePoint, ...] = ()
    if tagged:
        gold, predicted = [post.tags or () for post in posts], [answer.tags for answer in decoded]
        groups = relation_groups([p.relation for p in posts], [d.relation for d in decoded])
        tags = score_tags(gold, predicted, groups)
        words = [post.words for post in posts]
        by_familiarity = score_familiarity(words, gold, predicted, tagger.model.entities)
        partial = score_partial(gold, predicted)
        if scores := [score for answer in decoded for score in answer.scores]:
            right = spans_right(gold, predicted)
            calibration["spans"] = _span_calibration(tagger, posts, scores, right)
            curve = threshold_curve(scores, right, tags.strict.support)
    if known:
        calibration["relation"] = relation_calibration(known, tagger.model.calibration)
    images = Counter(answer.image for answer in decoded)
    return Evaluation(
        tags,
        by_familiarity,
        score_relations(known) if known else None,
        {next((s for s in images if s == of), of): images[of] for of in get_args(ImageStatus)},
        calibration=calibration,
        partial=partial,
        curve=curve,
    )


def _span_calibration(
    tagger: Tagger, posts: Sequence[Post], scores: Sequence[float], right: Sequence[bool]
) -> CalibrationScores:
    """The calibration error of the spans found, with the model's temperature and without."""
    plain, temperature = scores, tagger.model.calibration.spans
    if temperature != 1:
        model, decoder = replace(tagger.model, calibration=Calibration()), tagger.decoder
        decoder = Decoder(model, decoder.collator, decoder.device, decoder.system)
        plain = [score for answer in decoder.decode(posts) for score in answer.scores]
    before, after = (expected_calibration_error(of, right) for of in (plain, scores))
    return CalibrationScores(before, after, len(right), temperature)


def only(evaluation: Evaluation, by: str | None) -> Evaluation:
    """The evaluation with the groups asked for (`relation`, `type`) and the overall scores."""
    tags = evaluation.tags
    if by is None or tags is None:
        return evaluation
    if by == "type":
        tags = replace(tags, by_group={})
        return replace(evaluation, tags=tags, by_familiarity={}, relation=None)
    if not tags.by_group:
        found = "neither relation labels in the data nor a relation score of the model"
        raise InputError("--by relation", found, "one of them")
    strict, lenient = (replace(scores, by_type={}) for scores in (tags.strict, tags.lenient))
    tags = replace(tags, strict=strict, lenient=lenient)
    return replace(evaluation, tags=tags, by_familiarity={})


def render(evaluation: Mapping[str, Any]) -> str:
    """The evaluation, as JSON types, as an aligned table and lines of text."""
    tags, relation = evaluation["tags"], evaluation["relation"]
    lines = aligned(
        score_table(tags, relation, evaluation["by_familiarity"], evaluation["partial"]), left=2
    )
    if relation:
        adds, not_ = ("–" if r is None else f"{r:.2f}" for r in relation["mean_r"].values())
        lines.append(f"mean r {adds} where the image adds, {not_} where it doesn't")
        names = {"accuracy": "accuracy", "macro F1": "macro_f1", "weighted F1": "weighted_f1"}
        shares = ", ".join(f"{name} {100 * relation[key]:.1f}" for name, key in names.items())
        lines.append(f"{shares}, {counted(relation['support'], 'post')}")
    for name, error in evaluation["calibration"].items():
        errors = f"{100 * error['before']:.1f} before and {100 * error['after']:.1f} after"
        of = f"its temperature of {error['temperature']:.2f} ({error['support']:,} scores)"
        lines.append(f"calibration error of {name}: {errors} {of}")
    images = evaluation["images"]
    lines.append(f"images: {image_counts(images, images)}")
    if cut := evaluation["cut_words"]:
        lines.append(f"{cut:,} words cut at gold entities: tagging would not cut them")
    if tags and evaluation["fp32_f1"] is not None:
        f1, exact = 100 * tags["strict"]["f1"], 100 * evaluation["fp32_f1"]
        compared = f"{f1:.2f}, in fp32 {exact:.2f}: {f1 - exact:+.2f}"
        lines.append(f"strict F1 in this precision {compared}")
    return "\n".join(lines)


def render_curve(curve: Sequence[Mapping[str, Any]]) -> str:
    """Precision, recall and coverage by threshold, in %, as an aligned table."""
    shares = ("precision", "recall", "f1", "coverage")
    rows = [
        [f"{of['threshold']:.2f}", *(f"{100 * of[k]:.1f}" for k in shares), str(of["predicted"])]
        for of in curve
    ]
    return "\n".join(aligned([("threshold", *shares, "entities"), *rows]))


def plot_curve(curve: Sequence[CurvePoint], path: Path) -> None:
    """Draw what `render_curve` prints; the suffix says how it is written."""
    from matplotlib.figure import Figure

    if not curve:
        raise InputError("--curve", "no entity with a score", "a model that tags, and gold tags")
    figure = Figure(figsize=(5.2, 3.8), layout="constrained")
    axis = figure.subplots()
    for name in ("precision", "recall", "f1", "coverage"):
        axis.plot([of.threshold for of in curve], [getattr(of, name) for of in curve], label=name)
    axis.set(xlabel="least score of an entity", ylim=(0, 1.02))
    axis.legend(frameon=False)
    figure.savefig(path, dpi=150)


def aligned(rows: Sequence[Sequence[str]], left: int = 0) -> list[str]:
    """Lines of a table, its first columns to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def describe_systems() -> list[dict[str, Any]]:
    """Every system: name, paper, row, evidence, and parameters at the paper's sizes.
    Parameters are counted with BERT-base (uncased), ResNet-152, four entity types, and without the
    word and character tables, which depend on the data."""
    import torch

    vocabulary = Vocabulary(tag_set(["LOC", "MISC", "ORG", "PER"]), (), ())
    rows = []
    for name, entry in SYSTEMS.items():
        options = _published_sizes(name)
        with torch.device("meta"):
            system = build(options, Builder(options.tagger, vocabulary, 30522))
        parameters = sum(p.numel() for p in system.parameters())
        embeddings = getattr(system, "embeddings", None)
        if isinstance(embeddings, WordEmbeddings):
            tables = (embeddings.vectors.table, embeddings.characters.table)
            parameters -= sum(table.weight.numel() for table in tables)
        about = {"paper": entry.paper, "row": entry.row, "evidence": list(entry.evidence)}
        rows.append({"name": name, **about, "parameters": parameters})
    return rows


def _published_sizes(name: str) -> SystemSettings:
    """Table 2's settings of a system, with random weights of the published shapes."""
    settings = SYSTEMS[name].system.Options
    needed = {key for key, field in settings.model_fields.items() if field.is_required()}
    kind = next(iter(SYSTEMS[name].evidence), None)
    # Regions come from a detector, run beforehand; Faster R-CNN's features have that size.
    source = {"width": 2048} if kind == "regions" else {"shape": "resnet-152"}
    parts = {"encoder": {"shape": {}}, "evidence": {kind: source}}
    given = {"system": name, **{key: parts[key] for key in needed & parts.keys()}}
    if issubclass(settings, BiLstmSettings) and "encoder" in needed:
        given["tagger"] = {"lstm_hidden": 1024}  # Table 2: over BERT's vectors too
    return parse_options(given)
