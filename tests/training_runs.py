"""Small training runs on made posts, for tests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from rpbert.config.run import DataSettings, RunSettings
from tests.conftest import TAGGER, TINY, made_posts

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"]
RATES = {"head": 1e-2, "encoder": 1e-3, "projection": 1e-3, "visual": 1e-3}


def data_folder(folder: Path, *, relations: bool = True) -> Path:
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
    rates = {"relation": RATES, "tagging": RATES}
    own = {"epochs": 2, "batch_size": 4, "device": "cpu", **rates, **training}
    model = {"system": system, "tagger": TAGGER, **TINY[system]}
    given = {"preset": "tuned", "model": model, "data": {"path": data}, "training": own}
    return RunSettings.model_validate(given)


def with_data(chosen: RunSettings, **data: Any) -> RunSettings:
    """The run with other settings of its data."""
    given = {**chosen.data.model_dump(), **data}
    return chosen.model_copy(update={"data": DataSettings.model_validate(given)})


def python(*given: str) -> str:
    """What a process prints that computes with one thread on CPUs, and ends well."""
    own = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command, root = [sys.executable, *given], Path(__file__).parents[1]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=own)
    assert done.returncode == 0, done.stderr
    return done.stdout


def places(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def cut_back(run: Path) -> None:
    """Remove the checkpoints behind the first step of the second epoch."""
    for name in places(run):
        if name > "epoch-0001-step-000001":
            shutil.rmtree(run / "checkpoints" / name)


def records(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
