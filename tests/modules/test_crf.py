"""The CRF against the sum over all tag sequences, and against pytorch-crf on long posts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import pytest
import torch
from torch import Tensor
from torchcrf import CRF

from rpbert.errors import InputError
from rpbert.modules.crf import (
    FORBIDDEN,
    LinearChainCRF,
    SpanQuery,
    TagConstraint,
    iob2_constraint,
)

TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
K = len(TAGS)
LENGTHS = (5, 1, 0, 3)


def path_scores(
    crf: LinearChainCRF, emissions: Tensor, paths: Tensor, constraint: TagConstraint | None = None
) -> Tensor:
    """s(y) of paths (P, W) of one post, in float64. Shape: (P,)."""
    steps, start, end = (p.double() for p in (crf.transitions, crf.start, crf.end))
    if constraint is not None:
        steps, start = steps + constraint.transitions, start + constraint.start
    of_words = emissions.double()[torch.arange(len(emissions)), paths].sum(1)
    scores = of_words + steps[paths[:, :-1], paths[:, 1:]].sum(1)
    return scores + start[paths[:, 0]] + end[paths[:, -1]] if len(emissions) else scores


class Enumerated:
    """Every tag sequence of one post with its score."""

    def __init__(
        self,
        crf: LinearChainCRF,
        emissions: Tensor,
        constraint: TagConstraint | None = None,
        temperature: float = 1.0,
    ) -> None:
        self.paths = list(product(range(len(crf.start)), repeat=len(emissions)))
        every = torch.tensor(self.paths, dtype=torch.long)
        self.scores = path_scores(crf, emissions, every, constraint) / temperature

    def log_probability(self, path: Tensor) -> Tensor:
        return self.scores.log_softmax(0)[self.paths.index(tuple(path.tolist()))]

    def best(self) -> list[int]:
        return list(self.paths[int(self.scores.argmax())])

    def span(self, query: SpanQuery) -> Tensor:
        end = query.start + len(query.tags)
        chosen = [
            path[query.start : end] == query.tags
            and (end == len(path) or path[end] != query.continuation)
            for path in self.paths
        ]
        return self.scores.softmax(0)[torch.tensor(chosen)].sum()


def mask_of(lengths: Sequence[int], width: int | None = None) -> Tensor:
    width = max(lengths) if width is None else width
    return torch.arange(width) < torch.tensor(lengths).unsqueeze(1)


def gradients(loss: Tensor, *tensors: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, tensors))


def random_crf(tags: int = K) -> LinearChainCRF:
    torch.manual_seed(0)
    crf = LinearChainCRF(tags)
    for parameter in crf.parameters():
        torch.nn.init.normal_(parameter)
    return crf


@pytest.fixture(params=[1.0, 30.0], ids=["scale 1", "scale 30"])
def emissions(request: pytest.FixtureRequest) -> Tensor:
    torch.manual_seed(1)
    scale: float = request.param
    return torch.randn(len(LENGTHS), max(LENGTHS), K) * scale


@pytest.fixture(params=[False, True], ids=["free", "constrained"])
def constraint(request: pytest.FixtureRequest) -> TagConstraint | None:
    return iob2_constraint(TAGS) if request.param else None


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-5), (torch.float64, 1e-9)])
def test_likelihood_and_gradients_equal_enumeration(
    emissions: Tensor, dtype: torch.dtype, near: float
) -> None:
    crf, mask = random_crf().to(dtype), mask_of(LENGTHS)
    emissions = emissions.to(dtype).requires_grad_()
    tags, weight = torch.randint(0, K, mask.shape), torch.randn(len(LENGTHS))
    found = crf.log_likelihood(emissions, tags, mask)
    assert found.dtype == dtype
    rows = zip(emissions, tags, LENGTHS, strict=True)
    expected = torch.stack(
        [Enumerated(crf, words[:n]).log_probability(path[:n]) for words, path, n in rows]
    )
    torch.testing.assert_close(found.double(), expected, rtol=near, atol=near)
    learnt = emissions, *crf.parameters()
    for mine, other in zip(
        gradients((found * weight).sum(), *learnt),
        gradients((expected * weight).sum(), *learnt),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, rtol=near, atol=near)


def test_decoding_equals_enumeration(emissions: Tensor, constraint: TagConstraint | None) -> None:
    crf, mask = random_crf(), mask_of(LENGTHS)
    found = crf.decode(emissions, mask, constraint)
    for path, words, length in zip(found, emissions, LENGTHS, strict=True):
        assert path == Enumerated(crf, words[:length], constraint).best()


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_span_marginals_equal_enumeration(
    emissions: Tensor, constraint: TagConstraint | None, temperature: float
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
    found = crf.span_marginals(emissions, mask, spans, constraint, temperature)
    every = [
        Enumerated(crf, words[:length], constraint, temperature)
        for words, length in zip(emissions, LENGTHS, strict=True)
    ]
    expected = torch.stack([every[span.post].span(span) for span in spans]).float()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert found.min() >= 0
    assert found.max() <= 1
    if temperature == 1:
        assert torch.equal(found, crf.span_marginals(emissions, mask, spans, constraint))
    assert crf.span_marginals(emissions, mask, []).shape == (0,)


@pytest.mark.parametrize("width", [0, 3])
def test_posts_without_words(width: int) -> None:
    crf, mask = random_crf(), mask_of((0, 0), width)
    emissions = torch.randn(2, width, K, requires_grad=True)
    found = crf.log_likelihood(emissions, torch.zeros(2, width, dtype=torch.long), mask)
    assert found.tolist() == [0.0, 0.0]
    for gradient in gradients(found.sum(), emissions, *crf.parameters()):
        assert not gradient.any()
    assert crf.decode(emissions, mask) == [[], []]
    scores = crf._scores(emissions, mask)
    assert len(scores.emissions) == len(scores.mask) == max(width, 1)


@pytest.mark.parametrize("junk", [float("nan"), float("inf"), 1e30])
def test_padding_and_other_posts_change_nothing(junk: float) -> None:
    crf, lengths = random_crf(), (6, 1, 0, 4)
    emissions, tags = torch.randn(4, 6, K), torch.randint(0, K, (4, 6))
    spans = [SpanQuery(0, 4, (1, 2), 2), SpanQuery(3, 2, (3, 4), 4)]
    mask, wide_mask = mask_of(lengths), mask_of(lengths, 9)
    wide, wide_tags = torch.full((4, 9, K), junk), torch.full((4, 9), -100)
    wide[wide_mask], wide_tags[wide_mask] = emissions[mask], tags[mask]
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


@pytest.mark.parametrize(
    ("tags", "lengths", "scale", "near"),
    [
        *((tags, range(1, 18), 1.0, 1e-4) for tags in (2, 9)),
        *((K, (3000, 1700), scale, 1e-2) for scale in (1.0, 1e4)),
    ],
)
def test_long_posts_and_large_emissions_are_those_of_pytorch_crf(
    tags: int, lengths: Sequence[int], scale: float, near: float
) -> None:
    crf, mask = random_crf(tags), mask_of(lengths)
    reference = CRF(tags, batch_first=True).double()
    with torch.no_grad():
        reference.transitions.copy_(crf.transitions)
        reference.start_transitions.copy_(crf.start)
        reference.end_transitions.copy_(crf.end)
    single = (torch.randn(*mask.shape, tags) * scale).requires_grad_()
    double = single.detach().double().requires_grad_()
    best, theirs = crf.decode(single, mask), reference.decode(double, mask=mask)
    for words, *both in zip(double, best, theirs, strict=True):  # equally good, up to rounding
        first, second = path_scores(crf, words[: len(both[0])], torch.tensor(both))
        torch.testing.assert_close(first, second, rtol=0, atol=near)
    gold = torch.zeros(mask.shape, dtype=torch.long)
    for row, path in zip(gold, best, strict=True):
        row[: len(path)] = torch.tensor(path)
    gold[0, lengths[0] // 2] = (gold[0, lengths[0] // 2] + 1) % tags
    found = crf.log_likelihood(single, gold, mask)
    expected = reference(double, gold, mask=mask, reduction="none")
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=near)
    mine, other = gradients(found.sum(), single), gradients(expected.sum(), double)
    torch.testing.assert_close(mine[0].double(), other[0], rtol=0, atol=near / 5)


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_the_divergence_and_its_gradients_equal_enumeration(scale: float) -> None:
    """Of the first reading, and so of p, no gradient is taken."""
    crf, mask = LinearChainCRF(K).double(), torch.arange(5) < torch.tensor(LENGTHS)[:, None]
    given, emissions = (scale * torch.randn(4, 5, K, dtype=torch.float64) for _ in "pq")
    given[3] = emissions[3]
    given.requires_grad_()
    emissions.requires_grad_()
    found = crf.divergence(given, emissions, mask)
    expected = []
    for of_p, of_q, length in zip(given, emissions, LENGTHS, strict=True):
        p, q = (Enumerated(crf, e[:length]).scores.log_softmax(0) for e in (of_p, of_q))
        expected.append((p.detach().exp() * (p.detach() - q)).sum())
    torch.testing.assert_close(found, torch.stack(expected))
    assert found[:2].min() > 0
    assert found[2:].abs().max() < 1e-9  # a post without words, and two readings alike
    learnt = (emissions, *crf.parameters())
    wanted = torch.autograd.grad(torch.stack(expected).sum(), learnt)
    for one, other in zip(torch.autograd.grad(found.sum(), learnt), wanted, strict=True):
        torch.testing.assert_close(one, other)
    assert given.grad is None


def test_ties_go_to_the_lowest_tag_and_new_scores_are_small() -> None:
    crf = LinearChainCRF(K)
    for parameter in crf.parameters():
        assert 0.02 < parameter.std() < parameter.abs().max() <= 0.1
        torch.nn.init.zeros_(parameter)
    emissions = torch.zeros(2, 7, K)
    emissions[1, :, 0] = -1.0
    assert crf.decode(emissions, mask_of((7, 4))) == [[0] * 7, [1] * 4]


def test_scores_are_float32_under_autocast_and_of_bfloat16() -> None:
    crf, mask = random_crf(), mask_of(LENGTHS)
    tags, emissions = torch.randint(0, K, mask.shape), torch.randn(*mask.shape, K)

    def answers() -> tuple[Tensor, Tensor]:
        spans = [SpanQuery(0, 1, (1, 2), 2)]
        likelihood = crf.log_likelihood(emissions, tags, mask)
        return likelihood, crf.span_marginals(emissions, mask, spans)

    expected = answers()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = answers()
    for mine, other in zip(found, expected, strict=True):
        assert mine.dtype == torch.float32
        assert torch.equal(mine, other)
    rounded = emissions.bfloat16().requires_grad_()
    half = crf.log_likelihood(rounded, tags, mask)
    torch.testing.assert_close(half, crf.log_likelihood(rounded.float(), tags, mask))
    assert gradients(half.sum(), rounded)[0].dtype == torch.bfloat16


@pytest.mark.parametrize("tag", ["PER", "X-PER", "B-", ""])
def test_a_constraint_names_the_tag_it_cannot_read(tag: str) -> None:
    with pytest.raises(InputError, match=f"'{tag}'"):
        iob2_constraint(["O", tag])


@pytest.mark.parametrize(("start", "tags"), [(1, (0, 1)), (-1, (0,)), (0, ())])
def test_a_span_beyond_its_post_is_refused(start: int, tags: tuple[int, ...]) -> None:
    words = torch.zeros(1, 2, 3)
    with pytest.raises(ValueError, match="span"):
        LinearChainCRF(3).span_marginals(words, mask_of([2]), [SpanQuery(0, start, tags, None)])


def test_the_constraint_forbids_what_is_no_iob2_and_nothing_else() -> None:
    constraint = iob2_constraint(TAGS)
    for i, origin in enumerate(TAGS):
        assert constraint.start[i] == (FORBIDDEN if origin[0] == "I" else 0)
        for j, to in enumerate(TAGS):
            lone = to[0] == "I" and origin not in (f"B-{to[2:]}", f"I-{to[2:]}")
            assert constraint.transitions[i, j] == (FORBIDDEN if lone else 0), (origin, to)
