"""What a data source holds and what is odd about it: counts by split, and every quirk."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rpbert.data.conll import NO_BLANK_END
from rpbert.data.labels import lenient_spans, lone_inside, strict_spans
from rpbert.data.readers import DataSource, PostFiles, TrcFolder, open_data
from rpbert.data.reading import Quirk
from rpbert.data.trc import read_labels
from rpbert.data.words import marks_balance, style_of
from rpbert.errors import InputError, refuse
from rpbert.types import ImageStatus, Post, PostImage

_SIDE = 32  # pixels; an image is decoded in full whatever size it is given


@dataclass(slots=True)
class SplitReport:
    """What one split holds.

    Attributes:
        split: its name.
        posts: posts.
        words: their words.
        tagged: posts that have tags.
        strict: entities by type, strict IOB2.
        lenient: entities by type, as conlleval and seqeval's default count them.
        lone_inside: ``I-`` tags that continue nothing.
        images: posts by what becomes of their image: used, none, missing or unreadable.
        captions: posts with a caption.
        regions: posts with stored regions.
        relations: posts with a relation label.
        relations_positive: those whose image adds (label above 0.5).
        duplicate_ids: posts whose id an earlier post of the split has.
        blank_line_at_end: whether the text file ends with one; None for other sources.
        marks: style of ``#`` and ``@``, a key of `rpbert.data.words.SPLITTERS`; None where there is
            neither.
    """

    split: str
    posts: int = 0
    words: int = 0
    tagged: int = 0
    strict: Counter[str] = field(default_factory=Counter)
    lenient: Counter[str] = field(default_factory=Counter)
    lone_inside: int = 0
    images: Counter[str] = field(default_factory=Counter)
    captions: int = 0
    regions: int = 0
    relations: int = 0
    relations_positive: int = 0
    duplicate_ids: int = 0
    blank_line_at_end: bool | None = None
    marks: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON types, with totals beside the counts by type."""
        return {
            "posts": self.posts,
            "words": self.words,
            "tagged": self.tagged,
            "entities_strict": _by_type(self.strict),
            "entities_conlleval": _by_type(self.lenient),
            "lone_inside": self.lone_inside,
            "images": {
                "present": self.images["used"],
                "missing": self.images["missing"],
                "unreadable": self.images["unreadable"],
                "none": self.images["none"],
            },
            "captions": self.captions,
            "regions": self.regions,
            "relations": self.relations,
            "relations_positive": self.relations_positive,
            "duplicate_ids": self.duplicate_ids,
            "blank_line_at_end": self.blank_line_at_end,
            "marks": self.marks,
        }


@dataclass(frozen=True, slots=True)
class DataReport:
    """What a data source holds, split by split, and every quirk of it in order of reading."""

    path: str
    splits: tuple[SplitReport, ...]
    quirks: tuple[Quirk, ...]
    notes: tuple[str, ...] = ()
    """What a person should know before training."""

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON types."""
        return {
            "path": self.path,
            "splits": {report.split: report.to_dict() for report in self.splits},
            "quirks": [asdict(quirk) for quirk in self.quirks],
            "notes": list(self.notes),
        }


def check(path: str | Path, *, lenient: bool = False) -> DataReport:
    """Read all of a data source, opening every image once, and report what is there.

    A folder of published relation labels without the user's tweets is reported by its labels.

    Args:
        lenient: leave faulty rows out and list them as quirks.

    Raises:
        InputError: nothing readable is at `path`, or a line is malformed rather than odd.
    """
    quirks: list[Quirk] = []

    def listed(fault: InputError) -> None:
        file, _, line = str(fault.where).rpartition(":")
        detail = f"found {fault.found}; expected {fault.expected}"
        quirks.append(Quirk(Path(file).name, int(line), "faulty row, left out or mended", detail))

    source = open_data(path, faults=listed if lenient else refuse)
    homes: dict[str, str] = {}
    reports = tuple(_check_split(source, split, quirks, homes) for split in source.splits)
    # Files that serve two splits are read twice; what they hold is listed once.
    notes = tuple(_no_images(source, reports))
    return DataReport(str(path), reports, tuple(dict.fromkeys(quirks)), notes)


def _no_images(source: DataSource, reports: Sequence[SplitReport]) -> Iterator[str]:
    """Tells of data in which no post has an image, which is seldom meant."""
    images = sum((report.images for report in reports), Counter[str]())
    if set(images) != {"none"}:
        return
    rows = isinstance(source, PostFiles) and all(f.suffix != ".txt" for f in source.files.values())
    found = "no row names an image" if rows else "there is no folder images/"
    yield f"{found}: a system that reads images would see text alone"


def _check_split(
    source: DataSource, split: str, quirks: list[Quirk], homes: dict[str, str]
) -> SplitReport:
    """Report on one split; `homes` holds the split in which each id was first seen."""
    report, before = SplitReport(split), len(quirks)
    if isinstance(source, TrcFolder) and not source.tweets.is_file():
        _count_labels(source, report, quirks)
        return report
    looks = _Looks()
    balance, marked = 0, False
    seen: set[str] = set()
    origin = ""
    for post in source.read(split, quirks):
        _count(post, report)
        balance += marks_balance(post)
        marked = marked or any(word.startswith(("#", "@")) for word in post.words)
        for shown in post.images:
            status, reason = looks.at(shown)
            report.images[status] += 1
            if reason:
                quirks.append(_quirk(post, f"image {status}", reason))
        if post.id in seen:
            report.duplicate_ids += 1
            quirks.append(_quirk(post, "id given twice", f"id {post.id!a}"))
        elif post.id in homes:
            detail = f"id {post.id!a} is also in {homes[post.id]}"
            quirks.append(_quirk(post, "id in two splits", detail))
        seen.add(post.id)
        homes.setdefault(post.id, split)
        origin = post.origin
    report.marks = style_of(balance) if marked else None
    if origin.rpartition(":")[0].endswith(".txt"):
        report.blank_line_at_end = all(q.kind != NO_BLANK_END for q in quirks[before:])
    return report


def _count(post: Post, report: SplitReport) -> None:
    report.posts += 1
    report.words += len(post.words)
    for shown in post.images:
        report.captions += shown.caption is not None
        report.regions += shown.regions is not None
        report.relations += shown.relation is not None
        report.relations_positive += (shown.relation or 0.0) > 0.5
    if post.tags is not None:
        report.tagged += 1
        report.strict.update(label for label, _, _ in strict_spans(post.tags))
        report.lenient.update(label for label, _, _ in lenient_spans(post.tags))
        report.lone_inside += len(lone_inside(post.tags))


def _count_labels(source: TrcFolder, report: SplitReport, quirks: list[Quirk]) -> None:
    """Report relation labels whose tweets the user has not added yet."""
    for label in read_labels(source.labels, report.split, quirks):
        report.relations += 1
        report.relations_positive += label.relation > 0.5
    detail = f"{source.tweets.name} is not there, so no label has a post"
    quirks.append(Quirk(source.labels.name, 1, "no tweets", detail))


def _by_type(entities: Counter[str]) -> dict[str, Any]:
    return {"total": entities.total(), "by_type": dict(sorted(entities.items()))}


class _Looks:
    """Opens images, each file once however many posts show it."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[ImageStatus, str]] = {}

    def at(self, shown: PostImage) -> tuple[ImageStatus, str]:
        """What becomes of an image of a post, and why where it cannot be used."""
        from rpbert.data.images import load_image

        if isinstance(shown.image, Path) and shown.image in self._known:
            return self._known[shown.image]
        image = load_image(shown.image, _SIDE)
        if isinstance(shown.image, Path):
            self._known[shown.image] = image.status, image.reason
        return image.status, image.reason


def _quirk(post: Post, kind: str, detail: str) -> Quirk:
    file, _, line = post.origin.rpartition(":")
    return Quirk(Path(file).name, int(line), kind, detail)


def render(report: DataReport) -> str:
    """The report as plain text: a column a split, then each kind of quirk with its lines."""
    dicts = [split.to_dict() for split in report.splits]
    rows = [("", *(split.split for split in report.splits))]

    def row(name: str, values: Iterable[object]) -> None:
        rows.append((name, *(_cell(value) for value in values)))

    row("posts", (d["posts"] for d in dicts))
    row("words", (d["words"] for d in dicts))
    for name, title in (("strict", "strict IOB2"), ("conlleval", "conlleval")):
        counts = [d[f"entities_{name}"] for d in dicts]
        row(f"entities, {title}", (count["total"] for count in counts))
        for label in sorted({label for count in counts for label in count["by_type"]}):
            row(f"  {label}", (count["by_type"].get(label, 0) for count in counts))
    row("lone I- tags", (d["lone_inside"] for d in dicts))
    for status in ("present", "missing", "unreadable", "none"):
        row(f"images {status}", (d["images"][status] for d in dicts))
    row("captions", (d["captions"] for d in dicts))
    row("stored regions", (d["regions"] for d in dicts))
    row("relation labels", (d["relations"] for d in dicts))
    row("  image adds", (d["relations_positive"] for d in dicts))
    row("duplicate ids", (d["duplicate_ids"] for d in dicts))
    row("blank line at the end", (d["blank_line_at_end"] for d in dicts))
    row("# and @", (d["marks"] for d in dicts))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()
        for cells in rows
    ]
    notes = [*report.notes, ""] if report.notes else []
    return "\n".join([report.path, "", *table, "", *notes, *_render_quirks(report.quirks)])


def _render_quirks(quirks: Iterable[Quirk]) -> list[str]:
    lines: defaultdict[str, defaultdict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for quirk in quirks:
        lines[quirk.kind][quirk.file].append(quirk.line)
    if not lines:
        return ["no quirks"]
    text = []
    for kind, files in sorted(lines.items()):
        text.append(f"{kind}: {sum(map(len, files.values())):,}")
        text += [f"  {file}: {_ranges(found)}" for file, found in files.items()]
    return text


def _ranges(numbers: Iterable[int]) -> str:
    """Numbers in ascending order, runs drawn together: ``3, 7-9``."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ", ".join("-".join(map(str, run)) for run in runs)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)
