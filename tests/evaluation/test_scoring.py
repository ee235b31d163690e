from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from seqeval.metrics import classification_report
from seqeval.scheme import IOB2
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

from rpbert.data.labels import entity_lexicon
from rpbert.data.readers import open_data
from rpbert.errors import InputError
from rpbert.evaluation.evaluate import render
from rpbert.evaluation.scoring import (
    ADDS,
    DOES_NOT_ADD,
    Counts,
    Evaluation,
    TagScores,
    count,
    expected_calibration_error,
    relation_calibration,
    score_familiarity,
    score_partial,
    score_relations,
    score_spans,
    score_tags,
    spans_right,
    threshold_curve,
)
from rpbert.types import Calibration

DATA = Path(__file__).parents[3] / "shared" / "data"
TAGS = ["O", *(f"{prefix}-{label}" for prefix in "BI" for label in ("PER", "LOC", "ORG", "MISC"))]


def random_posts(random_: random.Random, count: int) -> tuple[list[list[str]], list[list[str]]]:
    """Gold and predicted tags, mostly malformed; the prediction keeps about half of the gold."""
    gold = [random_.choices(TAGS, k=random_.randint(1, 12)) for _ in range(count)]
    return gold, [
        [tag if random_.random() < 0.6 else random_.choice(TAGS) for tag in true] for true in gold
    ]


def assert_equals_seqeval(
    found: TagScores, gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> None:
    """In strict IOB2 mode and in seqeval's default one, overall and by type."""
    for scores, mode in ((found.strict, {"mode": "strict", "scheme": IOB2}), (found.lenient, {})):
        report = classification_report(gold, predicted, output_dict=True, zero_division=0, **mode)
        types = {name: row for name, row in report.items() if not name.endswith("avg")}
        if not scores.by_type:  # seqeval reports a dummy type where there is no entity at all
            assert all(row["support"] == 0 for row in types.values())
            continue
        ours = {"micro avg": scores, **scores.by_type}
        assert ours.keys() == {"micro avg", *types}
        for name, counts in ours.items():
            assert counts.precision == pytest.approx(report[name]["precision"])
            assert counts.recall == pytest.approx(report[name]["recall"])
            assert counts.f1 == pytest.approx(report[name]["f1-score"])
            assert counts.support == report[name]["support"]


@pytest.mark.parametrize(("calls", "posts"), [(400, 5), (100, 1), (1, 8000)])
def test_equals_seqeval_on_random_sequences(calls: int, posts: int) -> None:
    random_ = random.Random(posts)
    for _ in range(calls):
        gold, predicted = random_posts(random_, posts)
        assert_equals_seqeval(score_tags(gold, predicted), gold, predicted)


def test_a_group_is_scored_as_its_posts_alone() -> None:
    gold, predicted = random_posts(random.Random(0), 60)
    groups = [(ADDS, None, DOES_NOT_ADD)[i % 3] for i in range(60)]
    by_group = score_tags(gold, predicted, groups).by_group
    assert list(by_group) == [ADDS, DOES_NOT_ADD]
    for name, first in ((ADDS, 0), (DOES_NOT_ADD, 2)):
        assert by_group[name].posts == 20
        assert_equals_seqeval(by_group[name], gold[first::3], predicted[first::3])


def numbers(scores: Counts) -> tuple[int, int, int]:
    return scores.support, scores.predicted, scores.correct


def test_a_score_of_nothing_is_zero() -> None:
    assert asdict(count()) == dict.fromkeys(asdict(count()), 0)
    assert score_tags([], []).strict.f1 == 0
    assert score_relations([]).accuracy == score_relations([]).weighted_f1 == 0
    assert asdict(Evaluation(None))["cut_words"] == 0
    assert count(support=3).f1 == count(predicted=3).f1 == 0


def test_what_does_not_pair_up_is_refused() -> None:
    for wrong in (
        lambda: score_tags([["O"], ["O"]], [["O"]]),
        lambda: score_tags([["O"]], [["O"]], ["a", "b"]),
        lambda: score_spans([set()], []),
    ):
        with pytest.raises(ValueError):
            wrong()
    with pytest.raises(InputError, match="tags"):
        score_tags([["O", "O"]], [["O", "B-PER", "I-PER"]])


def test_familiarity_is_by_type_and_words_whatever_their_case() -> None:
    lexicon = entity_lexicon([["Kevin", "Love", "in", "Paris"]], [["B-PER", "I-PER", "O", "B-LOC"]])
    words = [["KEVIN", "LOVE", "met", "Paris", "Kevin"]]
    gold = [["B-PER", "I-PER", "O", "B-PER", "B-PER"]]
    predicted = [["B-PER", "I-PER", "O", "B-LOC", "B-PER"]]
    found = score_familiarity(words, gold, predicted, lexicon)
    assert numbers(found["seen"].strict) == (1, 2, 1)
    assert numbers(found["unseen"].strict) == (2, 1, 1)


def test_seen_and_unseen_add_up_to_all() -> None:
    gold, predicted = random_posts(random.Random(1), 200)
    words = [[f"word{(i * j) % 7}" for j in range(len(tags))] for i, tags in enumerate(gold)]
    lexicon = entity_lexicon(words[:40], gold[:40])
    found, whole = score_familiarity(words, gold, predicted, lexicon), score_tags(gold, predicted)
    for name in ("strict", "lenient"):
        parts = [numbers(getattr(found[part], name)) for part in ("seen", "unseen")]
        assert parts[0][0] > 0 < parts[1][0]
        assert tuple(map(sum, zip(*parts, strict=True))) == numbers(getattr(whole, name))


def test_a_near_miss_counts_as_said() -> None:
    gold, predicted = [["B-PER", "I-PER", "O", "B-LOC"]], [["B-PER", "O", "B-ORG", "B-ORG"]]
    found = score_partial(gold, predicted)
    # Half of the person, the place under another label, and one of nothing.
    shares = {name: (of.precision, of.recall) for name, of in found.items()}
    assert shares == {"exact": (1 / 3, 1 / 2), "partial": (1 / 2, 3 / 4), "type": (1 / 3, 1 / 2)}
    assert score_partial([["O"]], [["O"]])["partial"].f1 == 0
    for seed in range(20):  # what asks for less finds more
        true, other = random_posts(random.Random(seed), 20)
        strict, near = score_tags(true, other).strict, score_partial(true, other)
        assert strict.correct <= min(near["exact"].correct, near["type"].correct)
        assert near["exact"].recall <= near["partial"].recall


def test_a_threshold_trades_coverage_for_precision() -> None:
    draw = np.random.default_rng(0)
    scores, right = draw.random(60).tolist(), (draw.random(60) < 0.5).tolist()
    curve = threshold_curve([*scores, 0.25], [*right, True], 80)
    assert [of.threshold for of in curve] == [n / 20 for n in range(20)]
    assert (curve[0].coverage, curve[5].threshold) == (1.0, 0.25)
    for of in curve:
        kept = [good for s, good in zip(scores, right, strict=True) if s >= of.threshold]
        kept += [True] * (of.threshold <= 0.25)
        assert numbers(of) == (80, len(kept), sum(kept))
        assert of.coverage == len(kept) / 61
    assert threshold_curve([], [], 0)[0].coverage == 0


@pytest.mark.skipif(not DATA.exists(), reason="the real data is not beside this repository")
@pytest.mark.parametrize(
    ("name", "strict", "lenient", "seen"),
    [("twitter2015", 5072, 5207, 33.5), ("twitter2017", 1351, 1351, 53.6)],
)
def test_published_facts_of_the_real_test_splits(
    name: str, strict: int, lenient: int, seen: float
) -> None:
    source = open_data(DATA / name)
    (known, known_tags), (words, gold) = (
        zip(*((post.words, post.tags or ()) for post in source.read(split)), strict=True)
        for split in ("train", "test")
    )
    lexicon = entity_lexicon(known, known_tags)
    scores = score_tags(gold, gold)
    assert numbers(scores.strict) == (strict,) * 3
    assert numbers(scores.lenient) == (lenient,) * 3
    familiar = score_familiarity(words, gold, gold, lexicon)["seen"].strict.support
    assert round(100 * familiar / strict, 1) == seen


@pytest.mark.parametrize("share", [0.0, 0.44, 1.0])
def test_relation_scores_equal_scikit_learns(share: float) -> None:
    random_ = random.Random(7)
    for _ in range(50):
        size = random_.randint(1, 60)
        labels = [
            random_.choice([1, 0.6] if random_.random() < share else [0, 0.5]) for _ in range(size)
        ]
        scores = [random_.choice([random_.random(), 0.5, 0.0, 1.0]) for _ in range(size)]
        found = score_relations(list(zip(labels, scores, strict=True)))
        gold, classes = ([int(value > 0.5) for value in values] for values in (labels, scores))
        assert found.accuracy == pytest.approx(accuracy_score(gold, classes))
        shared = {"labels": [0, 1], "zero_division": 0}
        for average, ours in (("macro", found.macro_f1), ("weighted", found.weighted_f1)):
            assert ours == pytest.approx(f1_score(gold, classes, average=average, **shared))
        rows = zip(*precision_recall_fscore_support(gold, classes, **shared), strict=True)
        for counts, row in zip((found.does_not_add, found.adds), rows, strict=True):
            assert (counts.precision, counts.recall, counts.f1, counts.support) == pytest.approx(
                row
            )
        for label, mean in zip((1, 0), found.mean_r.values(), strict=True):
            of_class = [score for known, score in zip(gold, scores, strict=True) if known == label]
            assert mean == (pytest.approx(np.mean(of_class)) if of_class else None)


def test_the_calibration_error_equals_a_plain_count() -> None:
    draw = np.random.default_rng(0)
    bins = 15  # Guo et al. 2017
    scores = [*draw.random(300).tolist(), 0.0, 1.0, 1 / bins, 2 / bins]
    right = [*(draw.random(300) < 0.4).tolist(), True, False, True, False]
    expected = 0.0
    for m in range(1, bins + 1):
        low = -1.0 if m == 1 else (m - 1) / bins
        held = [i for i, s in enumerate(scores) if low < s <= m / bins]
        if held:
            accuracy = np.mean([right[i] for i in held])
            confidence = np.mean([scores[i] for i in held])
            expected += len(held) / len(scores) * abs(accuracy - confidence)
    assert expected_calibration_error(scores, right) == pytest.approx(expected)
    assert expected_calibration_error([], []) == 0
    assert expected_calibration_error([0.25], [True]) == 0.75
    assert expected_calibration_error([0.01, 0.1], [False, True]) == pytest.approx((0.9 + 0.01) / 2)


def test_a_temperature_divides_the_logit_of_r() -> None:
    halved = Calibration(relation=2.0)
    assert Calibration().relation_probability(0.2) == 0.2
    assert halved.relation_probability(0.2) == pytest.approx(1 / (1 + math.exp(math.log(4) / 2)))
    assert halved.relation_probability(0.5) == pytest.approx(0.5)
    assert 0 < halved.relation_probability(0.0) < 0.01
    # r = 0.2 says "does not add" with a confidence of 0.8, and r = 0.5 with one of 0.5.
    found = relation_calibration([(0, 0.2), (0, 0.9), (0.5, 0.5)], halved)
    assert found.before == pytest.approx((0.2 + 0.9 + 0.5) / 3)
    assert found.after == pytest.approx((1 / 3 + 0.75 + 0.5) / 3)
    assert (found.support, found.temperature) == (3, 2.0)
    gold, predicted = [["B-PER", "O", "B-LOC"]], [["B-PER", "O", "B-ORG"]]
    assert spans_right(gold, predicted) == [True, False]


def test_the_table_names_scorer_and_support() -> None:
    gold = [["B-PER", "I-PER"], ["I-LOC", "B-LOC"], ["O", "B-PER"]]
    predicted = [["B-PER", "I-PER"], ["I-LOC", "O"], ["B-PER", "O"]]
    tags = score_tags(gold, predicted, ["image adds", "image doesn't add", None])
    familiar = score_familiarity([["a", "b"]] * 3, gold, predicted, entity_lexicon([], []))
    relation = score_relations([(1, 0.9), (0, 0.8), (0, 0.1), (1, 0.7)])
    lines = render(asdict(Evaluation(tags, familiar, relation))).split("\n")
    rows = [re.split(" {2,}", line) for line in lines]
    assert rows[0] == ["%", "scorer", "precision", "recall", "F1", "support"]
    strict, lenient = ["50.00", "33.33", "40.00", "3"], ["66.67", "50.00", "57.14", "4"]
    for name in ("all entities", "unseen in training"):
        assert [name, "seqeval, strict IOB2", *strict] in rows
        assert [name, "conlleval", *lenient] in rows
    assert ["image adds", "conlleval", "100.00", "100.00", "100.00", "1"] in rows
    assert ["image adds", "r > 0.5", "66.67", "100.00", "80.00", "2"] in rows
    assert "mean r 0.80 where the image adds, 0.45 where it doesn't" in lines
    assert "accuracy 75.0, macro F1 73.3, weighted F1 73.3, 4 posts" in lines
