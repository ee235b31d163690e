"""Relation supervision: what each source makes of posts, held to plain counting."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from rpbert.config.run import DataSettings, MismatchSource, Rates
from rpbert.errors import InputError
from rpbert.evidence.base import EvidenceReader
from rpbert.evidence.captions import CaptionReader, CaptionSettings
from rpbert.training.relation_sources import MismatchedPairs, RelationSupply, relation_posts
from rpbert.training.tasks import RelationTask, Schedule
from rpbert.types import Post
from tests.conftest import made_posts, tiny

CAPTIONS = EvidenceReader([CaptionReader(lambda caption: [1] * len(caption), CaptionSettings())])
RATES = Rates(head=1e-3, encoder=1e-3, projection=1e-3, visual=1e-3)


def captioned(*rows: tuple[str, str], **known: Any) -> list[Post]:
    """Posts of words and a caption."""
    return [
        Post.from_words(str(i), tuple(text.split()), caption=caption, **known)
        for i, (text, caption) in enumerate(rows)
    ]


def supply(sources: Any, posts: list[Post]) -> RelationSupply:
    given = DataSettings.model_validate({"path": "x", "relation_source": sources})
    return relation_posts(given, posts, "joined", CAPTIONS, seed=0)


def test_an_exchanged_pair_has_one_posts_text_and_anothers_image() -> None:
    posts = made_posts(8)
    posts[1] = posts[1].with_(images=posts[0].images)
    pairs = MismatchedPairs(posts, MismatchSource(negatives=3, weight=6, matched=0.9), seed=1)
    by_words = {post.words: post for post in posts}
    for number in (1, 2):
        epoch = pairs.of_epoch(number)
        assert len(epoch) == len(pairs) == 8 + 3 * 8
        own, made = epoch[:8], epoch[8:]
        for post in own:
            assert post.image is by_words[post.words].image
            assert (post.relation, post.relation_weight) == (0.9, 6)
        assert Counter(post.words for post in made) == dict.fromkeys(by_words, 3)
        for post in made:
            source = by_words[post.words]
            assert post.image is not source.image
            assert any(
                (post.image, post.caption) == (other.image, other.caption)
                and post.images[0].regions is other.images[0].regions
                for other in posts
            )
            assert (post.relation, post.relation_weight) == (0.0, 2)
        assert all(post.tags is None for post in epoch)
    assert pairs.of_epoch(1) == pairs.of_epoch(1)
    assert pairs.of_epoch(1)[8:] != pairs.of_epoch(2)[8:]


def test_every_other_image_is_as_likely_but_those_of_the_same_look() -> None:
    posts = captioned(("a", "sea"), ("b", "sea"), ("c", "dog"), ("d", "cat"))
    pairs = MismatchedPairs(posts, MismatchSource(negatives=3000), seed=0)
    drawn = {text: Counter[str]() for text in "abcd"}
    for post in pairs.of_epoch(1)[4:]:
        drawn[post.words[0]][post.caption or ""] += 1
    for text, expected in {
        "a": {"dog": 1 / 2, "cat": 1 / 2},
        "b": {"dog": 1 / 2, "cat": 1 / 2},
        "c": {"sea": 2 / 3, "cat": 1 / 3},
        "d": {"sea": 2 / 3, "dog": 1 / 3},
    }.items():
        assert set(drawn[text]) == set(expected)
        for caption, share in expected.items():
            error = (share * (1 - share) / 3000) ** 0.5
            assert abs(drawn[text][caption] / 3000 - share) < 4 * error


@pytest.mark.parametrize("hardness", [1, 50])
def test_no_negative_is_what_stands_beside_the_same_words(hardness: int) -> None:
    """As two images of one post do, or two kinds of what one shows."""
    rows = [("a b", "sea"), ("a b", "dog"), ("a c", "cat"), ("d", "dog"), ("d", "sun")]
    pairs = MismatchedPairs(
        captioned(*rows), MismatchSource(negatives=9, hardness=hardness), seed=0
    )
    drawn = {(" ".join(post.words), post.caption) for post in pairs.of_epoch(1)[len(rows) :]}
    every = {(text, caption) for text, _ in rows for _, caption in rows}
    assert drawn <= every - set(rows)
    if hardness == 1:
        assert drawn == every - set(rows)


def test_a_post_beside_whose_words_all_stands_has_no_negative() -> None:
    posts = captioned(("a", "sea"), ("a", "dog"), ("b", "dog"))
    pairs = MismatchedPairs(posts, MismatchSource(negatives=2), seed=0)
    epoch = pairs.of_epoch(1)
    assert len(epoch) == len(pairs) == 3 + 2
    assert {(post.words, post.caption) for post in epoch[3:]} == {(("b",), "sea")}
    with pytest.raises(InputError, match="2 different images or captions to exchange"):
        MismatchedPairs(posts[:2], MismatchSource(), seed=0)
    with pytest.raises(InputError, match="1 different images"):
        supply("mismatch", captioned(("a", "sea"), ("b", "sea")))


def test_a_hard_negative_is_of_the_nearest_words() -> None:
    """So many are drawn that all others are among them; nearness by a plain loop."""
    texts = ["rt the lake", "rt the dog runs", "the big dog Runs", "rt lake como", "so what"]
    posts = captioned(*((text, f"caption {i}") for i, text in enumerate(texts)))
    words = [set(text.lower().split()) for text in texts]

    def rarity(word: str) -> float:
        return math.log(len(texts) / sum(word in other for other in words))

    def nearness(a: int, b: int) -> float:
        return sum(map(rarity, words[a] & words[b])) / sum(map(rarity, words[a] | words[b]))

    pairs = MismatchedPairs(posts, MismatchSource(hardness=200), seed=0)
    chosen = {int(post.id[0]): int((post.caption or "")[-1]) for post in pairs.of_epoch(1)[5:]}
    for i in range(4):  # the last one shares nothing with any
        assert chosen[i] == max((j for j in range(5) if j != i), key=lambda j: nearness(i, j))


@pytest.mark.parametrize(
    ("source", "relations"),
    [("labels", [0.0, 1.0, 0.0, 1.0]), ("soft", [0.0, 1.0, 0.3, 0.7]), (None, [0, 1, 0.3, 0.7])],
)
def test_probabilities_are_rounded_as_labels_and_kept_as_what_they_are(
    source: str | None, relations: list[float]
) -> None:
    rows = [("a", "sea"), ("b", "dog"), ("c", "cat"), ("d", "sun")]
    given = zip(captioned(*rows), [0.0, 1.0, 0.3, 0.7], strict=True)
    found = supply(source, [post.with_(relation=relation) for post, relation in given])
    assert [post.relation for post in found.known] == relations


def test_without_a_source_labels_go_before_exchanged_images() -> None:
    posts = captioned(("a", "sea"), ("b", "dog"), ("c", ""))
    assert supply(None, posts).pairs is not None
    labelled = [posts[0].with_(relation=1.0), *posts[1:]]
    found = supply(None, labelled)
    assert found.pairs is None
    assert [post.id for post in found.known] == ["0"]
    blind = supply(None, [post.with_(caption=None) for post in labelled])
    assert not blind
    assert blind.description == "relation labels but no caption"
    assert "neither relation labels nor any caption" in supply(None, posts[2:]).description


def test_a_post_that_is_labelled_stands_with_its_own_image_once() -> None:
    posts = captioned(("a", "sea"), ("b", "dog"), ("c", "cat"))
    posts[1] = posts[1].with_(relation=0.0)
    found = supply({"labels": {"weight": 3}, "mismatch": None}, posts)
    assert found.pairs is not None
    epoch = [*found.known, *found.pairs.of_epoch(1)]
    own = {post.id: (post.relation, post.relation_weight) for post in epoch if len(post.id) == 1}
    assert own == {"0": (1.0, 1.0), "1": (0.0, 3.0), "2": (1.0, 1.0)}
    assert len(epoch) == 3 + 3


def test_a_file_of_probabilities_speaks_for_its_ids(tmp_path: Path) -> None:
    (tmp_path / "soft.tsv").write_text("2\t0.75\n0\t0.125\nelsewhere\t1\n")
    posts = captioned(("a", "sea"), ("b", "dog"), ("c", "cat"), relation=1.0)
    found = supply({"soft": {"path": tmp_path / "soft.tsv"}}, posts)
    assert {post.id: post.relation for post in found.known} == {"0": 0.125, "2": 0.75}


def test_a_loss_is_multiplied_by_the_weight_of_its_source() -> None:
    model = tiny("rpbert")
    posts = [
        post.with_(relation=0.25, relation_weight=0.5 + i) for i, post in enumerate(made_posts())
    ]
    batch = model.collator().with_gold(posts)
    losses = RelationTask(posts, RATES).losses(model.system, batch)
    chances = torch.log_softmax(model.system.relation_logits(batch), 1).tolist()
    expected = [(0.5 + i) * -(0.75 * no + 0.25 * yes) for i, (no, yes) in enumerate(chances)]
    torch.testing.assert_close(losses, torch.tensor(expected))


def test_a_schedule_counts_the_pairs_that_are_made() -> None:
    found = supply({"labels": None, "mismatch": {"negatives": 2}}, made_posts(8))
    task = RelationTask(found.known, RATES, found.pairs)
    schedule = Schedule([task], 5, seed=0)
    steps = list(schedule.epoch(1))
    assert len(steps) == schedule.steps(task) == 5  # 8 labelled and 16 exchanged
    assert sum(len(posts) for _, posts in steps) == len(task) == 24


def test_the_settings_say_none_by_its_name() -> None:
    given = DataSettings.model_validate({"path": "x", "relation_source": "none"})
    assert given.model_dump(mode="json")["relation_source"] == "none"
    assert DataSettings.model_validate(given.model_dump(mode="json")) == given
