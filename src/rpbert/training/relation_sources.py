"""Relation supervision: which pairs of text and image Task#1 learns from, each at what weight."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from rpbert.config.run import DataSettings, MismatchSource, RelationSources
from rpbert.data.collate import EvidenceReader
from rpbert.data.images import fingerprint
from rpbert.data.readers import DataSource, open_data, read_relations
from rpbert.data.reading import LeftOut
from rpbert.data.words import SPLITTERS
from rpbert.errors import InputError, counted, refuse
from rpbert.types import TEXTS, Post


class MismatchedPairs:
    """Posts with their own image, and with that of another post: image-text matching.
    The negatives are drawn by seed and epoch alone. None shows what any post shows with the same
    words, however many posts share an image and however many images a post has. `known` are ids of
    posts whose own image has a relation of another source."""

    def __init__(
        self,
        posts: Sequence[Post],
        settings: MismatchSource,
        seed: int,
        known: frozenset[str] = frozenset(),
    ) -> None:
        self.settings, self.seed = settings, seed
        # Posts that show the same are neighbours, so that one draw skips all of them.
        shown = sorted(((_look(post), post) for post in posts), key=lambda pair: pair[0])
        self.posts = [post.with_(tags=None) for _, post in shown]
        places: dict[str, range] = {}
        looks_of: dict[tuple[str, ...], set[str]] = {}
        for index, (look, post) in enumerate(shown):
            places[look] = range(places[look].start if look in places else index, index + 1)
            looks_of.setdefault(post.words, set()).add(look)
        # Of each post, the ranges of posts that are no negative, ascending.
        self._own = [[places[k] for k in sorted(looks_of[post.words])] for post in self.posts]
        self._others = [len(posts) - sum(map(len, own)) for own in self._own]
        if not any(self._others):
            found = f"{len(places)} different images or captions to exchange"
            expected = "two at least, of different posts"
            raise InputError("data.relation_source.mismatch", found, expected)
        matched = {"relation": 1.0, "relation_weight": settings.weight}
        self.matched = [post.with_(**matched) for post in self.posts if post.id not in known]

    def __len__(self) -> int:
        return len(self.matched) + self.settings.negatives * sum(map(bool, self._others))

    def of_epoch(self, number: int) -> list[Post]:
        """The pairs of an epoch, as many in each; those with the posts' own images come first."""
        draw = random.Random(f"{self.seed}/mismatch/{number}")
        made = {"relation": 0.0, "relation_weight": self.settings.weight / self.settings.negatives}
        negatives = []
        for index, post in enumerate(self.posts):
            for _ in range(self.settings.negatives if self._others[index] else 0):
                other = self.posts[self._another(index, draw)]
                name = f"{post.id} with the image of {other.id}"
                negatives.append(post.with_(id=name, images=other.images, **made))
        return [*self.matched, *negatives]

    def _another(self, index: int, draw: random.Random) -> int:
        """A post that shows something else."""
        other = draw.randrange(self._others[index])
        for own in self._own[index]:
            if other >= own.start:
                other += len(own)
        return other


def _look(post: Post) -> str:
    """Tells what a post shows from what others show."""
    image = post.images[0]
    regions = getattr(image.regions, "id", id(image.regions)) if image.regions else ""
    texts = "\n".join(str(getattr(image, name)) for name in TEXTS)
    return f"{fingerprint(image.image)}\n{regions}\n{texts}"


@dataclass(frozen=True)
class RelationSupply:
    """What Task#1 learns from."""

    known: Sequence[Post] = ()  # whose relation somebody gave, without tags
    pairs: MismatchedPairs | None = None  # whose relation is made
    description: str = ""  # what the gate learns from, in words, or why from nothing

    def __bool__(self) -> bool:
        return bool(self.known or self.pairs)


def relation_posts(
    data: DataSettings, train: Sequence[Post], marks: str, evidence: EvidenceReader, seed: int
) -> RelationSupply:
    """What Task#1 learns from, of `data.relations` or else of the training split, whose ``#`` and
    ``@`` are split off as `marks` says. A post with two sources is learnt from both.
    Raises InputError: a source that is asked for cannot be read, or has nothing to learn from."""
    # r is of one source
    train = [alone for post in train for alone in evidence.split_by_source(post)]
    given, where, notes = related(train), data.relations_read, []
    if where != data.relations:
        notes.append("data.relations is not read")
    if where is not None:
        left_out = LeftOut()
        source = open_data(where, SPLITTERS[marks], left_out if data.lenient else refuse)
        read = islice(source.read(training_split(source)), data.posts)
        given = related(alone for post in read for alone in evidence.split_by_source(post))
        notes += described(left_out)
        if not any(map(evidence.has, given)):
            found = f"no post with both {evidence.wanted} and relation"
            raise InputError(where, found, "relation labels")
    shown = [post for post in train if evidence.has(post)]
    sources, learnt = data.relation_source, list[str]()
    known, pairs = list[Post](), None
    if sources is None:
        kind, why_none = _kind(given, shown, evidence)
        if why_none:
            return RelationSupply(description="; ".join([why_none, *notes]))
        sources = RelationSources.model_validate(kind)
    for kind, posts in _given(sources, given, train).items():
        weight = sources.kinds[kind].weight
        usable = [post.with_(relation_weight=weight) for post in posts if evidence.has(post)]
        if not usable:
            found = f"no training post with both {evidence.wanted} and relation"
            hint = "give data.relation_source=mismatch to make pairs, or none"
            raise InputError(f"data.relation_source.{kind}", found, "relation labels", hint)
        known += usable
        name = "labels" if kind == "labels" else "probabilities"
        learnt.append(_counted(name, len(usable), weight))
    if sources.mismatch is not None:
        ids = frozenset(post.id for post in known)
        pairs = MismatchedPairs(shown, sources.mismatch, seed, ids)
        own = len(pairs.matched)
        made = f"mismatch, {own:,} own and {len(pairs) - own:,} exchanged images"
        learnt.append(_counted(made, len(pairs), sources.mismatch.weight))
    said = f"the gate learns from {'; '.join(learnt)}" if learnt else "data.relation_source is none"
    return RelationSupply(known, pairs, "; ".join([said, *notes]))


def _kind(
    given: Sequence[Post], shown: Sequence[Post], evidence: EvidenceReader
) -> tuple[str, str]:
    """The kind of source that the posts have where none is asked for, or why they have none."""
    if any(map(evidence.has, given)):
        return "labels" if all(post.relation in (0, 1) for post in given) else "soft", ""
    if given:
        return "none", f"relation labels but no {evidence.wanted}"
    if len(set(map(_look, shown))) > 1 < len({post.words for post in shown}):
        return "mismatch", ""
    return "none", f"neither relation labels nor any {evidence.wanted} to exchange"


def _given(
    sources: RelationSources, given: Sequence[Post], train: Sequence[Post]
) -> dict[str, list[Post]]:
    """The posts with the relation that labels and probabilities give them."""
    found = {}
    if sources.labels is not None:
        found["labels"] = [p.with_(relation=float((p.relation or 0) > 0.5)) for p in given]
    if sources.soft is not None:
        found["soft"] = list(given)
        if (path := sources.soft.path) is not None:
            if not path.is_file():
                raise InputError(path, "no such file", "lines of id, tab, probability")
            soft = read_relations(path)
            found["soft"] = related(p.with_(relation=soft.get(p.id)) for p in train)
    return found


def related(posts: Iterable[Post]) -> list[Post]:
    """The posts with a relation, without their tags, which may be of other types."""
    return [post.with_(tags=None) for post in posts if post.relation is not None]


def training_split(source: DataSource) -> str:
    """The split that is trained on."""
    for name in ("train", "all"):
        if name in source.splits:
            return name
    raise InputError(source.path, f"splits {', '.join(source.splits)}", "a training split")


def described(left_out: LeftOut) -> list[str]:
    """A note on the rows that were left out, if any were."""
    return [f"data.lenient: {left_out}"] if left_out.count else []


def _counted(source: str, posts: int, weight: float) -> str:
    times = "" if weight == 1 else f", each counted {weight:g} times"
    return f"{source} ({counted(posts, 'post')}{times})"
