"""What a data source holds and what is odd about it: counts by split, and every quirk."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from rpbert.data import conll
from rpbert.data.conll import NO_BLANK_END
from rpbert.data.images import load_image
from rpbert.data.labels import Span, lenient_spans, lone_inside, strict_spans
from rpbert.data.readers import DataSource, open_data
from rpbert.data.reading import Quirk, ReadLog
from rpbert.data.trc import TWEETS, read_labels
from rpbert.data.words import marks_of, style_of
from rpbert.errors import InputError, printable, refuse
from rpbert.types import Post, PostImage

Report: TypeAlias = dict[str, Any]
_PUBLISHED = yaml.safe_load(Path(__file__).with_name("versions.yaml").read_text("utf-8"))
VERSIONS = {f"{name}, {split}": of[split] for name, of in _PUBLISHED.items() for split in of}
_SIDE = 32  # pixels; an image is decoded in full whatever size it is given


def check(path: str | Path, *, lenient: bool = False, tag_column: int = -1) -> Report:
    """The JSON document of ``rpbert data check``; `lenient` lists faulty rows as quirks.
    Raises InputError: nothing readable is at `path`, or a line is malformed rather than odd."""
    quirks: list[Quirk] = []

    def listed(fault: InputError) -> None:
        detail = f"found {fault.found}; expected {fault.expected}"
        quirks.append(_quirk(str(fault.where), "faulty row, left out or mended", detail))

    source = open_data(path, faults=listed if lenient else refuse, tag_column=tag_column)
    checker = _Checker(source, quirks)
    splits = {split: checker.split(split) for split in source.splits}
    return {
        "path": str(path),
        "splits": splits,
        # Files that serve two splits are read twice; what they hold is listed once.
        "quirks": [asdict(quirk) for quirk in dict.fromkeys(quirks)],
        "notes": [*_notes(source, splits), *checker.notes],
    }


def _notes(source: DataSource, splits: Report) -> list[str]:
    """Which published labels these are; whether no post has an image, which is seldom meant."""
    labels = [
        f"{split}: labels of {of['version']}" for split, of in splits.items() if of["version"]
    ]
    images = sum((Counter(split["images"]) for split in splits.values()), Counter[str]())
    if set(images) != {"none"}:
        return labels
    rows = all(file.suffix not in (*conll.SUFFIXES, ".csv") for file in source.files.values())
    found = "no row names an image" if rows else "there is no folder images/"
    return [*labels, f"{found}: a system that reads images would see text alone"]


def _quirk(origin: str, kind: str, detail: str) -> Quirk:
    file, _, line = origin.rpartition(":")
    return Quirk(Path(file).name, int(line), kind, detail)


class _Checker:
    """Reads splits one after the other; ids are compared between them, images opened once."""

    def __init__(self, source: DataSource, quirks: list[Quirk]) -> None:
        self.source, self.quirks = source, quirks
        self.notes: list[str] = []
        self.homes: dict[str, list[str]] = {}  # the splits in which each id was seen
        self.opened: dict[Path, tuple[str, str]] = {}

    def split(self, split: str) -> Report:
        """Report on one split."""
        file, counts, before = self.source.files[split], Counter[str](), len(self.quirks)
        posts: list[Post] | Iterator[Post] = []
        if file.suffix == ".csv" and not (file.parent / TWEETS).is_file():
            for label in read_labels(file, ReadLog(self.quirks)):
                counts["relations"] += label.split == split
                counts["relations_positive"] += label.split == split and label.relation > 0.5
            detail = f"{TWEETS} is not there, so no label has a post"
            self.quirks.append(Quirk(file.name, 1, "no tweets", detail))
        else:
            posts = self.source.read(split, self.quirks, self.notes)
        strict: list[Span] = []
        lenient: list[Span] = []
        digest = hashlib.sha256()
        for post in posts:
            digest.update((" ".join(post.tags or ()) + "\n").encode(errors="surrogatepass"))
            self._count(post, split, counts)
            strict += strict_spans(post.tags or ())
            lenient += lenient_spans(post.tags or ())
        known = {**counts, "sha256": digest.hexdigest()}.items()
        ends = [quirk.kind != NO_BLANK_END for quirk in self.quirks[before:]]
        marks = counts["joined"], counts["apart"]
        return {
            **{key: counts[key] for key in ("posts", "words", "tagged")},
            "entities_strict": _by_type(strict),
            "entities_conlleval": _by_type(lenient),
            "lone_inside": counts["lone_inside"],
            "images": {key: counts[key] for key in ("present", "missing", "unreadable", "none")},
            **{key: counts[key] for key in ("captions", "regions", "relations")},
            **{key: counts[key] for key in ("relations_positive", "duplicate_ids")},
            "blank_line_at_end": all(ends) if file.suffix in conll.SUFFIXES else None,
            "marks": style_of(*marks) if any(marks) else None,
            "version": next((name for name in VERSIONS if VERSIONS[name].items() <= known), None),
        }

    def _count(self, post: Post, split: str, counts: Counter[str]) -> None:
        joined, apart = marks_of(post)
        counts.update(posts=1, words=len(post.words), joined=joined, apart=apart)
        counts.update(tagged=post.tags is not None, lone_inside=len(lone_inside(post.tags or ())))
        for image in post.images:
            counts["captions"] += image.caption is not None
            counts["regions"] += image.regions is not None
            counts["relations"] += image.relation is not None
            counts["relations_positive"] += (image.relation or 0.0) > 0.5
            status, reason = self._status(image)
            counts[status] += 1
            if reason:
                self.quirks.append(_quirk(post.origin, f"image {status}", reason))
        homes = self.homes.setdefault(post.id, [])
        if split in homes:
            counts["duplicate_ids"] += 1
            self.quirks.append(_quirk(post.origin, "id given twice", f"id {post.id!a}"))
        elif homes:
            detail = f"id {post.id!a} is also in {homes[0]}"
            self.quirks.append(_quirk(post.origin, "id in two splits", detail))
        homes.append(split)

    def _status(self, image: PostImage) -> tuple[str, str]:
        """Whether an image can be used, and why not."""
        source = image.image
        if isinstance(source, Path) and source in self.opened:
            return self.opened[source]
        loaded = load_image(source, _SIDE)
        status = "present" if loaded.status == "used" else str(loaded.status), loaded.reason
        if isinstance(source, Path):
            self.opened[source] = status
        return status


def _by_type(spans: list[Span]) -> Report:
    counts = Counter(label for label, _, _ in spans)
    return {"total": len(spans), "by_type": dict(sorted(counts.items()))}


def render(report: Report) -> str:
    """The report as plain text: a column a split, then each kind of quirk with its lines."""
    splits = report["splits"].values()
    rows = [["", *report["splits"]]]
    for key in next(iter(splits)):
        if key == "version":  # among the notes
            continue
        parts = [_flat(key, split[key]) for split in splits]
        for title in dict.fromkeys(title for part in parts for title in part):
            rows.append([title, *(_cell(part.get(title, 0)) for part in parts)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = []
    for first, *others in rows:
        cells = map(str.rjust, others, widths[1:])
        table.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    notes = [*report["notes"], ""] if report["notes"] else []
    return "\n".join([report["path"], "", *table, "", *notes, *_render_quirks(report["quirks"])])


def _flat(title: str, value: object) -> Report:
    """The figures below a key, each with the names that lead to it."""
    if not isinstance(value, dict):
        return {title.replace("_", " "): value}
    flat = [_flat(f"{title} {name}", of) for name, of in value.items()]
    return {name: figure for part in flat for name, figure in part.items()}


def _render_quirks(quirks: Iterable[Report]) -> list[str]:
    found: dict[str, dict[str, list[Report]]] = {}
    for quirk in quirks:
        found.setdefault(quirk["kind"], {}).setdefault(quirk["file"], []).append(quirk)
    text = []
    for kind, files in sorted(found.items()):
        text.append(f"{kind}: {sum(map(len, files.values())):,}")
        for file, of_file in files.items():
            text.append(f"  {file}: {_ranges({quirk['line'] for quirk in of_file})}")
            details = [*dict.fromkeys(quirk["detail"] for quirk in of_file if quirk["detail"])]
            text += [f"    {printable(detail)}" for detail in details[:3]]
            text += ["    …"] if len(details) > 3 else []
    return text or ["no quirks"]


def _ranges(numbers: Iterable[int]) -> str:
    """Numbers in ascending order, runs contracted: ``3, 7-9``."""
    runs = []
    for _, run in groupby(enumerate(sorted(numbers)), key=lambda pair: pair[1] - pair[0]):
        found = [number for _, number in run]
        runs.append(f"{found[0]}-{found[-1]}" if len(found) > 1 else str(found[0]))
    return ", ".join(runs)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value or "-")
