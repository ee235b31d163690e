"""Which posts each task learns from, and which a run is scored on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from rpbert.config.data import DataSettings
from rpbert.data.collate import EvidenceReader
from rpbert.data.readers import DataSource, open_data
from rpbert.data.reading import LeftOut
from rpbert.data.words import SPLITTERS
from rpbert.errors import InputError, counted, refuse
from rpbert.training.relation_sources import RelationSupply, relation_supply
from rpbert.types import Post

HELD_OUT = 10  # of relation labels without a development split, every tenth post is held out


@dataclass(frozen=True)
class RunPosts:
    """The posts of a run.

    Attributes:
        train: the posts its own task learns from, and that tags, characters and words are of.
        dev: the posts it is scored on after every epoch.
        test: the posts it will be scored on, of which only the words are looked at, to find
            their vectors in a vector file.
        notes: what a person should know of the choice.
    """

    train: Sequence[Post]
    dev: Sequence[Post]
    test: Sequence[Post]
    notes: Sequence[str] = ()


def tagged_posts(data: DataSettings) -> RunPosts:
    """The posts of a system that tags words: those of `data.path`.

    Raises:
        InputError: the data cannot be read, or a post to learn or score tags from has none.
    """
    left_out = LeftOut()
    source = open_data(data.path, faults=left_out if data.lenient else refuse)
    posts, dev = (list(islice(source.read(split), data.posts)) for split in ("train", "dev"))
    _need_tags(posts, f"{data.path}, train")
    _need_tags(dev, f"{data.path}, dev")
    test = _test_posts(source)
    return RunPosts(posts, dev, test, _told(left_out))


def related_posts(data: DataSettings) -> RunPosts:
    """The posts of a system that tells the relation and tags nothing.

    They are those of `data.relations` or else of `data.path`. Labels without a development
    split, such as TRC's, hold out a tenth of the training posts for it.

    Raises:
        InputError: the data cannot be read, or no post has a relation.
    """
    where = data.relations or data.path
    notes = ["no tags are learnt in this system: Task#2 is skipped"]
    if data.relations is not None:
        notes[0] += "; data.path is not read"
    left_out = LeftOut()
    source = open_data(where, faults=left_out if data.lenient else refuse)
    split = _training_split(source)
    train = _labelled(islice(source.read(split), data.posts))
    if "dev" in source.splits:
        dev = _labelled(islice(source.read("dev"), data.posts))
    else:
        dev = train[HELD_OUT - 1 :: HELD_OUT]
        train = [post for number, post in enumerate(train, 1) if number % HELD_OUT]
        held = f"{counted(len(dev), 'post')} {'is' if len(dev) == 1 else 'are'} held out for it"
        notes.append(f"{where} has no development split: {held}")
    for posts, name in ((train, split), (dev, "dev")):
        if not posts:
            raise InputError(f"{where}, {name}", "no post with a relation", "relation labels")
    test = _test_posts(source)
    return RunPosts(train, dev, test, [*notes, *_told(left_out)])


def relation_posts(
    data: DataSettings, train: Sequence[Post], marks: str, evidence: EvidenceReader, seed: int
) -> RelationSupply:
    """What Task#1 learns from, of `data.relations` or else of the training split.

    Args:
        marks: how ``#`` and ``@`` are split off in the training split.
        evidence: what a post must have to be learnt from.
        seed: of pairs that are made.

    Raises:
        InputError: a source that is asked for cannot be read, or has nothing to learn from.
    """
    train = [
        alone for post in train for alone in evidence.split_by_source(post)
    ]  # r is of one source
    candidates: Sequence[Post] = train
    where, left_out = data.relations_read, LeftOut()
    notes = ["data.relations is not read"] if where != data.relations else []
    if where is not None:
        faults = left_out if data.lenient else refuse
        source = open_data(where, SPLITTERS[marks], faults)
        read = islice(source.read(_training_split(source)), data.posts)
        candidates = [alone for post in read for alone in evidence.split_by_source(post)]
        if not any(evidence.has(post) for post in _labelled(candidates)):
            found = f"no post with both {evidence.wanted} and relation"
            raise InputError(where, found, "relation labels")
    supply = relation_supply(data.relation_source, candidates, train, evidence, seed)
    return replace(supply, told="; ".join([supply.told, *notes, *_told(left_out)]))


def _labelled(posts: Iterable[Post]) -> list[Post]:
    """The posts with a relation, without their tags.

    Task#1 reads no tags, and those of other data may be of other types.
    """
    return [post.with_(tags=None) for post in posts if post.relation is not None]


def _training_split(source: DataSource) -> str:
    for name in ("train", "all"):
        if name in source.splits:
            return name
    raise InputError(source.path, f"splits {', '.join(source.splits)}", "a training split")


def _told(left_out: LeftOut) -> list[str]:
    return [f"data.lenient: {left_out}"] if left_out.count else []


def _test_posts(source: DataSource) -> list[Post]:
    return list(source.read("test")) if "test" in source.splits else []


def _need_tags(posts: Sequence[Post], where: str) -> None:
    if not posts:
        raise InputError(where, "no post", "tagged posts")
    for post in posts:
        if post.tags is None:
            raise InputError(post.origin or post.id, "no tags", "tags or entities for training")
