"""Fits on a development split the temperatures that make scores probabilities.

Guo, C.; Pleiss, G.; Sun, Y.; and Weinberger, K. Q. 2017. On Calibration of Modern Neural
Networks. In ICML.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rpbert.data.collate import by_length
from rpbert.data.labels import strict_spans
from rpbert.evaluation.scoring import RELATION_THRESHOLD
from rpbert.inference import Tagger
from rpbert.models.saved import TaggingModel
from rpbert.modules.crf import SpanQuery
from rpbert.types import Calibration, Post

LOWEST, HIGHEST = 0.2, 5.0
"""Bounds of a temperature."""
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
    found, relations = decoded_spans(tagger, posts, batch_size)

    def span_loss(temperature: float) -> float:
        crf, total = model.system.crf, 0.0
        for emissions, mask, queries, right in found:
            scores = crf.span_marginals(
                emissions, mask, queries, tagger.decoder.constraint, temperature
            )
            total += sum(map(_log_loss, scores.tolist(), right))
        return total

    labels = [(label > RELATION_THRESHOLD, r) for label, r in relations]

    def relation_loss(temperature: float) -> float:
        tempered = Calibration(relation=temperature).relation_probability
        return sum(_log_loss(tempered(r), adds) for adds, r in labels)

    spans = _fitted(span_loss, [right for *_, batch in found for right in batch])
    told = [(r > RELATION_THRESHOLD) == adds for adds, r in labels]
    return Calibration(spans, _fitted(relation_loss, told))


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
        pairs = list(zip(chosen, answers, strict=True))
        relations += [known for post, answer in pairs for known in answer.known(post)]
        queries = decoder.queries([answer.tags for answer in answers])
        if queries and all(post.tags is not None for post in chosen):
            right = [
                span in strict_spans(post.tags or ())
                for post, answer in pairs
                for span in strict_spans(answer.tags)
            ]
            spans.append((output.emissions, batch.word_mask, queries, right))
    return spans, relations


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
