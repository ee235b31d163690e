"""The model card: what a run was made of and came to, in Markdown, for people and for hubs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from rpbert.config.run import RunSettings
from rpbert.data.words import SPLITTERS
from rpbert.evaluation.scoring import ADDS, DOES_NOT_ADD, RELATION_THRESHOLD, SCORERS
from rpbert.models import registered
from rpbert.storage.model_folder import TaggingModel

Record: TypeAlias = Mapping[str, Any]
"""A line of RUN/metrics.jsonl."""
CardWriter: TypeAlias = Callable[[TaggingModel, Record], str]

_DATA = (".txt", ".jsonl", ".parquet", ".tsv", ".csv", ".safetensors")
_SPLITTING = {
    "joined": "`#` and `@` stay on their word, as in Twitter-2015",
    "apart": "`#` and `@` are words of their own, as in Twitter-2017",
}


@dataclass(frozen=True)
class DataFile:
    """A file of the data, and what tells it from any other."""

    path: Path
    size: int
    sha256: str


def data_files(paths: Iterable[Path | None]) -> list[DataFile]:
    """The files of data folders, but for images, and single files."""
    found = []
    for path in paths:
        if path is None:
            continue
        inside = sorted(path.iterdir()) if path.is_dir() else [path]
        for file in inside:
            if file.is_file() and file.suffix in _DATA:
                with file.open("rb") as content:
                    digest = hashlib.file_digest(content, "sha256").hexdigest()
                    found.append(DataFile(file, content.tell(), digest))
    return found


def card_writer(settings: RunSettings, posts: Mapping[str, int]) -> CardWriter:
    """Writes the cards of a run.

    Args:
        settings: complete, as RUN/config.yaml has them.
        posts: how many of each split were read.
    """
    sources = settings.data.relation_source
    soft = sources.soft.path if sources and sources.soft else None
    data = settings.data
    read = [data.path, data.relations_read]
    if not registered(settings.model["system"]).system.tags_words:
        read = [data.relations or data.path]
    files = data_files([*read, soft])

    def write(model: TaggingModel, record: Record) -> str:
        parts = [
            _metadata(settings, record),
            *_about(model, settings),
            *_data(files, posts, record),
            *_scores(record),
            *_limits(model, settings),
        ]
        return "\n".join(parts) + "\n"

    return write


def _metadata(settings: RunSettings, record: Record) -> str:
    """The head that hubs read."""
    from huggingface_hub import EvalResult, ModelCardData

    name = f"rpbert-{settings.model['system']}"
    results = []
    if record["dev"]:
        data, f1 = settings.data.path.name, record["dev"]["strict"]["f1"]
        results = [
            EvalResult(
                task_type="token-classification",
                dataset_type=data,
                dataset_name=data,
                dataset_split="development",
                metric_type="f1",
                metric_name=f"F1 ({SCORERS['strict']})",
                metric_value=round(f1, 4),
            )
        ]
    head = ModelCardData(
        license=settings.licence or "other",
        library_name="rpbert",
        pipeline_tag="token-classification",
        tags=["named-entity-recognition", "multimodal", settings.model["system"]],
        model_name=name if results else None,
        eval_results=results or None,
    )
    return f"---\n{head.to_yaml()}\n---"


def _about(model: TaggingModel, settings: RunSettings) -> list[str]:
    system = settings.model["system"]
    gate = settings.model.get("gate")
    evidence = model.options.evidence
    seen = ", ".join(evidence.kinds) if evidence else "none, text only"
    types = sorted({tag[2:] for tag in model.vocabulary.tags if tag != "O"})
    lines = [
        f"# {system}" + (f", gate {gate}" if gate else ""),
        "",
        "Names in social posts that come with images, after RpBERT (Sun et al., AAAI 2021).",
        "",
        "```python",
        "from rpbert import Tagger",
        "",
        'Tagger.from_pretrained("FOLDER").predict("Nice image of Kevin Love at the Finals")',
        "```",
        "",
        "## Model",
        "",
        f"- entities: {', '.join(types) or 'none'}",
        f"- evidence: {seen}",
        f"- initial weights of the encoder: {model.notes.get('initial_weights', 'random')}",
        f"- raw text: {_SPLITTING[SPLITTERS[model.vocabulary.marks].name]}",
    ]
    if "relation_source" in model.notes:
        lines.append(f"- relation: {model.notes['relation_source']}")
    return lines


def _data(files: Sequence[DataFile], posts: Mapping[str, int], record: Record) -> list[str]:
    counts = ", ".join(f"{count:,} {split}" for split, count in posts.items() if count)
    images = "; ".join(
        f"{task}: " + ", ".join(f"{count:,} {status}" for status, count in sorted(seen.items()))
        for task, seen in record["images"].items()
    )
    rows = [(file.path.name, f"{file.size:,}", f"`{file.sha256}`") for file in files]
    return [
        *("", "## Data", "", f"Posts read: {counts}. The test split trains nothing. "),
        *(f"Images or what stands in their place, by task and posts: {images}.", ""),
        *_table(("file", "bytes", "SHA-256"), rows),
    ]


def _scores(record: Record) -> list[str]:
    """The development scores of the epoch that was kept."""
    lines = ["", "## Scores", "", f"Development split, after epoch {record['epoch']}; in %. "]
    lines[-1] += "It chose that epoch; the test split is for `rpbert evaluate`."
    tags, relation = record["dev"], record["dev_relation"]
    if tags:
        rows = []
        for key, scorer in SCORERS.items():
            rows.append(_row("all entities", scorer, tags[key]))
            rows += [_row(name, scorer, of) for name, of in tags[key]["by_type"].items()]
            groups = tags.get("by_group", {})
            rows += [_row(name, scorer, of[key]) for name, of in groups.items()]
        head = ("entities", "scorer", "precision", "recall", "F1", "support")
        lines += ["", *_table(head, rows)]
    if relation:
        named = {ADDS: "adds", DOES_NOT_ADD: "does_not_add"}
        rows = [
            _row(name, f"r > {RELATION_THRESHOLD}", relation[key]) for name, key in named.items()
        ]
        lines += ["", f"Relation: accuracy {100 * relation['accuracy']:.2f}.", ""]
        lines += _table(("posts", "rule", "precision", "recall", "F1", "support"), rows)
    return lines


def _row(name: str, scorer: str, scores: Mapping[str, float]) -> tuple[str, ...]:
    shares = (f"{100 * scores[key]:.2f}" for key in ("precision", "recall", "f1"))
    return (name, scorer, *shares, f"{scores['support']:,}")


def _limits(model: TaggingModel, settings: RunSettings) -> list[str]:
    licence = settings.licence or "not stated by who trained it"
    lines = [
        *("", "## Limits", ""),
        "- It knows the language, the time and the kinds of entity of its training posts alone.",
        "- Posts name people: what it finds is a guess to be checked before it is acted on.",
    ]
    if model.options.evidence is not None:
        lines.append("- A post without evidence is read as text alone, and its r is 0.")
    if model.system.has_relation:
        lines.append(
            "- r says how much of the image was let through, not that text or image is true."
        )
    return [
        *lines,
        *("", "## Licence", ""),
        f"Of these weights: {licence}. The terms of the data and of the initial weights hold "
        "beside it; the software is under the MIT licence.",
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]
