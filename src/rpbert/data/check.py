"""What a data source holds and what is odd about it: counts by split, and every quirk."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

from rpbert.data.conll import NO_BLANK_END
from rpbert.data.labels import lenient_spans, lone_inside, strict_spans
from rpbert.data.readers import DataSource, open_data
from rpbert.data.reading import Quirk, ReadLog
from rpbert.data.trc import TWEETS, read_labels
from rpbert.data.words import marks_of, style_of
from rpbert.errors import InputError, refuse
from rpbert.types import Post, PostImage

Report: TypeAlias = dict[str, Any]
_SIDE = 32  # pixels; an image is decoded in full whatever size it is given


def check(path: str | Path, *, lenient: bool = False) -> Report:
    """Read all of a data source, opening every image once, and report what is there.

    A folder of published relation labels without the user's tweets is reported by its labels.

    Args:
        lenient: leave faulty rows out and list them as quirks.

    Returns:
        The JSON document of ``rpbert data check``: ``path``, the counts of each of ``splits``,
        all ``quirks`` in order of reading, and ``notes`` on what to know before training.

    Raises:
        InputError: nothing readable is at `path`, or a line is malformed rather than odd.
    """
    quirks: list[Quirk] = []

    def listed(fault: InputError) -> None:
        detail = f"found {fault.found}; expected {fault.expected}"
        quirks.append(_quirk(str(fault.where), "faulty row, left out or mended", detail))

    source = open_data(path, faults=listed if lenient else refuse)
    checker = _Checker(source, quirks)
    splits = {split: checker.split(split) for split in source.splits}
    return {
        "path": str(path),
        "splits": splits,
        # Files that serve two splits are read twice; what they hold is listed once.
        "quirks": [asdict(quirk) for quirk in dict.fromkeys(quirks)],
        "notes": _notes(source, splits),
    }


def _notes(source: DataSource, splits: Report) -> list[str]:
    """Reports data in which no post has an image, which is seldom meant."""
    images = sum((Counter(split["images"]) for split in splits.values()), Counter[str]())
    if set(images) != {"none"}:
        return []
    rows = all(file.suffix not in (".txt", ".csv") for file in source.files.values())
    found = "no row names an image" if rows else "there is no folder images/"
    return [f"{found}: a system that reads images would see text alone"]


def _quirk(origin: str, kind: str, detail: str) -> Quirk:
    file, _, line = origin.rpartition(":")
    return Quirk(Path(file).name, int(line), kind, detail)


class _Checker:
    """Reads splits one after the other; ids are compared between them, images opened once."""

    def __init__(self, source: DataSource, quirks: list[Quirk]) -> None:
        self.source, self.quirks = source, quirks
        self.homes: dict[str, str] = {}  # the split in which each id was first seen
        self.opened: dict[Path, tuple[str, str]] = {}

    def split(self, split: str) -> Report:
        """Report on one split."""
        counts, strict, conlleval = Counter[str](), Counter[str](), Counter[str]()
        before, marks, seen = len(self.quirks), [0, 0], set[str]()
        file = self.source.files[split]
        labels_only = file.suffix == ".csv" and not (file.parent / TWEETS).is_file()
        if labels_only:
            self._count_labels(file, split, counts)
        for post in self.source.read(split, self.quirks) if not labels_only else ():
            self._count(post, counts)
            strict.update(label for label, _, _ in strict_spans(post.tags or ()))
            conlleval.update(label for label, _, _ in lenient_spans(post.tags or ()))
            marks = [total + count for total, count in zip(marks, marks_of(post), strict=True)]
            if post.id in seen:
                counts["duplicate_ids"] += 1
                self.quirks.append(_quirk(post.origin, "id given twice", f"id {post.id!a}"))
            elif post.id in self.homes:
                detail = f"id {post.id!a} is also in {self.homes[post.id]}"
                self.quirks.append(_quirk(post.origin, "id in two splits", detail))
            seen.add(post.id)
            self.homes.setdefault(post.id, split)
        ends = [quirk.kind != NO_BLANK_END for quirk in self.quirks[before:]]
        return {
            **{key: counts[key] for key in ("posts", "words", "tagged")},
            "entities_strict": _by_type(strict),
            "entities_conlleval": _by_type(conlleval),
            "lone_inside": counts["lone_inside"],
            "images": {key: counts[key] for key in ("present", "missing", "unreadable", "none")},
            **{key: counts[key] for key in ("captions", "regions", "relations")},
            **{key: counts[key] for key in ("relations_positive", "duplicate_ids")},
            "blank_line_at_end": all(ends) if file.suffix == ".txt" else None,
            "marks": style_of(*marks) if any(marks) else None,
        }

    def _count(self, post: Post, counts: Counter[str]) -> None:
        tags = post.tags or ()
        counts.update(posts=1, words=len(post.words), tagged=post.tags is not None)
        counts["lone_inside"] += len(lone_inside(tags))
        for image in post.images:
            counts["captions"] += image.caption is not None
            counts["regions"] += image.regions is not None
            counts["relations"] += image.relation is not None
            counts["relations_positive"] += (image.relation or 0.0) > 0.5
            status, reason = self._status(image)
            counts[status] += 1
            if reason:
                self.quirks.append(_quirk(post.origin, f"image {status}", reason))

    def _status(self, image: PostImage) -> tuple[str, str]:
        """Whether an image can be used, and why not."""
        from rpbert.data.images import load_image

        source = image.image
        if isinstance(source, Path) and source in self.opened:
            return self.opened[source]
        loaded = load_image(source, _SIDE)
        status = "present" if loaded.status == "used" else str(loaded.status), loaded.reason
        if isinstance(source, Path):
            self.opened[source] = status
        return status

    def _count_labels(self, file: Path, split: str, counts: Counter[str]) -> None:
        """Count relation labels whose tweets the user has not added yet."""
        for label in read_labels(file, ReadLog(self.quirks), split):
            counts.update(relations=1, relations_positive=int(label.relation > 0.5))
        detail = f"{TWEETS} is not there, so no label has a post"
        self.quirks.append(Quirk(file.name, 1, "no tweets", detail))


def _by_type(entities: Counter[str]) -> Report:
    return {"total": entities.total(), "by_type": dict(sorted(entities.items()))}


_TITLES = {
    "posts": "posts",
    "words": "words",
    "entities_strict": "entities, strict IOB2",
    "entities_conlleval": "entities, conlleval",
    "lone_inside": "lone I- tags",
    "captions": "captions",
    "regions": "stored regions",
    "relations": "relation labels",
    "relations_positive": "  image adds",
    "duplicate_ids": "duplicate ids",
    "blank_line_at_end": "blank line at the end",
    "marks": "# and @",
}


def render(report: Report) -> str:
    """The report as plain text: a column a split, then each kind of quirk with its lines."""
    splits = list(report["splits"].values())
    rows = [["", *report["splits"]]]

    def row(title: str, values: Iterable[object]) -> None:
        rows.append([title, *map(_cell, values)])

    for key in splits[0]:
        values = [split[key] for split in splits]
        if key == "images":
            for status in values[0]:
                row(f"images {status}", (value[status] for value in values))
        elif key.startswith("entities"):
            row(_TITLES[key], (value["total"] for value in values))
            for label in sorted({label for value in values for label in value["by_type"]}):
                row(f"  {label}", (value["by_type"].get(label, 0) for value in values))
        elif key in _TITLES:
            row(_TITLES[key], values)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()
        for cells in rows
    ]
    notes = [*report["notes"], ""] if report["notes"] else []
    return "\n".join([report["path"], "", *table, "", *notes, *_render_quirks(report["quirks"])])


def _render_quirks(quirks: Iterable[Report]) -> list[str]:
    lines: defaultdict[str, defaultdict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for quirk in quirks:
        lines[quirk["kind"]][quirk["file"]].append(quirk["line"])
    text = []
    for kind, files in sorted(lines.items()):
        text.append(f"{kind}: {sum(map(len, files.values())):,}")
        text += [f"  {file}: {_ranges(found)}" for file, found in files.items()]
    return text or ["no quirks"]


def _ranges(numbers: Iterable[int]) -> str:
    """Numbers in ascending order, runs contracted: ``3, 7-9``."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ", ".join("-".join(map(str, run)) for run in runs)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value or "-")
