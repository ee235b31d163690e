"""The main job in a few minutes: make data, train three systems, score and compare them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
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
from rpbert.synthetic.controlled import claim, make
from rpbert.training.train import train
from rpbert.types import Post, Prediction

POSTS = 6000
MARK = ".rpbert-demo"
RESULT = "demo.json"
SETTINGS: dict[str, Any] = yaml.safe_load(
    files("rpbert.synthetic").joinpath("demo.yaml").read_text("utf-8")
)
SYSTEMS: dict[str, dict[str, Any]] = SETTINGS["systems"]


@dataclass(frozen=True)
class DemoRow:
    """A system's scores on the test split: strict F1 overall and by relation, and r's accuracy."""

    system: str
    title: str
    f1: float
    f1_adds: float
    f1_does_not: float
    relation_accuracy: float | None
    seconds: float


@dataclass(frozen=True)
class DemoExample:
    """A post as `rpbert` and as `bert` tag it."""

    caption: str
    image: str
    multimodal: Prediction
    text_only: Prediction


@dataclass(frozen=True)
class DemoResult:
    """What the demo came to."""

    folder: Path
    posts: Mapping[str, int]
    rows: Sequence[DemoRow]
    examples: Sequence[DemoExample]

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON types."""
        return {**asdict(self), "folder": str(self.folder)}


def settings_of(system: str, data: Path, seed: int) -> RunSettings:
    """The run of one of the demo's systems: small parts, random weights, the same budget."""
    run = SETTINGS["run"]
    return RunSettings.model_validate(
        {
            **run,
            "model": SYSTEMS[system]["model"],
            "data": {"path": data},
            "training": {**run["training"], "seed": seed},
        }
    )


def demo(
    folder: Path,
    seed: int = 0,
    posts: int = POSTS,
    say: Callable[[str], object] = lambda line: None,
) -> DemoResult:
    """Make data in `folder`, train and score each system there.

    Args:
        say: told which system comes next.

    Raises:
        InputError: `folder` holds something that is not an earlier demo.
    """
    made_before = (folder / MARK).exists()
    claim(folder, made_before)
    if made_before:  # what an earlier demo left there is made anew
        shutil.rmtree(folder)
        folder.mkdir()
    (folder / MARK).touch()
    data = folder / "data"
    make(data, posts=posts, seed=seed)
    source = open_data(data)
    test = list(source.read("test"))
    taggers, rows = {}, []
    for number, system in enumerate(SYSTEMS, 1):
        say(f"{number} of {len(SYSTEMS)}: {SYSTEMS[system]['title']}")
        trained = train(settings_of(system, data, seed), folder / system)
        taggers[system] = Tagger.from_pretrained(trained.model)
        tags, relation = (found := evaluate_posts(taggers[system], test)).tags, found.relation
        assert tags is not None  # made posts have tags
        adds, does_not = (tags.by_group[group].strict.f1 for group in (ADDS, DOES_NOT_ADD))
        accuracy = relation.accuracy if relation else None
        scores = (tags.strict.f1, adds, does_not, accuracy)
        rows.append(DemoRow(system, SYSTEMS[system]["title"], *scores, trained.seconds))
    counts = {split: sum(1 for _ in source.read(split)) for split in source.splits}
    examples = _examples(test, taggers["rpbert"], taggers["bert"])
    result = DemoResult(folder, counts, rows, examples)
    with written_whole(folder / RESULT) as file:
        json.dump({"seed": seed, **result.to_dict()}, file, ensure_ascii=False, indent=1)
    return result


def finished(folder: Path, seed: int) -> dict[str, Any] | None:
    """`DemoResult.to_dict` of an earlier demo of this seed; None unless its model is whole."""
    if not is_whole(folder / "rpbert" / "model"):
        return None
    try:
        found = json.loads((folder / RESULT).read_text("utf-8"))
    except (OSError, ValueError):  # it was stopped on its way, or is of an earlier version
        return None
    if not isinstance(found, dict) or found.pop("seed", None) != seed:
        return None
    return {**found, "folder": str(folder)}  # wherever it was made


def _examples(test: Sequence[Post], multimodal: Tagger, text_only: Tagger) -> list[DemoExample]:
    """Three posts whose image adds and three whose image misleads, the first of the test split."""
    tagged = [post for post in test if post.tags and set(post.tags) != {"O"}]
    adds = [post for post in tagged if post.relation == 1][:3]
    others = [post for post in tagged if post.relation == 0][:3]
    chosen = [post for pair in zip(adds, others, strict=False) for post in pair]
    answers = zip(
        chosen, multimodal.predict_batch(chosen), text_only.predict_batch(chosen), strict=True
    )
    return [DemoExample(p.caption or "", str(p.image), seen, blind) for p, seen, blind in answers]
