"""The main job in a few minutes: make data, train three systems, score and compare them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from rpbert.config.run import RunSettings
from rpbert.data.readers import open_data
from rpbert.evaluation.evaluate import evaluate_posts
from rpbert.evaluation.scoring import ADDS, DOES_NOT_ADD
from rpbert.inference import Tagger
from rpbert.storage.manifest import is_whole
from rpbert.storage.writing import written_whole
from rpbert.synthetic.controlled import claimed, make
from rpbert.training.train import train
from rpbert.types import Post

POSTS = 6000
MARK = ".rpbert-demo"
RESULT = "demo.json"
SETTINGS: dict[str, Any] = yaml.safe_load(
    files("rpbert.synthetic").joinpath("demo.yaml").read_text("utf-8")
)
SYSTEMS: dict[str, dict[str, Any]] = SETTINGS["systems"]


def settings_of(system: str, data: Path, seed: int) -> RunSettings:
    """The run of one of the demo's systems: small parts, random weights, the same budget."""
    run = {**SETTINGS["run"], "model": SYSTEMS[system]["model"], "data": {"path": data}}
    run["training"] = {**run["training"], "seed": seed}
    return RunSettings.model_validate(run)


def demo(
    folder: Path,
    seed: int = 0,
    posts: int = POSTS,
    say: Callable[[str], object] = lambda line: None,
) -> dict[str, Any]:
    """Make data in `folder`, train and score each system there; a JSON document.
    It has scores on the test split (strict F1, also by relation, and accuracy of r), and examples
    as `rpbert` and `bert` tag them. Raises InputError: `folder` holds what is not an earlier
    demo."""
    made_before = (folder / MARK).exists()
    with claimed(folder, made_before):
        for path in folder.iterdir():  # of an earlier demo
            if path.is_dir():
                shutil.rmtree(path)
        (folder / RESULT).unlink(missing_ok=True)
        (folder / MARK).touch()
        return _made(folder, seed, posts, say)


def _made(folder: Path, seed: int, posts: int, say: Callable[[str], object]) -> dict[str, Any]:
    make(folder / "data", posts=posts, seed=seed)
    source = open_data(folder / "data")
    test = list(source.read("test"))
    taggers, rows = {}, []
    for number, (system, described) in enumerate(SYSTEMS.items(), 1):
        say(f"{number} of {len(SYSTEMS)}: {described['title']}")
        trained = train(settings_of(system, folder / "data", seed), folder / system)
        taggers[system] = Tagger.from_pretrained(trained.model)
        found = evaluate_posts(taggers[system], test)
        assert found.tags is not None  # made posts have tags
        row: dict[str, Any] = {"system": system, "title": described["title"]}
        row["f1"] = found.tags.strict.f1
        for key, group in (("f1_adds", ADDS), ("f1_does_not", DOES_NOT_ADD)):
            row[key] = found.tags.by_group[group].strict.f1
        row["relation_accuracy"] = found.relation.accuracy if found.relation else None
        rows.append({**row, "seconds": trained.seconds})
    counts = {split: sum(1 for _ in source.read(split)) for split in source.splits}
    examples = _examples(test, taggers["rpbert"], taggers["bert"])
    result = {"folder": str(folder), "posts": counts, "rows": rows, "examples": examples}
    with written_whole(folder / RESULT) as file:
        json.dump({"seed": seed, **result}, file, ensure_ascii=False, indent=1)
    return result


def finished(folder: Path, seed: int) -> dict[str, Any] | None:
    """What an earlier `demo` of this seed returned; None unless its model is whole."""
    try:
        found = json.loads((folder / RESULT).read_text("utf-8"))
    except (OSError, ValueError):  # it was stopped on its way, or is of an earlier version
        return None
    whole = isinstance(found, dict) and is_whole(folder / "rpbert" / "model")
    if not whole or found.pop("seed", None) != seed:
        return None
    return {**found, "folder": str(folder)}  # wherever it was made


def _examples(test: Sequence[Post], multimodal: Tagger, text_only: Tagger) -> list[dict[str, Any]]:
    """Three posts whose image adds and three whose image misleads, the first of the test split."""
    tagged = [post for post in test if post.tags and set(post.tags) != {"O"}]
    adds, others = ([post for post in tagged if post.relation == r][:3] for r in (1, 0))
    chosen = [post for pair in zip(adds, others, strict=False) for post in pair]
    answers = zip(multimodal.predict_batch(chosen), text_only.predict_batch(chosen), strict=True)
    return [
        {"caption": post.caption or "", "image": str(post.image)}
        | {"multimodal": seen.to_dict(), "text_only": blind.to_dict()}
        for post, (seen, blind) in zip(chosen, answers, strict=True)
    ]
