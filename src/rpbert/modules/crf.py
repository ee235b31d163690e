"""Linear-chain conditional random field: likelihood, Viterbi decoding, marginals of tags and spans.
Lafferty et al. 2001 for the model, Lample et al. 2016 for its place on top of a biLSTM, Eq. 8
and 9 of the RpBERT paper. A sequence y of a post with emissions e scores
    s(y) = start[y_1] + Σ_t e_t[y_t] + Σ_t transitions[y_t-1, y_t] + end[y_n]
and has probability exp(s(y)) / Z, where Z sums exp(s) over all sequences.
Inside, tensors are (W, K, B), so that vector units run over the posts. Messages are logarithms,
rescaled at every word, and each word's emissions are shifted to a maximum of 0, which changes no
probability: neither long posts nor large emissions cost precision."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction, FunctionCtx, once_differentiable
from torch.nn.functional import pad

from rpbert.errors import InputError

FORBIDDEN = -1e9  # finite, because a difference of infinities is NaN


class TagConstraint(NamedTuple):
    """Penalties added to the scores when a post is decoded, never in training."""

    transitions: Tensor  # (K, K), [from, to]
    start: Tensor  # (K,)


def iob2_constraint(tags: Sequence[str]) -> TagConstraint:
    """The constraint that an entity opens with B-: I-X follows only B-X or I-X.
    Raises InputError: a tag is not ``O``, ``B-X`` or ``I-X``."""
    for tag in tags:
        if tag != "O" and not (tag[:2] in ("B-", "I-") and tag[2:]):
            raise InputError("tags", repr(tag), "O, B-<type> or I-<type>")
    transitions = [
        [FORBIDDEN if to[:2] == "I-" and origin[2:] != to[2:] else 0.0 for to in tags]
        for origin in tags
    ]
    start = [FORBIDDEN if tag[:2] == "I-" else 0.0 for tag in tags]
    return TagConstraint(torch.tensor(transitions), torch.tensor(start))


class SpanQuery(NamedTuple):
    """A span whose probability is asked for."""

    post: int  # row in the batch
    start: int  # first word
    tags: tuple[int, ...]  # of each word, for an entity B-X I-X I-X …
    continuation: int | None = None  # must not follow: I-X, with which the span would be longer


class _Scores(NamedTuple):
    """What the chain adds up."""

    emissions: Tensor  # (W, K, B), 0 on padding, elsewhere at most 0
    transitions: Tensor  # (K, K)
    start: Tensor  # (K,)
    end: Tensor  # (K,)
    mask: Tensor  # (W, B)
    lengths: Tensor  # (B,)


class _Messages(NamedTuple):
    """What the words before and after a position say of its tag, up to a constant a word."""

    arriving: Tensor  # (W, K, B): from the words before, without this word's emission
    forward: Tensor  # (W, K, B): α, from the words before and this one; its maximum is 0
    backward: Tensor  # (W, K, B): β, from this word and the words after; its maximum is 0
    log_partition: Tensor  # (B,)


class LinearChainCRF(nn.Module):
    """Conditional random field over tag sequences. Emissions have shape (B, W, K) and any floating
    dtype; scores are float32, also under autocast (float64 where the emissions are). Masks have
    shape (B, W) and mark the real words, which come first in their row; values on padding are not
    read. A post may have no words."""

    def __init__(self, tags: int) -> None:
        super().__init__()
        self.transitions = nn.Parameter(torch.empty(tags, tags).uniform_(-0.1, 0.1))  # [from, to]
        self.start = nn.Parameter(torch.empty(tags).uniform_(-0.1, 0.1))
        self.end = nn.Parameter(torch.empty(tags).uniform_(-0.1, 0.1))

    def log_likelihood(self, emissions: Tensor, tags: Tensor, mask: Tensor) -> Tensor:
        """Log-probability of the gold tags (Eq. 8); 0 for a post without words.
        Shapes: (B, W, K), (B, W), (B, W) → (B,)."""
        with torch.autocast(emissions.device.type, enabled=False):
            scores = self._scores(emissions, mask)
            log_partition: Tensor = _LogPartition.apply(*scores)  # type: ignore[no-untyped-call]
            return _path_score(scores, tags) - log_partition

    def divergence(self, given: Tensor, emissions: Tensor, mask: Tensor) -> Tensor:
        """Kullback-Leibler divergence KL(p ‖ q) of the tag sequences by `emissions`, q, from those
        by `given`, p, over all sequences; p is a constant, so that q alone learns. It is exact, as
        both are chains: E_p[log p - log q] takes of p the marginals of tags and of pairs of tags.
        Shapes: (B, W, K), (B, W, K), (B, W) → (B,)."""
        with torch.autocast(emissions.device.type, enabled=False):
            with torch.no_grad():
                p = self._scores(given, mask)
                messages = _messages(p)
                tags = _posteriors(messages.arriving, messages.backward, p.mask)
                pairs = _origins(messages.forward, messages.arriving, p.transitions)
                pairs = pairs.mul_(tags[1:].unsqueeze(1)).sum(0)  # (from, to, B)
                of_p = _expected_score(p, tags, pairs) - messages.log_partition
            q = self._scores(emissions, mask)
            log_partition: Tensor = _LogPartition.apply(*q)  # type: ignore[no-untyped-call]
            return of_p - _expected_score(q, tags, pairs) + log_partition

    @torch.no_grad()
    def decode(
        self, emissions: Tensor, mask: Tensor, constraint: TagConstraint | None = None
    ) -> list[list[int]]:
        """The most probable sequence of each post (decoding at test time; Viterbi 1967).
        Of equally good ones that with the lowest last tag, then the lowest one before it, etc."""
        with torch.autocast(emissions.device.type, enabled=False):
            scores = self._scores(emissions, mask, constraint)
            last, origins = _viterbi(scores)
        # On the CPU, where a chain of look-ups costs less than as many kernels.
        tag, posts = last.cpu().numpy(), np.arange(len(last))
        path = [tag]
        for origin in origins.cpu().numpy()[::-1]:
            path.append(tag := origin[tag, posts])
        rows = np.stack(path[::-1], axis=1).tolist()
        return [row[:length] for row, length in zip(rows, scores.lengths.tolist(), strict=True)]

    @torch.no_grad()
    def span_marginals(
        self,
        emissions: Tensor,
        mask: Tensor,
        spans: Sequence[SpanQuery],
        constraint: TagConstraint | None = None,
        temperature: float = 1.0,
    ) -> Tensor:
        """Posterior probability of exactly these spans, in [0, 1].
        A span is there when its words have its tags and the word after it, if any, does not have
        its continuation tag. Given the emissions the tags form a Markov chain: the probability is
        that of the first tag times that of each step (Culotta and McCallum 2004 constrain the
        forward recursion to the same end). With a temperature T p(y) ∝ exp(s(y) / T)."""
        with torch.autocast(emissions.device.type, enabled=False):
            scores = self._scores(emissions, mask, constraint, temperature)
            return _span_probabilities(scores, spans)

    def _scores(
        self,
        emissions: Tensor,
        mask: Tensor,
        constraint: TagConstraint | None = None,
        temperature: float = 1.0,
    ) -> _Scores:
        dtype = torch.promote_types(emissions.dtype, torch.float32)
        lengths = mask.sum(1)
        if not emissions.shape[1]:  # one word of padding gives the loop a start
            emissions, mask = pad(emissions, (0, 0, 0, 1)), pad(mask, (0, 1))
        mask = mask.T
        every = (emissions, self.transitions, self.start, self.end)
        emissions, transitions, start, end = (part.to(dtype) / temperature for part in every)
        emissions = emissions.permute(1, 2, 0)  # (B, W, K) → (W, K, B)
        emissions = emissions.where(mask.unsqueeze(1), emissions.new_zeros(())).contiguous()
        if constraint is not None:
            transitions = transitions + constraint.transitions.to(transitions)
            start = start + constraint.start.to(start)
        emissions = emissions - emissions.detach().amax(1, keepdim=True)
        return _Scores(emissions, transitions, start, end, mask, lengths)


def _messages(scores: _Scores) -> _Messages:
    """Forward and backward messages of all posts in one loop: backwards is forwards over the post
    read from its end, with the transitions transposed, on an axis of 2."""
    emissions, transitions, lengths = scores.emissions, scores.transitions, scores.lengths
    from_end = lengths - 1 - torch.arange(len(emissions), device=lengths.device).unsqueeze(1)
    from_end = from_end.clamp(min=0).unsqueeze(1).expand_as(emissions)  # (W, K, B)
    steps = torch.stack((transitions, transitions.T), dim=2).unsqueeze(3)  # (from, to, 2, 1)
    arriving = torch.stack((scores.start, scores.end), dim=1).unsqueeze(2)  # (K, 2, 1)
    all_arriving, all_states, scales = [], [], []
    both_ways = torch.stack((emissions, emissions.gather(0, from_end)), dim=2)  # (W, K, 2, B)
    for emission in both_ways.unbind(0):
        state = arriving + emission  # (K, 2, B)
        scale = state.amax(0)
        state -= scale
        all_arriving.append(arriving)
        all_states.append(state)
        scales.append(scale)
        # log Σ exp over the tags stepped from; in place, which is faster than torch.logsumexp.
        paths = state.unsqueeze(1) + steps  # (from, to, 2, B)
        peak = paths.amax(0)
        arriving = paths.sub_(peak).exp_().sum(0).log_().add_(peak)
    all_arriving[0] = all_arriving[0].expand_as(all_states[0])
    forward, backward = torch.stack(all_states).unbind(2)
    last = _last(lengths).expand(1, forward.shape[1], -1)
    at_last = forward.gather(0, last).squeeze(0) + scores.end.unsqueeze(1)  # (K, B)
    scale = torch.stack([scale[0] for scale in scales]) * scores.mask
    return _Messages(
        arriving=torch.stack([arriving[:, 0] for arriving in all_arriving]),
        forward=forward,
        backward=backward.gather(0, from_end),
        log_partition=(at_last.logsumexp(0) + scale.sum(0)) * (lengths > 0),
    )


class _LogPartition(torch.autograd.Function):
    """log Z, with its gradient in closed form: the expected number of times a score is used."""

    @staticmethod
    def forward(ctx: FunctionCtx, *tensors: Tensor) -> Tensor:
        scores = _Scores(*tensors)
        messages = _messages(scores)
        ctx.save_for_backward(scores.transitions, scores.mask, scores.lengths, *messages[:3])
        return messages.log_partition

    @staticmethod
    @once_differentiable
    def backward(ctx: BackwardCFunction, gradient: Tensor) -> tuple[Tensor | None, ...]:
        saved: tuple[Tensor, ...] = ctx.saved_tensors
        transitions, mask, lengths, arriving, forward, backward = saved
        expected = _posteriors(arriving, backward, mask) * gradient  # (W, K, B)
        origins = _origins(forward, arriving, transitions)
        of_steps = origins.mul_(expected[1:].unsqueeze(1)).sum((0, 3))
        last = _last(lengths).expand(1, len(transitions), -1)
        of_end = expected.gather(0, last).sum((0, 2))
        # In the order of _Scores; mask and lengths have no gradient.
        return expected, of_steps, expected[0].sum(1), of_end, None, None


def _posteriors(arriving: Tensor, backward: Tensor, mask: Tensor) -> Tensor:
    """Probability of each tag at each word, 0 on padding. Shape: (W, K, B)."""
    return (arriving + backward).softmax(dim=1) * mask.unsqueeze(1)


def _origins(forward: Tensor, arriving: Tensor, transitions: Tensor) -> Tensor:
    """P(y_t-1 = i | y_t = j): what arrives at j, split by where it comes from.
    Shape: (W - 1, from, to, B)."""
    origins = forward[:-1].unsqueeze(2) + transitions.unsqueeze(2)
    return origins.sub_(arriving[1:].unsqueeze(1)).exp_()


def _expected_score(scores: _Scores, tags: Tensor, pairs: Tensor) -> Tensor:
    """The mean of s(y) over sequences with these marginals of tags (W, K, B), 0 on padding, and
    these sums of the marginals of pairs (from, to, B). Shape: (B,)."""
    last = tags.gather(0, _last(scores.lengths).expand(1, len(scores.end), -1)).squeeze(0)
    of_words = (tags * scores.emissions).sum((0, 1))
    of_steps = (pairs * scores.transitions.unsqueeze(2)).sum((0, 1))
    return of_words + of_steps + scores.start @ tags[0] + scores.end @ last


def _last(lengths: Tensor) -> Tensor:
    """The last word of each post, 0 for a post without words."""
    return (lengths - 1).clamp(min=0)


def _path_score(scores: _Scores, tags: Tensor) -> Tensor:
    """s(y) of the shifted emissions, 0 for a post without words. Shape: (B,)."""
    count, mask = len(scores.start), scores.mask
    path = pad(tags, (0, len(mask) - tags.shape[1])).T.where(mask, 0)  # (W, B)
    of_words = scores.emissions.gather(1, path.unsqueeze(1)).squeeze(1).sum(0)
    steps = scores.transitions.flatten()[path[:-1] * count + path[1:]] * mask[1:]
    last = path.gather(0, _last(scores.lengths).unsqueeze(0)).squeeze(0)
    ends = scores.start[path[0]] + scores.end[last]
    return of_words + steps.sum(0) + ends * (scores.lengths > 0)


def _viterbi(scores: _Scores) -> tuple[Tensor, Tensor]:
    """The best last tag of each post (B,), and of each later word the best tag before each tag
    (W - 1, K, B). A step into padding stays on its tag: every path is read from the last row."""
    state = scores.start.unsqueeze(1) + scores.emissions[0]  # (K, B)
    steps = scores.transitions.unsqueeze(2)  # (from, to, 1)
    states, origins = [state], []
    for emission in scores.emissions[1:].unbind(0):
        best, origin = (state.unsqueeze(1) + steps).max(0)
        state = best + emission
        states.append(state)
        origins.append(origin)
    last = _last(scores.lengths).expand(1, len(steps), -1)
    at_last = torch.stack(states).gather(0, last).squeeze(0) + scores.end.unsqueeze(1)
    stay = torch.arange(len(steps), device=state.device).unsqueeze(1).expand(state.shape)
    stacked = torch.stack(origins) if origins else stay.new_empty(0, *state.shape)
    return at_last.argmax(0), stacked.where(scores.mask[1:].unsqueeze(1), stay)


def _span_probabilities(scores: _Scores, spans: Sequence[SpanQuery]) -> Tensor:
    """See `LinearChainCRF.span_marginals`; the steps of all spans are looked up at once."""
    messages, lengths, device = _messages(scores), scores.lengths.tolist(), scores.start.device
    firsts, steps = [], []
    for number, span in enumerate(spans):
        end = span.start + len(span.tags)
        if not 0 <= span.start < end <= lengths[span.post]:
            raise ValueError(f"a span of words {span.start} to {end} of {lengths[span.post]}")
        firsts.append((span.start, span.tags[0], span.post))
        for at, step in enumerate(pairwise(span.tags), start=span.start + 1):
            steps.append((number, at, *step, span.post, False))
        if span.continuation is not None and end < lengths[span.post]:
            steps.append((number, end, span.tags[-1], span.continuation, span.post, True))

    word, tag, post = torch.tensor(firsts, device=device, dtype=torch.long).view(-1, 3).unbind(1)
    posteriors = _posteriors(messages.arriving, messages.backward, scores.mask)
    table = torch.tensor(steps, device=device, dtype=torch.long).view(-1, 6)
    of_span, stepped, origin, to, of_post, not_taken = table.unbind(1)
    ways = scores.transitions[origin] + messages.backward[stepped, :, of_post]  # (steps, K)
    taken = ways.log_softmax(1).gather(1, to.unsqueeze(1)).squeeze(1)  # log P(to | origin)
    log_steps = torch.where(not_taken.bool(), torch.log1p(-taken.exp()), taken)
    return posteriors[word, tag, post].log().index_add(0, of_span, log_steps).exp()
