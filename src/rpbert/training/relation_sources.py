"""Relation supervision: which pairs of text and image Task#1 learns from, each at what weight."""

from __future__ import annotations

import math
import random
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from rpbert.config.data import MismatchSource, RelationSources
from rpbert.data.collate import EvidenceReader
from rpbert.data.images import fingerprint
from rpbert.data.readers import read_relations
from rpbert.errors import InputError, counted
from rpbert.types import Post


class MismatchedPairs:
    """Posts with their own image, and with that of another post, as image-text matching has them.

    The negatives are drawn by seed and epoch alone. None shows what stands beside the same words
    anywhere, however many posts share an image and however many images a post has.

    Args:
        posts: those that give texts and images, each with evidence.
        settings: how many negatives there are, how hard, and what they count.
        seed: of the draw.
        known: ids of posts whose own image another source speaks for; they give negatives alone.

    Raises:
        InputError: no post has an image that does not stand beside the words of all others.
    """

    def __init__(
        self,
        posts: Sequence[Post],
        settings: MismatchSource,
        seed: int,
        known: frozenset[str] = frozenset(),
    ) -> None:
        self.settings, self.seed = settings, seed
        # Posts that show the same stand together, so that one draw passes over all of them.
        self.posts = sorted((post.with_(tags=None) for post in posts), key=_shown)
        self._own_looks = _own_looks(self.posts)
        self._paired = [i for i in range(len(self.posts)) if self._others(i)]
        if not self._paired:
            found = f"{len(set(map(_shown, self.posts)))} different images or captions to exchange"
            expected = "two at least, of different posts"
            raise InputError("data.relation_source.mismatch", found, expected)
        matched = {"relation": settings.matched, "relation_weight": settings.weight}
        self._own = [post.with_(**matched) for post in self.posts if post.id not in known]

    def __len__(self) -> int:
        return len(self._own) + self.settings.negatives * len(self._paired)

    @property
    def own(self) -> int:
        """How many posts stand with their own image."""
        return len(self._own)

    def of_epoch(self, number: int) -> list[Post]:
        """The pairs of an epoch, as many in each; those with the posts' own images come first."""
        draw = random.Random(f"{self.seed}/mismatch/{number}")
        share = self.settings.weight / self.settings.negatives
        negatives = []
        for index in self._paired:
            post = self.posts[index]
            for _ in range(self.settings.negatives):
                other = self.posts[self._another(index, draw)]
                name = f"{post.id} with the image of {other.id}"
                negatives.append(
                    post.with_(id=name, images=other.images, relation=0.0, relation_weight=share)
                )
        return [*self._own, *negatives]

    def _others(self, index: int) -> int:
        """How many posts show what stands nowhere beside the words of one."""
        return len(self.posts) - sum(map(len, self._own_looks[index]))

    def _another(self, index: int, draw: random.Random) -> int:
        """A post that shows something else: of some drawn, that of the nearest words."""
        drawn = []
        for _ in range(self.settings.hardness):
            other = draw.randrange(self._others(index))
            for own in self._own_looks[index]:  # ascending
                if other >= own.start:
                    other += len(own)
            drawn.append(other)
        return drawn[0] if len(drawn) == 1 else max(drawn, key=lambda j: self._nearness(index, j))

    def _nearness(self, one: int, other: int) -> float:
        """Shared words over all words of two posts, each by how rare it is; in [0, 1]."""
        words, rarity = self._words, self._rarity
        every = math.fsum(rarity[word] for word in words[one] | words[other])
        return math.fsum(rarity[word] for word in words[one] & words[other]) / max(every, 1e-9)

    @cached_property
    def _words(self) -> list[frozenset[str]]:
        return [frozenset(word.lower() for word in post.words) for post in self.posts]

    @cached_property
    def _rarity(self) -> dict[str, float]:
        """log(posts / posts with the word): inverse document frequency (Spärck Jones 1972)."""
        count = Counter(word for words in self._words for word in words)
        return {word: math.log(len(self.posts) / posts) for word, posts in count.items()}


@dataclass(frozen=True)
class RelationSupply:
    """What Task#1 learns from.

    Attributes:
        known: posts whose relation somebody gave, without tags.
        pairs: posts whose relation is made.
        told: what the gate learns from, in words, or why from nothing.
    """

    known: Sequence[Post] = ()
    pairs: MismatchedPairs | None = None
    told: str = ""

    def __bool__(self) -> bool:
        return bool(self.known or self.pairs)


def relation_supply(
    sources: RelationSources | None,
    candidates: Sequence[Post],
    train: Sequence[Post],
    evidence: EvidenceReader,
    seed: int,
) -> RelationSupply:
    """What some sources say of some posts; a post that two sources speak of is learnt from both.

    Args:
        sources: None for what the posts have: labels, probabilities, or else mismatch.
        candidates: posts that may come with a relation.
        train: posts that may come with an image.
        evidence: what a post must have to be learnt from.

    Raises:
        InputError: a source that is asked for has nothing to learn from.
    """
    if sources is None:
        return _as_given(candidates, train, evidence, seed)
    known: list[Post] = []
    told = []
    if sources.labels is not None:
        rounded = [p.with_(relation=float((p.relation or 0) > 0.5)) for p in _related(candidates)]
        known += _shown_posts("labels", rounded, evidence, sources.labels.weight)
        told.append(_counted("labels", len(known), sources.labels.weight))
    if sources.soft is not None:
        before, path = len(known), sources.soft.path
        soft = _related(candidates)
        if path is not None:
            if not path.is_file():
                raise InputError(path, "no such file", "lines of id, tab, probability")
            given = read_relations(path)
            soft = [post.with_(relation=given[post.id]) for post in train if post.id in given]
        known += _shown_posts("soft", soft, evidence, sources.soft.weight)
        told.append(_counted("probabilities", len(known) - before, sources.soft.weight))
    pairs = None
    if sources.mismatch is not None:
        shown = [post for post in train if evidence.has(post)]
        labelled = frozenset(post.id for post in known)
        pairs = MismatchedPairs(shown, sources.mismatch, seed, labelled)
        made = f"{pairs.own:,} own and {len(pairs) - pairs.own:,} exchanged images"
        told.append(_counted(f"mismatch, {made}", len(pairs), sources.mismatch.weight))
    why = "the gate learns from " + "; ".join(told) if told else "data.relation_source is none"
    return RelationSupply(known, pairs, why)


def _as_given(
    candidates: Sequence[Post], train: Sequence[Post], evidence: EvidenceReader, seed: int
) -> RelationSupply:
    """Labels, as probabilities where they are, or else mismatch, where there is evidence."""
    related = _related(candidates)
    shown = [post for post in train if evidence.has(post)]
    if any(evidence.has(post) for post in related):
        kind = "labels" if all(post.relation in (0, 1) for post in related) else "soft"
        chosen = RelationSources.model_validate(kind)
    elif related:
        return RelationSupply(told=f"relation labels but no {evidence.wanted}")
    elif len({_shown(post) for post in shown}) > 1 < len({post.words for post in shown}):
        chosen = RelationSources.model_validate("mismatch")
    else:
        return RelationSupply(told=f"neither relation labels nor any {evidence.wanted} to exchange")
    return relation_supply(chosen, candidates, train, evidence, seed)


def _related(posts: Iterable[Post]) -> list[Post]:
    """The posts with a relation, without their tags.

    Task#1 reads no tags, and those of other data may be of other types.
    """
    return [post.with_(tags=None) for post in posts if post.relation is not None]


def _shown_posts(
    kind: str, posts: Sequence[Post], evidence: EvidenceReader, weight: float
) -> list[Post]:
    """Those with evidence, at the weight of their source."""
    shown = [post.with_(tags=None, relation_weight=weight) for post in posts if evidence.has(post)]
    if not shown:
        found = f"no training post with both {evidence.wanted} and relation"
        hint = "give data.relation_source=mismatch to make pairs, or none"
        raise InputError(f"data.relation_source.{kind}", found, "relation labels", hint)
    return shown


def _counted(source: str, posts: int, weight: float) -> str:
    worth = "" if weight == 1 else f", each counted {weight:g} times"
    return f"{source} ({counted(posts, 'post')}{worth})"


def _own_looks(posts: Sequence[Post]) -> list[list[range]]:
    """Of each post, those that show something that stands beside its words, itself included.

    Args:
        posts: those that show the same stand together.

    Returns:
        A range for each thing shown, ascending.
    """
    shown = [_shown(post) for post in posts]
    beside: dict[tuple[str, ...], set[str]] = {}
    for post, look in zip(posts, shown, strict=True):
        beside.setdefault(post.words, set()).add(look)
    ranges = {
        look: range(bisect_left(shown, look), bisect_right(shown, look)) for look in set(shown)
    }
    own = {words: [ranges[look] for look in sorted(looks)] for words, looks in beside.items()}
    return [own[post.words] for post in posts]


def _shown(post: Post) -> str:
    """Tells what a post shows from what others show."""
    image = post.images[0]
    regions = getattr(image.regions, "id", id(image.regions)) if image.regions else ""
    return f"{fingerprint(image.image)}\n{image.caption}\n{regions}\n{image.image_text}"
