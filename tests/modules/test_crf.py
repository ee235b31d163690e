from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import pytest
import torch
from torch import Tensor
from torchcrf import CRF

from rpbert.errors import InputError
from rpbert.modules.crf import LinearChainCRF, SpanQuery, TagConstraint, iob2_constraint

TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
K = len(TAGS)
LENGTHS = (5, 1, 0, 3)


@dataclass
class Enumerated:
    """Every tag sequence of one post with its score, each added up by a plain loop."""

    paths: list[tuple[int, ...]]
    scores: Tensor

    @classmethod
    def of(
        cls, crf: LinearChainCRF, emissions: Tensor, length: int, constraint: TagConstraint | None
    ) -> Enumerated:
        transitions, start, end = (
            p.detach().double() for p in (crf.transitions, crf.start, crf.end)
        )
        if constraint is not None:
            transitions, start = transitions + constraint.transitions, start + constraint.start
        steps, first, last = transitions.tolist(), start.tolist(), end.tolist()
        words = emissions.double().tolist()
        paths = list(product(range(K), repeat=length))
        scores = []
        for path in paths:
            score = first[path[0]] + last[path[-1]] if path else 0.0
            for word, tag in enumerate(path):
                score += words[word][tag]
            for origin, to in pairwise(path):
                score += steps[origin][to]
            scores.append(score)
        return cls(paths, torch.tensor(scores, dtype=torch.float64))

    def best(self) -> list[int]:
        return list(self.paths[int(self.scores.argmax())])

    def span(self, query: SpanQuery) -> float:
        end = query.start + len(query.tags)
        chosen = torch.tensor(
            [
                path[query.start : end] == query.tags
                and (end == len(path) or path[end] != query.continuation)
                for path in self.paths
            ]
        )
        return float(self.scores.softmax(0)[chosen].sum())


def mask_of(lengths: Sequence[int], width: int | None = None) -> Tensor:
    width = max(lengths) if width is None else width
    return torch.arange(width) < torch.tensor(lengths).unsqueeze(1)


def gradients(loss: Tensor, *tensors: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, tensors))


def random_crf(tags: int = K, seed: int = 0) -> LinearChainCRF:
    torch.manual_seed(seed)
    crf = LinearChainCRF(tags)
    with torch.no_grad():
        for parameter in crf.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return crf


def reference_of(crf: LinearChainCRF) -> CRF:
    reference = CRF(len(crf.start), batch_first=True)
    with torch.no_grad():
        reference.transitions.copy_(crf.transitions)
        reference.start_transitions.copy_(crf.start)
        reference.end_transitions.copy_(crf.end)
    return reference


@pytest.fixture(params=[1.0, 30.0], ids=["scale 1", "scale 30"])
def emissions(request: pytest.FixtureRequest) -> Tensor:
    torch.manual_seed(1)
    scale: float = request.param
    return torch.randn(len(LENGTHS), max(LENGTHS), K) * scale


@pytest.fixture(params=[False, True], ids=["free", "constrained"])
def constraint(request: pytest.FixtureRequest) -> TagConstraint | None:
    return iob2_constraint(TAGS) if request.param else None


def test_likelihood_equals_enumeration(emissions: Tensor) -> None:
    crf, mask = random_crf(), mask_of(LENGTHS)
    tags = torch.randint(0, K, mask.shape)
    found = crf.log_likelihood(emissions, tags, mask)
    for post, length in enumerate(LENGTHS):
        every = Enumerated.of(crf, emissions[post], length, None)
        path = every.paths.index(tuple(tags[post, :length].tolist()))
        expected = every.scores.log_softmax(0)[path]
        torch.testing.assert_close(found[post].double(), expected, rtol=1e-5, atol=1e-5)


def test_decoding_equals_enumeration(emissions: Tensor, constraint: TagConstraint | None) -> None:
    crf, mask = random_crf(), mask_of(LENGTHS)
    found = crf.decode(emissions, mask, constraint)
    for post, length in enumerate(LENGTHS):
        assert found[post] == Enumerated.of(crf, emissions[post], length, constraint).best()


def test_span_marginals_equal_enumeration(
    emissions: Tensor, constraint: TagConstraint | None
) -> None:
    crf, mask = random_crf(), mask_of(LENGTHS)
    single = [(tag,) for tag in range(K)]
    paths = (*single, (1, 2), (1, 2, 2), (3, 4), (2, 2), (1, 4, 0, 0, 3))
    spans = [
        SpanQuery(post, start, path, continuation)
        for post, length in enumerate(LENGTHS)
        for path in paths
        for start in range(length - len(path) + 1)
        for continuation in (None, 2, 4)
    ]
    found = crf.span_marginals(emissions, mask, spans, constraint)
    every = [
        Enumerated.of(crf, emissions[post], length, constraint)
        for post, length in enumerate(LENGTHS)
    ]
    expected = torch.tensor([every[span.post].span(span) for span in spans])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert found.min() >= 0
    assert found.max() <= 1
    assert crf.span_marginals(emissions, mask, []).shape == (0,)


@pytest.mark.parametrize("tags", [2, 9])
def test_equals_pytorch_crf(tags: int) -> None:
    lengths = torch.randint(1, 18, (16,), generator=torch.Generator().manual_seed(tags)).tolist()
    crf, mask = random_crf(tags), mask_of(lengths)
    reference = reference_of(crf)
    ours = torch.randn(*mask.shape, tags, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    gold, weight = torch.randint(0, tags, mask.shape), torch.randn(len(lengths))

    found = crf.log_likelihood(ours, gold, mask)
    expected = reference(theirs, gold, mask=mask, reduction="none")
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    mine = gradients((found * weight).sum(), ours, crf.transitions, crf.start, crf.end)
    parameters = reference.transitions, reference.start_transitions, reference.end_transitions
    other = gradients((expected * weight).sum(), theirs, *parameters)
    torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)
    assert crf.decode(ours, mask) == reference.decode(theirs, mask=mask)


def test_gradients_in_double_precision() -> None:
    crf, mask = random_crf().double(), mask_of(LENGTHS)
    emissions = torch.randn(*mask.shape, K, dtype=torch.float64, requires_grad=True)
    tags = torch.randint(0, K, mask.shape)

    def likelihood(emissions: Tensor, *parameters: Tensor) -> Tensor:
        return crf.log_likelihood(emissions, tags, mask)

    # gradcheck moves the very tensors it is given, and these are the parameters.
    assert torch.autograd.gradcheck(likelihood, (emissions, *crf.parameters()))


@pytest.mark.parametrize("width", [0, 3])
def test_posts_without_words(width: int) -> None:
    crf, mask = random_crf(), mask_of((0, 0), width)
    emissions = torch.randn(2, width, K, requires_grad=True)
    found = crf.log_likelihood(emissions, torch.zeros(2, width, dtype=torch.long), mask)
    assert found.tolist() == [0.0, 0.0]
    for gradient in gradients(found.sum(), emissions, *crf.parameters()):
        assert not gradient.any()
    assert crf.decode(emissions, mask) == [[], []]


@pytest.mark.parametrize("junk", [float("nan"), float("inf"), 1e30])
def test_padding_and_other_posts_change_nothing(junk: float) -> None:
    crf, lengths = random_crf(), (6, 1, 0, 4)
    emissions, tags = torch.randn(4, 6, K), torch.randint(0, K, (4, 6))
    spans = [SpanQuery(0, 4, (1, 2), 2), SpanQuery(3, 2, (3, 4), 4)]
    wide = torch.full((4, 9, K), junk)
    wide_tags = torch.full((4, 9), -100)
    for post, length in enumerate(lengths):
        wide[post, :length], wide_tags[post, :length] = (
            emissions[post, :length],
            tags[post, :length],
        )
    mask, wide_mask = mask_of(lengths), mask_of(lengths, 9)
    emissions.requires_grad_()
    wide.requires_grad_()

    narrow = crf.log_likelihood(emissions, tags, mask)
    broad = crf.log_likelihood(wide, wide_tags, wide_mask)
    torch.testing.assert_close(broad, narrow)
    expected = gradients(narrow.sum(), emissions, *crf.parameters())
    found = gradients(broad.sum(), wide, *crf.parameters())
    assert not found[0][~wide_mask].any()
    torch.testing.assert_close([found[0][:, :6], *found[1:]], expected)
    assert crf.decode(wide, wide_mask) == crf.decode(emissions, mask)
    together = crf.span_marginals(emissions, mask, spans)
    torch.testing.assert_close(crf.span_marginals(wide, wide_mask, spans), together)
    alone = crf.span_marginals(emissions[3:, :4], mask[3:, :4], [SpanQuery(0, 2, (3, 4), 4)])
    torch.testing.assert_close(alone, together[1:])


def test_malformed_gold_has_a_finite_loss() -> None:
    crf, mask = random_crf(), mask_of((4, 3))
    emissions = torch.randn(2, 4, K, requires_grad=True)
    lone_inside = torch.tensor([[2, 0, 4, 2], [0, 4, 2, 0]])
    loss = -crf.log_likelihood(emissions, lone_inside, mask).sum()
    assert loss.isfinite()
    for gradient in gradients(loss, emissions, *crf.parameters()):
        assert gradient.isfinite().all()


def test_constrained_decoding_is_well_formed_against_any_emissions() -> None:
    constraint = iob2_constraint(TAGS)
    emissions = torch.randn(64, 20, K) * 1e4
    emissions[:, :, [2, 4]] += 2e4  # I- by far the best everywhere
    for path in random_crf().decode(emissions, mask_of([20] * 64), constraint):
        names = ["O", *(TAGS[tag] for tag in path)]
        for before, after in pairwise(names):
            if after.startswith("I-"):
                assert before[2:] == after[2:]


def test_a_constraint_names_the_tag_it_cannot_read() -> None:
    with pytest.raises(InputError, match="'PER'"):
        iob2_constraint(["O", "PER"])


def test_ties_go_to_the_lowest_tag() -> None:
    crf = LinearChainCRF(K)
    with torch.no_grad():
        for parameter in crf.parameters():
            parameter.zero_()
    emissions = torch.zeros(2, 7, K)
    emissions[1, :, 0] = -1.0
    assert crf.decode(emissions, mask_of((7, 4))) == [[0] * 7, [1] * 4]


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_long_posts_and_large_emissions_keep_their_precision(scale: float) -> None:
    lengths = (3000, 1700)
    crf, mask = random_crf(), mask_of(lengths)
    emissions = torch.randn(2, 3000, K) * scale
    best = crf.decode(emissions, mask)
    tags = torch.zeros(2, 3000, dtype=torch.long)
    for post, path in enumerate(best):
        tags[post, : len(path)] = torch.tensor(path)
    tags[0, 1500] = (tags[0, 1500] + 1) % K

    single = emissions.clone().requires_grad_()
    found = crf.log_likelihood(single, tags, mask)
    reference = reference_of(crf).double()
    double = emissions.double().requires_grad_()
    expected = reference(double, tags, mask=mask, reduction="none")
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-2)
    mine, other = gradients(found.sum(), single), gradients(expected.sum(), double)
    torch.testing.assert_close(mine[0].double(), other[0], rtol=0, atol=2e-3)
    theirs = reference.decode(double, mask=mask)
    for post, path in enumerate(best):  # equally good, up to rounding
        length = torch.ones(len(path), 1, dtype=torch.bool)
        both = [
            reference._compute_score(
                double[post, : len(path), None], torch.tensor(p)[:, None], length
            )
            for p in (path, theirs[post])
        ]
        torch.testing.assert_close(both[0], both[1], rtol=0, atol=1e-2)


def test_scores_are_float32_under_autocast_and_of_bfloat16() -> None:
    crf, mask = random_crf(), mask_of(LENGTHS)
    tags, emissions = torch.randint(0, K, mask.shape), torch.randn(*mask.shape, K)
    spans = [SpanQuery(0, 1, (1, 2), 2)]

    def answers() -> tuple[Tensor, Tensor]:
        return (
            crf.log_likelihood(emissions, tags, mask),
            crf.span_marginals(emissions, mask, spans),
        )

    expected = answers()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = answers()
    rounded = emissions.bfloat16().requires_grad_()
    half = crf.log_likelihood(rounded, tags, mask)
    torch.testing.assert_close(half, crf.log_likelihood(rounded.float(), tags, mask))
    assert gradients(half.sum(), rounded)[0].dtype == torch.bfloat16
    for mine, other in zip(found, expected, strict=True):
        assert mine.dtype == torch.float32
        assert torch.equal(mine, other)


def test_a_span_beyond_its_post_is_refused() -> None:
    crf = LinearChainCRF(3)
    with pytest.raises(ValueError, match="span"):
        crf.span_marginals(
            torch.zeros(1, 2, 3),
            torch.ones(1, 2, dtype=torch.bool),
            [SpanQuery(0, 1, (0, 1), None)],
        )
