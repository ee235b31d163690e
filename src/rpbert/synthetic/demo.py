"""The main job in a few minutes: make data, train three systems, score and compare them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rpbert.config.run import RunSettings
from rpbert.data.readers import open_data
from rpbert.errors import InputError
from rpbert.evaluation.evaluate import evaluate_posts
from rpbert.evaluation.scoring import ADDS, DOES_NOT_ADD, Evaluation
from rpbert.inference import Tagger
from rpbert.storage.manifest import is_whole
from rpbert.storage.writing import check_writable, written_whole
from rpbert.synthetic.controlled import make
from rpbert.training.train import train
from rpbert.types import Post, Prediction

POSTS = 6000
EPOCHS = 5
MARK = ".rpbert-demo"
RESULT = "demo.json"

ENCODER: dict[str, Any] = {
    "shape": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "max_position_embeddings": 128,
        # Few epochs over posts that are never the same twice: dropout would only slow them.
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    },
    "vocabulary": 3000,
}
BLOCKS: dict[str, Any] = {
    "shape": {
        "layer_type": "basic",
        "embedding_size": 16,
        "depths": [1, 1],
        "hidden_sizes": [32, 64],
    },
    # Two stages halve the image three times: 56 pixels become the paper's 7 × 7 blocks, and more
    # posts are seen in the time than with larger images.
    "image_size": 56,
}
EVIDENCE = {"blocks": BLOCKS}
TAGGER = {"word_dimension": 64, "lstm_hidden": 64, "lstm_layers": 1, "dropout": 0.2}
RATES = {"head": 2e-3, "encoder": 7e-4, "projection": 7e-4, "visual": 1e-3}
SYSTEMS: dict[str, dict[str, Any]] = {
    "rpbert": {"system": "rpbert", "gate": "soft", "encoder": ENCODER, "evidence": EVIDENCE},
    "none": {"system": "rpbert", "gate": "none", "encoder": ENCODER, "evidence": EVIDENCE},
    "bert": {"system": "bert", "encoder": ENCODER},
}
TITLES = {
    "rpbert": "rpbert: as much image as it relates",
    "none": "rpbert, gate=none: the whole image",
    "bert": "bert: text only",
}


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
    return RunSettings.model_validate(
        {
            "preset": "tuned",
            "model": {**SYSTEMS[system], "tagger": TAGGER},
            "data": {"path": data},
            "training": {
                "epochs": EPOCHS,
                "batch_size": 32,
                "decay": "cosine",
                "seed": seed,
                "relation": RATES,
                "tagging": RATES,
            },
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
    _claim(folder)
    data = folder / "data"
    make(data, posts=posts, seed=seed)
    source = open_data(data)
    test = list(source.read("test"))
    taggers, rows = {}, []
    for number, system in enumerate(SYSTEMS, 1):
        say(f"{number} of {len(SYSTEMS)}: {TITLES[system]}")
        trained = train(settings_of(system, data, seed), folder / system)
        taggers[system] = Tagger.from_pretrained(trained.model)
        evaluation = evaluate_posts(taggers[system], test)
        rows.append(_row(system, evaluation, trained.seconds))
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


def _row(system: str, evaluation: Evaluation, seconds: float) -> DemoRow:
    tags, relation = evaluation.tags, evaluation.relation
    assert tags is not None  # made posts have tags
    groups = tags.by_group
    return DemoRow(
        system=system,
        title=TITLES[system],
        f1=tags.strict.f1,
        f1_adds=groups[ADDS].strict.f1,
        f1_does_not=groups[DOES_NOT_ADD].strict.f1,
        relation_accuracy=relation.accuracy if relation else None,
        seconds=seconds,
    )


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


def _claim(folder: Path) -> None:
    """Take the folder for the demo; what an earlier demo left there is made anew."""
    check_writable(folder, "--output")
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARK).exists():
            raise InputError(folder, "a folder with other things", "a new folder for --output")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).touch()
