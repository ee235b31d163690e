"""Small training runs on made posts, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rpbert.config.data import DataSettings
from rpbert.config.run import RunSettings
from tests.conftest import TAGGER, TINY, made_posts

RATES = {"head": 1e-2, "encoder": 1e-3, "projection": 1e-3, "visual": 1e-3}


def data_folder(folder: Path, *, relations: bool = True) -> Path:
    """Made posts as a data folder."""
    (folder / "images").mkdir(parents=True)
    posts = made_posts(8)
    lines, labels = [], []
    for post in posts:
        lines.append(f"IMGID:{post.id}")
        lines += [f"{word}\t{tag}" for word, tag in zip(post.words, post.tags or (), strict=True)]
        lines.append("")
        labels.append(f"{post.id}\t{int(post.relation or 0)}")
        post.image.save(folder / "images" / f"{post.id}.jpg")  # type: ignore[union-attr]
    for split in ("train", "valid", "test"):
        (folder / f"{split}.txt").write_text("\n".join(lines))
    if relations:
        (folder / "relations.tsv").write_text("\n".join(labels))
    return folder


def settings(data: Path, system: str = "rpbert", **training: Any) -> RunSettings:
    return RunSettings.model_validate(
        {
            "preset": "tuned",
            "model": {"system": system, "tagger": TAGGER, **TINY[system]},
            "data": {"path": data},
            "training": {
                "epochs": 3,
                "batch_size": 4,
                "relation": RATES,
                "tagging": RATES,
                "device": "cpu",
                **training,
            },
        }
    )


def with_source(chosen: RunSettings, source: Any) -> RunSettings:
    """The run with another relation source."""
    data = {**chosen.data.model_dump(), "relation_source": source}
    return chosen.model_copy(update={"data": DataSettings.model_validate(data)})
