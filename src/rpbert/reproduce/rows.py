"""The paper's tables as data (tables.yaml): which rows they have, and the figures it prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeAlias

import yaml

FUDAN, SNAP, TRC = "Fudan Univ.", "Snap Res.", "TRC"
POSTS: Mapping[str, tuple[int, int]] = {FUDAN: (4000, 3257), SNAP: (4817, 1033), TRC: (3576, 895)}
"""Training and test posts in the paper ("Datasets"; TRC is 4,471 posts, 8 : 2)."""
Measure: TypeAlias = Literal[
    "f1", "adds", "does_not", "relation", "no_relation", "relations", "low", "high"
]
Grouping: TypeAlias = Literal["classifier", "labels"]
TITLES: Mapping[Measure, str] = {
    "f1": "F1",
    "adds": "F1, image adds",
    "does_not": "F1, image doesn't add",
    "relation": "F1 of image adds",
    "no_relation": "F1 of image doesn't add",
    "relations": "mean of both F1",
    "low": "S_TV, image doesn't add",
    "high": "S_TV, image adds",
}


@dataclass(frozen=True)
class Row:
    """A system as one row trains it."""

    name: str
    label: str  # as the paper calls it
    system: str
    options: Mapping[str, Any] = field(default_factory=dict)  # beside what all rows share
    large: bool = False  # takes the large encoder
    relation_source: str = ""  # what Task#1 learns from, empty for what the data have


@dataclass(frozen=True)
class Table:
    """Rows top to bottom, measures in columns, the paper's figures by row and data set."""

    name: str
    title: str
    rows: tuple[str, ...]
    measures: tuple[Measure, ...]
    paper: Mapping[str, Mapping[str, tuple[float, ...]]] = field(default_factory=dict)
    against: Mapping[str, str] = field(default_factory=dict)
    """Of a row, the one that it is compared with, as the paper does."""
    by: Grouping = "classifier"
    """What tells posts whose image adds: r of RpBERT with the soft gate above 0.5, or labels."""


_FILE = yaml.safe_load((files("rpbert.reproduce") / "tables.yaml").read_text("utf-8"))
ROWS: Mapping[str, Row] = {name: Row(name, **row) for name, row in _FILE["rows"].items()}
TABLES: Mapping[str, Table] = {name: Table(name, **t) for name, t in _FILE["tables"].items()}
SOFT, ORACLE = ROWS["rpbert-soft"], ROWS["rpbert-oracle"]
ATTENTION: frozenset[Measure] = frozenset(("low", "high"))
"""Measures that need the attention of every post."""


def paper_set(path: Path) -> str | None:
    """Which data set of the paper a folder holds, by its name."""
    name = path.resolve().name.lower()
    known = {FUDAN: ("2015", "fudan"), SNAP: ("2017", "snap"), TRC: ("trc",)}
    return next((data for data, signs in known.items() if any(s in name for s in signs)), None)
