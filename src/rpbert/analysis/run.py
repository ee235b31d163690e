"""`analyze`: every post of a split through one model or two, and the files it writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rpbert.analysis.attention import explain_batch
from rpbert.analysis.figure import draw, inline, svg
from rpbert.analysis.posts import row_of
from rpbert.analysis.report import page, sample
from rpbert.analysis.summary import MEASURES, Summary
from rpbert.data.collate import batches
from rpbert.data.readers import open_data
from rpbert.data.words import SPLITTERS
from rpbert.errors import InputError
from rpbert.inference import Tagger
from rpbert.models.rpbert import RpBert
from rpbert.modules.encoder import BertEncoder, TextImageEncoder
from rpbert.storage.writing import check_writable, written_whole

BATCH = 16


@dataclass(frozen=True)
class Analysis:
    """What `analyze` came to: the figures, and the files that hold them."""

    summary: Summary
    report: Path
    files: tuple[Path, ...]


def analyze(
    model: str,
    data: Path,
    output: Path,
    against: str | None = None,
    split: str | None = None,
    posts: int = 200,
    advance: Callable[[int], None] = lambda count: None,
) -> Analysis:
    """Write what a model looks at, beside another one if there is one.
    `output` is a folder, where files of an earlier analysis are replaced; `against` the model to
    compare with; `split` by default test, or all of a single file; `posts` of the report at most;
    `advance` takes the number of posts of a batch. Raises InputError: model, data or split cannot
    be used, or `model` has no attention to images."""
    if not data.exists():  # before the models are loaded, which takes longer
        raise InputError(data, "no such file or folder", "a data set")
    if posts < 1:
        raise InputError("posts", str(posts), "at least 1")
    check_writable(output, "DIR")
    paths = [model] if against is None else [model, against]
    taggers = _loaded(paths)
    source = open_data(data, SPLITTERS[taggers[0].model.vocabulary.marks])
    if split is None:
        split = source.splits[0] if data.is_file() else "test"
    output.mkdir(parents=True, exist_ok=True)
    summary, rows = Summary(short_names(paths)), output / "posts.jsonl"
    with written_whole(rows) as file:
        for batch in batches(source.read(split), BATCH):
            explained = [explain_batch(tagger, batch) for tagger in taggers]
            for post, *of_models in zip(batch, *explained, strict=True):
                row = row_of(post, of_models, len(summary.outcomes))
                file.write(json.dumps(row) + "\n")
                summary.add(row)
            advance(len(batch))
    shown = sample(summary.outcomes, posts)
    with rows.open(encoding="utf-8") as lines:
        chosen = [
            (json.loads(line), post)
            for number, (line, post) in enumerate(zip(lines, source.read(split), strict=True))
            if number in shown
        ]
    # The page may be passed on: it names the data, not where it lies.
    name = data.resolve().name if data.is_file() else f"{data.resolve().name}, {split}"
    figures = {}
    for measure in MEASURES:
        figures[measure] = svg(draw(summary, measure))
        with written_whole(output / f"{measure}.svg") as file:
            file.write(figures[measure])
    with written_whole(output / "summary.json") as file:
        json.dump(summary.to_dict(), file, indent=1, ensure_ascii=False)
    with written_whole(output / "report.html") as file:
        file.write(page(name, summary, chosen, {k: inline(of) for k, of in figures.items()}))
    names = ("posts.jsonl", *(f"{measure}.svg" for measure in MEASURES), "summary.json")
    return Analysis(summary, output / "report.html", tuple(output / name for name in names))


def _loaded(paths: list[str]) -> list[Tagger]:
    """The models, whose attention can be shown."""
    taggers = [Tagger.from_pretrained(path) for path in paths]
    first = taggers[0].model
    if not isinstance(first.system, RpBert):
        expected = "one of rpbert, whose attention to images can be shown"
        raise InputError(paths[0], f"a model of {first.options.system}", expected)
    for path, tagger in zip(paths, taggers, strict=True):
        encoder = tagger.model.system.encoder
        if isinstance(encoder, TextImageEncoder) and not isinstance(encoder, BertEncoder):
            found = f"a text encoder of type {encoder.bert.config.model_type}"
            raise InputError(path, found, "a BERT or RoBERTa, whose attention can be shown")
    return taggers


def short_names(names: list[str]) -> list[str]:
    """What tells models apart, such as ``rpbert`` and ``none`` for runs/rpbert and runs/none."""
    parts = [[p for p in Path(name).parts if p != "model"] or [name] for name in names]
    for length in range(1, max(map(len, parts)) + 1):
        short = ["/".join(part[-length:]) for part in parts]
        if len(set(short)) == len(names):
            return short
    return [f"{name} ({number})" for number, name in enumerate(names, 1)]
