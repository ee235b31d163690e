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
    ADDS,
    DOES_NOT_ADD,
    RELATION_THRESHOLD,
    SCORERS,
    CalibrationScores,
    Counts,
    Evaluation,
    RelationScores,
    TagScores,
    expected_calibration_error,
    relation_calibration,
    relation_groups,
    score_familiarity,
    score_relations,
    score_tags,
    spans_right,
)
from rpbert.inference import Decoded, Decoder, Tagger
from rpbert.models import SYSTEMS, build, parse_options
from rpbert.models.build import Builder, WordEmbeddings
from rpbert.models.tagger import BiLstmSettings, SystemSettings
from rpbert.types import Calibration, ImageStatus, Post

_COLUMNS = f"{'precision':>12}{'recall':>8}{'F1':>7}{'support':>9}"


def evaluate_model(
    name: str,
    data: Path,
    split: str | None = None,
    faults: Faults = refuse,
    precision: Precision = "fp32",
    captioner: str | None = None,
    ocr: bool = False,
    backend: Backend = "torch",
) -> Evaluation:
    """Score the model of a folder or hub id on a split of a data set: unless named the test split,
    or all posts of a single file. A precision other than fp32 is scored beside fp32."""
    if not data.exists():  # before the model is loaded, which takes longer
        raise InputError(data, "no such file or folder", "a data set")
    tagger = Tagger.from_pretrained(name, None, precision, captioner, ocr, backend)
    source = open_data(data, SPLITTERS[tagger.model.vocabulary.marks], faults)
    if split is None:
        split = source.splits[0] if data.is_file() else "test"
    quirks: list[Quirk] = []
    posts = list(source.read(split, quirks))
    evaluation = evaluate_posts(tagger, posts)
    if precision != "fp32" and evaluation.tags is not None:
        exact = evaluate_posts(Tagger(tagger.model, tagger.device), posts)
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
    tags, by_familiarity, calibration = None, {}, {}
    if tagged:
        gold, predicted = [post.tags or () for post in posts], [answer.tags for answer in decoded]
        groups = relation_groups([p.relation for p in posts], [d.relation for d in decoded])
        tags = score_tags(gold, predicted, groups)
        words = [post.words for post in posts]
        by_familiarity = score_familiarity(words, gold, predicted, tagger.model.entities)
        if any(answer.scores for answer in decoded):
            calibration["spans"] = _span_calibration(tagger, posts, decoded)
    if known:
        calibration["relation"] = relation_calibration(known, tagger.model.calibration)
    images = Counter(answer.image for answer in decoded)
    return Evaluation(
        tags,
        by_familiarity,
        score_relations(known) if known else None,
        {status: images[status] for status in get_args(ImageStatus)},
        calibration=calibration,
    )


def _span_calibration(
    tagger: Tagger, posts: Sequence[Post], decoded: Sequence[Decoded]
) -> CalibrationScores:
    """The calibration error of the spans found, with the model's temperature and without."""
    right = spans_right([post.tags or () for post in posts], [answer.tags for answer in decoded])
    plain, temperature = decoded, tagger.model.calibration.spans
    if temperature != 1:
        model, decoder = replace(tagger.model, calibration=Calibration()), tagger.decoder
        plain = Decoder(model, decoder.collator, decoder.device, decoder.system).decode(posts)
    before, after = (
        expected_calibration_error([score for answer in found for score in answer.scores], right)
        for found in (plain, decoded)
    )
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


def render(evaluation: Evaluation) -> str:
    """The evaluation as an aligned table of text: percentages, and the support of each."""
    tags, lines = evaluation.tags, []
    if tags is not None:
        lines += _tag_lines(tags, evaluation.by_familiarity)
    if evaluation.relation is not None:
        lines += _relation_lines(evaluation.relation)
    for name, error in evaluation.calibration.items():
        before, after = f"{100 * error.before:.1f} before", f"{100 * error.after:.1f} after"
        of = f"its temperature of {error.temperature:.2f} ({error.support:,} scores)"
        lines.append(f"calibration error of {name}: {before} and {after} {of}")
    if evaluation.images:
        lines.append("images: " + ", ".join(f"{n:,} {k}" for k, n in evaluation.images.items()))
    if cut := evaluation.cut_words:
        lines.append(f"{cut:,} words cut at gold entities: tagging would not cut them")
    if tags is not None and evaluation.fp32_f1 is not None:
        f1, exact = 100 * tags.strict.f1, 100 * evaluation.fp32_f1
        compared = f"{f1:.2f}, in fp32 {exact:.2f}: {f1 - exact:+.2f}"
        lines.append(f"strict F1 in this precision {compared}")
    return "\n".join(lines).rstrip()


def _tag_lines(tags: TagScores, by_familiarity: Mapping[str, TagScores]) -> list[str]:
    strict, lenient = tags.strict.by_type, tags.lenient.by_type
    labels, nothing = sorted(strict.keys() | lenient.keys()), Counts()
    groups = {f"{k} ({counted(of.posts, 'post')})": of for k, of in tags.by_group.items()}
    seen = {f"{name} in training": of for name, of in by_familiarity.items()}
    whole = {"all entities": tags, **groups, **seen}
    rows = {k: (of.strict.overall, of.lenient.overall) for k, of in whole.items()}
    rows |= {k: (strict.get(k, nothing), lenient.get(k, nothing)) for k in labels}
    title = f"{counted(tags.posts, 'post')}, %"
    width = max(map(len, (title, *rows)))
    lines = [
        f"{title:{width}}" + "".join(f"{name:>{len(_COLUMNS)}}" for name in SCORERS.values()),
        " " * width + _COLUMNS * len(SCORERS),
    ]
    for section in filter(None, (["all entities"], labels, groups, seen)):
        lines += [f"{name:{width}}" + "".join(map(_cells, rows[name])) for name in section] + [""]
    return lines


def _relation_lines(scores: RelationScores) -> list[str]:
    title = f"relation, r > {RELATION_THRESHOLD}, %"
    width = max(map(len, (title, ADDS, DOES_NOT_ADD)))
    low, high = ("–" if mean is None else f"{mean:.2f}" for mean in scores.mean_r)
    return [
        f"{title:{width}}{_COLUMNS}",
        f"{ADDS:{width}}{_cells(scores.adds)}",
        f"{DOES_NOT_ADD:{width}}{_cells(scores.does_not_add)}",
        f"mean r {high} where the image adds, {low} where it doesn't",
        f"accuracy {100 * scores.accuracy:.1f}, macro F1 {100 * scores.macro_f1:.1f}, "
        f"weighted F1 {100 * scores.weighted_f1:.1f}, {counted(scores.support, 'post')}",
    ]


def _cells(counts: Counts) -> str:
    shares = (100 * share for share in (counts.precision, counts.recall, counts.f1))
    return "{:>12.1f}{:>8.1f}{:>7.1f}{:>9,}".format(*shares, counts.gold)


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
