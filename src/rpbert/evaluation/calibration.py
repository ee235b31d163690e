"""Fits on a development split the temperatures that make scores probabilities.
Guo et al. 2017. On Calibration of Modern Neural Networks. In ICML."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor

from rpbert.data.collate import by_length
from rpbert.evaluation.scoring import relation_confidences, spans_right
from rpbert.inference import Tagger
from rpbert.models.saved import TaggingModel
from rpbert.modules.crf import SpanQuery
from rpbert.types import Calibration, Post

HIGHEST = 5.0  # temperature of the first round; its inverse is the lowest
_ROUNDS = 5  # to 0.2 %

Found = tuple[Tensor, Tensor, list[SpanQuery], list[bool]]
"""Emissions and mask of a batch, the spans decoded, and whether each is in the gold."""


def fit_calibration(
    model: TaggingModel, posts: Sequence[Post], device: str | None = None, batch_size: int = 32
) -> Calibration:
    """The temperatures of least log loss on posts with tags, relations or both.
    Spans are those that the model finds, and each is right or wrong as strict IOB2 counts it; r is
    held to the relation labels of posts whose image could be used. Where nothing is wrong or
    nothing right there is nothing to fit, and the temperature stays 1."""
    tagger = Tagger(model, device)
    found, known = decoded_spans(tagger, posts, batch_size)

    def spans(temperature: float) -> list[float]:
        marginals, constraint = model.system.crf.span_marginals, tagger.decoder.constraint
        scores: list[float] = []
        for emissions, mask, queries, _ in found:
            scores += marginals(emissions, mask, queries, constraint, temperature).tolist()
        return scores

    def relations(temperature: float) -> list[float]:
        return relation_confidences(known, Calibration(relation=temperature))[0]

    _, told = relation_confidences(known, Calibration())
    right = [right for *_, batch in found for right in batch]
    return Calibration(_fitted(spans, right), _fitted(relations, told))


def decoded_spans(
    tagger: Tagger, posts: Sequence[Post], batch_size: int
) -> tuple[list[Found], list[tuple[float, float]]]:
    """The spans found in tagged posts, by batch, and the label and r of each known relation."""
    decoder = tagger.decoder
    spans: list[Found] = []
    relations: list[tuple[float, float]] = []
    for group in by_length(decoder.collator.lengths(posts), batch_size):
        chosen = [posts[i] for i in group]
        batch = decoder.collator(chosen).to(tagger.device)
        with torch.inference_mode():
            output = decoder.system(batch)
            answers = decoder.read(batch, output)
        for post, answer in zip(chosen, answers, strict=True):
            relations += answer.known(post)
        tags = [answer.tags for answer in answers]
        queries = decoder.queries(tags)
        if queries and all(post.tags is not None for post in chosen):
            right = spans_right([post.tags or () for post in chosen], tags)
            spans.append((output.emissions, batch.word_mask, queries, right))
    return spans, relations


def _fitted(scores: Callable[[float], Sequence[float]], right: Sequence[bool]) -> float:
    """The temperature of least log loss."""
    if all(right) or not any(right):
        return 1.0

    @cache
    def loss(logarithm: float) -> float:
        found = zip(scores(math.exp(logarithm)), right, strict=True)
        return -sum(math.log(max(p if is_right else 1 - p, 1e-6)) for p, is_right in found)

    logarithm, step = 0.0, math.log(HIGHEST)
    for _ in range(_ROUNDS):  # each looks four times as closely around the best so far
        logarithm = min((logarithm + k * step / 4 for k in range(-4, 5)), key=loss)
        step /= 4
    return round(math.exp(logarithm), 4)
