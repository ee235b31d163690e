"""Fits on a development split the temperatures that make scores probabilities (`confidence`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from rpbert.data.collate import by_length
from rpbert.data.labels import strict_spans
from rpbert.evaluation.confidence import Calibration, tempered
from rpbert.inference import Tagger
from rpbert.modules.crf import SpanQuery
from rpbert.storage.model_folder import TaggingModel
from rpbert.types import Post

LOWEST, HIGHEST = 0.2, 5.0
"""Between which a temperature is looked for."""
_STEPS = 24  # golden section: to less than a ten-thousandth
_NEARLY = 1e-6

Found = tuple[Tensor, Tensor, list[SpanQuery], list[bool]]
"""Emissions and mask of a batch, the spans decoded, and whether each is in the gold."""


def fit_calibration(
    model: TaggingModel, posts: Sequence[Post], device: str | None = None, batch_size: int = 32
) -> Calibration:
    """The temperatures of least log loss on posts with tags, relations or both.

    Spans are those that the model finds, and each is right or wrong as strict IOB2 counts it; r is
    held to the relation labels of posts whose image could be used. Where nothing is wrong or
    nothing right there is nothing to fit, and the temperature stays 1.
    """
    tagger = Tagger(model, device)
    tagger.decoder.calibration = Calibration()
    found, relations = [], []
    for batch, pairs in _decoded(tagger, posts, batch_size):
        if batch is not None:
            found.append(batch)
        relations += pairs
    right = [correct for *_, batch in found for correct in batch]
    spans = _fitted(lambda t: _span_loss(tagger, found, t), right)
    told = [(r > 0.5) == adds for r, adds in relations]
    relation = _fitted(lambda t: _relation_loss(relations, t), told)
    return Calibration(spans, relation)


def _decoded(
    tagger: Tagger, posts: Sequence[Post], batch_size: int
) -> Iterator[tuple[Found | None, list[tuple[float, bool]]]]:
    """What is found in each batch, and r beside the label of each image that has both."""
    decoder = tagger.decoder
    for group in by_length(decoder.collator.lengths(posts), batch_size):
        chosen = [posts[i] for i in group]
        batch = decoder.collator(chosen).to(tagger.device)
        with torch.inference_mode():
            output = decoder.system(batch)
            answers = decoder.read(batch, output)
        relations = [
            (r, relation > 0.5)
            for post, answer in zip(chosen, answers, strict=True)
            for relation, r in answer.known(post)
        ]
        if output.emissions is None or any(post.tags is None for post in chosen):
            yield None, relations
            continue
        queries = decoder.queries([answer.tags for answer in answers])
        gold = [set(strict_spans(post.tags or ())) for post in chosen]
        right = [
            span in gold[i]
            for i, answer in enumerate(answers)
            for span in strict_spans(answer.tags)
        ]
        yield (output.emissions, batch.word_mask, queries, right), relations


def _span_loss(tagger: Tagger, found: Sequence[Found], temperature: float) -> float:
    crf, constraint = tagger.model.system.crf, tagger.decoder.constraint
    total = 0.0
    for emissions, mask, queries, right in found:
        if queries:
            scores = crf.span_marginals(emissions, mask, queries, constraint, temperature)
            total += sum(map(_log_loss, scores.tolist(), right))
    return total


def _relation_loss(relations: Sequence[tuple[float, bool]], temperature: float) -> float:
    return sum(_log_loss(tempered(r, temperature), adds) for r, adds in relations)


def _log_loss(probability: float, right: bool) -> float:
    kept = min(max(probability if right else 1 - probability, _NEARLY), 1.0)
    return -math.log(kept)


def _fitted(loss: Callable[[float], float], right: Sequence[bool]) -> float:
    """The temperature of least loss, by golden section of its logarithm."""
    if all(right) or not any(right):
        return 1.0
    share = (math.sqrt(5) - 1) / 2
    low, high = math.log(LOWEST), math.log(HIGHEST)
    inner, outer = high - share * (high - low), low + share * (high - low)
    of_inner, of_outer = loss(math.exp(inner)), loss(math.exp(outer))
    for _ in range(_STEPS):
        if of_inner <= of_outer:
            high, outer, of_outer = outer, inner, of_inner
            inner = high - share * (high - low)
            of_inner = loss(math.exp(inner))
        else:
            low, inner, of_inner = inner, outer, of_outer
            outer = low + share * (high - low)
            of_outer = loss(math.exp(outer))
    return round(math.exp((low + high) / 2), 4)
