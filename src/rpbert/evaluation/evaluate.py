"""Runs a model over the posts of a split and scores what it says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from rpbert.config.model import BiLstmSettings, SystemSettings
from rpbert.config.run import Backend, Precision
from rpbert.data.labels import strict_spans
from rpbert.data.readers import open_data
from rpbert.data.reading import Quirk
from rpbert.data.tables import CUT_WORD
from rpbert.data.vocabulary import Vocabulary, tag_set
from rpbert.data.words import SPLITTERS
from rpbert.errors import Faults, InputError, refuse
from rpbert.evaluation.confidence import (
    Calibration,
    CalibrationScores,
    calibration_scores,
    relation_calibration,
)
from rpbert.evaluation.scoring import (
    RELATION_THRESHOLD,
    Evaluation,
    relation_groups,
    score_familiarity,
    score_relations,
    score_tags,
)
from rpbert.inference import Decoded, Tagger
from rpbert.models import SYSTEMS, build, parse_options
from rpbert.models.build import Builder
from rpbert.models.tagger import WordEmbeddings
from rpbert.types import ImageStatus, Post

GROUPINGS = ("relation", "type")


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
    """Score the model of a folder or hub id on a split of a data set.

    Args:
        split: None is the test split, or all posts of a single file.
        faults: told of each faulty row of the data.
        precision: another one than fp32 is scored beside fp32, so that its cost is seen.
        captioner, ocr, backend: as of `Tagger.from_pretrained`.

    Raises:
        InputError: model, data or split cannot be used, or a post has no tags.
    """
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
    """Score a model on posts with tags, or with relations alone.

    Raises:
        InputError: there is nothing to score against, or some posts have tags and others not.
    """
    tags_words = tagger.model.system.tags_words
    tagged = [post for post in posts if post.tags is not None and tags_words]
    if tagged and len(tagged) < len(posts):
        bare = next(post for post in posts if post.tags is None)
        raise InputError(bare.origin or bare.id, "no tags", "tags or entities, as other posts have")
    decoded = list(tagger.decode(posts))
    gold = [post.tags or () for post in posts]
    predicted = [answer.tags for answer in decoded]
    images = Counter(answer.image for answer in decoded)
    groups = relation_groups([p.relation for p in posts], [d.relation for d in decoded])
    evaluation = Evaluation(
        score_tags(gold, predicted, groups) if tagged else None,
        images={status: images[status] for status in get_args(ImageStatus)},
    )
    if tagged:
        words = [post.words for post in posts]
        familiarity = score_familiarity(words, gold, predicted, tagger.model.entities)
        evaluation = replace(evaluation, by_familiarity=familiarity)
    labelled = [
        (int(gold > RELATION_THRESHOLD), r)
        for post, answer in zip(posts, decoded, strict=True)
        for gold, r in answer.known(post)
        if tagger.model.system.has_relation  # else r is no classifier's, but the label itself
    ]
    if labelled:
        relation = score_relations([g for g, _ in labelled], [r for _, r in labelled])
        evaluation = replace(evaluation, relation=relation)
    evaluation = replace(evaluation, calibration=_calibration(tagger, posts, decoded, labelled))
    if evaluation.tags is None and evaluation.relation is None:
        raise InputError(
            posts[0].origin if posts else "data",
            "nothing to score against",
            "posts with tags, or with relations for a system with a relation gate",
        )
    return evaluation


def _calibration(
    tagger: Tagger,
    posts: Sequence[Post],
    decoded: Sequence[Decoded],
    labelled: Sequence[tuple[int, float]],
) -> dict[str, CalibrationScores]:
    """The calibration error of what was scored, as the model gives it and without temperatures."""
    calibration = tagger.model.calibration
    found: dict[str, CalibrationScores] = {}
    right = [
        span in set(strict_spans(post.tags))
        for post, answer in zip(posts, decoded, strict=True)
        if post.tags is not None
        for span in strict_spans(answer.tags)
    ]
    if right:
        after = [score for answer in decoded for score in answer.scores]
        plain = after
        if calibration.spans != 1:
            uncalibrated = Tagger(replace(tagger.model, calibration=Calibration()), tagger.device)
            uncalibrated.decoder.system = tagger.decoder.system  # in the same precision
            plain = [score for answer in uncalibrated.decode(posts) for score in answer.scores]
        found["spans"] = calibration_scores(plain, after, right, calibration.spans)
    if labelled:
        scores, adds = [r for _, r in labelled], [bool(gold) for gold, _ in labelled]
        found["relation"] = relation_calibration(scores, adds, calibration)
    return found


def only(evaluation: Evaluation, by: str | None) -> Evaluation:
    """The evaluation with the groups asked for (`relation`, `type`) beside the overall scores.

    Raises:
        InputError: there is nothing to group the posts by.
    """
    tags = evaluation.tags
    if by is None or tags is None:
        return evaluation
    if by == "type":
        tags = replace(tags, by_group={})
        return replace(evaluation, tags=tags, by_familiarity={}, relation=None)
    if not tags.by_group:
        raise InputError(
            "--by relation",
            "neither relation labels in the data nor a relation score of the model",
            "one of them",
        )
    strict, lenient = (replace(scores, by_type={}) for scores in (tags.strict, tags.lenient))
    return replace(
        evaluation, tags=replace(tags, strict=strict, lenient=lenient), by_familiarity={}
    )


def describe_systems() -> list[dict[str, Any]]:
    """Every system: name, paper, row, evidence, and parameters at the paper's sizes.

    Parameters are counted with BERT-base (uncased), ResNet-152, four entity types, and without
    the word and character tables, which depend on the data.
    """
    import torch

    vocabulary = Vocabulary(tag_set(["LOC", "MISC", "ORG", "PER"]), (), ())
    rows = []
    for name, entry in SYSTEMS.items():
        with torch.device("meta"):
            system = build(
                _published_sizes(name), Builder(_published_sizes(name).tagger, vocabulary, 30522)
            )
        embeddings = getattr(system, "embeddings", None)
        tables = (
            sum(t.weight.numel() for t in (embeddings.vectors.table, embeddings.characters.table))
            if isinstance(embeddings, WordEmbeddings)
            else 0
        )
        rows.append(
            {
                "name": name,
                "paper": entry.paper,
                "row": entry.row,
                "evidence": list(entry.evidence),
                "parameters": sum(p.numel() for p in system.parameters()) - tables,
            }
        )
    return rows


def _published_sizes(name: str) -> SystemSettings:
    """Table 2's settings of a system, with random weights of the published shapes."""
    fields = SYSTEMS[name].system.Options.model_fields
    kind = next(iter(SYSTEMS[name].evidence), None)
    # A detector found the regions beforehand; Faster R-CNN's features have that size.
    source = {"width": 2048} if kind == "regions" else {"shape": "resnet-152"}
    parts = {"encoder": {"shape": {}}, "evidence": {kind: source}}
    # Table 2: an LSTM over BERT's vectors too has 1024 units.
    has_encoder = fields["encoder"].is_required()
    recurrent = issubclass(SYSTEMS[name].system.Options, BiLstmSettings) and has_encoder
    tagger = {"lstm_hidden": 1024} if recurrent else {}
    chosen = {key: value for key, value in parts.items() if fields[key].is_required()}
    return parse_options({"system": name, "tagger": tagger, **chosen})
