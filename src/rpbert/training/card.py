"""The model card: what a run was made of and came to, in Markdown; its text is ``card.md``."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, TypeAlias

from rpbert.config.run import RunSettings
from rpbert.data.words import SPLITTERS
from rpbert.evaluation.scoring import SCORERS, score_table
from rpbert.models import registered
from rpbert.models.saved import TaggingModel
from rpbert.types import image_counts

Record: TypeAlias = Mapping[str, Any]  # a line of RUN/metrics.jsonl

_DATA = (".txt", ".jsonl", ".parquet", ".tsv", ".csv", ".safetensors")
_SPLITTING = {
    "joined": "`#` and `@` stay on their word, as in Twitter-2015",
    "apart": "`#` and `@` are words of their own, as in Twitter-2017",
}


def card_writer(
    settings: RunSettings, posts: Mapping[str, int]
) -> Callable[[TaggingModel, Record], str]:
    """Writes the cards of a run with these settings (complete) and so many posts of each split."""
    data, sources = settings.data, settings.data.relation_source
    read = [data.path, data.relations_read]
    if not registered(settings.model["system"]).system.tags_words:
        read = [data.relations or data.path]
    files_read = _data_rows([*read, sources.soft.path if sources and sources.soft else None])
    names = {"train": "training", "dev": "development", "test": "test"}
    counts = ", ".join(f"{posts[split]:,} {name}" for split, name in names.items() if posts[split])
    template = Template(files("rpbert.training").joinpath("card.md").read_text("utf-8"))

    def write(model: TaggingModel, record: Record) -> str:
        gate, evidence, notes = settings.model.get("gate"), model.options.evidence, model.notes
        types = sorted(model.vocabulary.types)
        source = notes.get("relation_source")
        limits = []
        if evidence is not None:
            limits.append("- A post without evidence is read as text alone, and its r is 0.")
        if model.system.has_relation and model.relation_is_learnt:
            limits.append("- r says how much of the image was let through, not that it is true.")
        return template.substitute(
            head=_head(settings, record),
            title=settings.model["system"] + (f", gate {gate}" if gate else ""),
            entities=", ".join(types) or "none",
            evidence=", ".join(evidence.kinds) if evidence else "none, text only",
            weights=notes.get("initial_weights", "random"),
            splitting=_SPLITTING[SPLITTERS[model.vocabulary.marks].name],
            relation=f"- relation: {source}" if source is not None else "",
            posts=counts,
            images="; ".join(f"{k}: {image_counts(seen)}" for k, seen in record["images"].items()),
            files=_table(("file", "bytes", "SHA-256"), *files_read),
            epoch=record["epoch"],
            scores=_table(*score_table(record["dev"], record["dev_relation"])),
            limits="\n".join(limits),
            licence=settings.licence or "not stated by who trained it",
        )

    return write


def _data_rows(paths: Iterable[Path | None]) -> list[tuple[str, str, str]]:
    """Name, size and digest of the files of data folders, but for images, and of single files."""
    rows = []
    for path in filter(None, paths):
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            if file.is_file() and file.suffix in _DATA:
                with file.open("rb") as content:
                    digest = hashlib.file_digest(content, "sha256").hexdigest()
                    rows.append((file.name, f"{content.tell():,}", f"`{digest}`"))
    return rows


def _head(settings: RunSettings, record: Record) -> str:
    """What hubs read, as YAML."""
    from huggingface_hub import EvalResult, ModelCardData

    system, task, results = settings.model["system"], "token-classification", None
    if record["dev"]:
        data, f1 = settings.data.path.name, round(record["dev"]["strict"]["f1"], 4)
        results = [EvalResult(task, data, data, "f1", f1, dataset_split="development")]
        results[0].metric_name = f"F1 ({SCORERS['strict']})"
    return ModelCardData(
        license=settings.licence or "other",
        library_name="rpbert",
        pipeline_tag=task,
        tags=["named-entity-recognition", "multimodal", system],
        model_name=f"rpbert-{system}" if results else None,
        eval_results=results,
    ).to_yaml()


def _table(head: Sequence[str], *rows: Sequence[str]) -> str:
    cells = [head, ["---"] * len(head), *rows]
    lines = (" | ".join(cell.replace("|", "\\|") for cell in row) for row in cells)
    return "\n".join(f"| {line} |" for line in lines)
