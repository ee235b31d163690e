"""What r learns of real photographs: Task#1 alone, of posts with their own and with others' images.

    python scripts/photographs.py POSTS ENCODER [--seed 0] [--epochs 3] [--pairs DATA …]

POSTS is a data folder with train, dev and test posts and stored blocks (`regions.safetensors`),
ENCODER a text encoder. Printed as JSON: accuracy, area under the curve and calibration error (15
bins) of r on the test posts and as many exchanged ones; r of every post of the data sets `--pairs`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import set_seed

from rpbert.config.run import PRESETS, MismatchSource, TrainingSettings
from rpbert.data.readers import open_data
from rpbert.errors import InputError
from rpbert.evaluation.scoring import expected_calibration_error
from rpbert.inference import Decoder
from rpbert.models import parse_options
from rpbert.models.saved import TaggingModel
from rpbert.training.relation_sources import MismatchedPairs
from rpbert.training.tasks import RelationTask, Schedule, rate_factor
from rpbert.types import Post


def main() -> None:
    """Train on the training posts, keep the best epoch of the development posts, print figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("posts", type=Path)
    parser.add_argument("encoder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--pairs", type=Path, nargs="*", default=[])
    given = parser.parse_args()
    set_seed(given.seed)
    source = open_data(given.posts)
    train, dev, test = (list(source.read(split)) for split in ("train", "dev", "test"))
    encoder = {"pretrained": given.encoder}
    options = parse_options({"system": "rpbert", "encoder": encoder, "evidence": {"regions": {}}})
    named = Post.from_words("names", ("Ada",), tags=("B-PER",))  # the tagger is not trained
    model = TaggingModel.create(options, [*train, named])
    chosen = {**PRESETS["tuned"]["training"], "epochs": given.epochs, "seed": given.seed}
    settings = TrainingSettings.model_validate(chosen)
    task = RelationTask([], settings.relation, MismatchedPairs(train, MismatchSource(), given.seed))
    collator = model.collator()
    schedule = Schedule([task], settings.batch_size, given.seed, collator.lengths)
    optimizer = task.optimizer(model.system, settings)
    factor = rate_factor(optimizer, schedule.steps(task) * given.epochs, settings)
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    best: tuple[float, dict[str, torch.Tensor]] = (-1.0, {})
    for epoch in range(1, given.epochs + 1):
        model.system.train()
        for _, posts in schedule.epoch(epoch):
            loss = task.losses(model.system, collator.with_gold(posts)).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.system.parameters(), settings.clip_norm or 1e9)
            optimizer.step()
            rates.step()
        accuracy = scores(model, dev)["accuracy"]
        print(f"epoch {epoch}: accuracy on the development pairs {accuracy:.3f}", flush=True)
        if accuracy > best[0]:
            state = model.system.state_dict()
            best = accuracy, {name: value.clone() for name, value in state.items()}
    model.system.load_state_dict(best[1])
    found = scores(model, test)
    every = [post for path in given.pairs for split in open_data(path).splits
             for post in open_data(path).read(split)]  # fmt: skip
    answers = zip(every, relations(model, every), strict=True)
    print(json.dumps({**found, "pairs": {post.id: round(r, 3) for post, r in answers}}))


def relations(model: TaggingModel, posts: Sequence[Post]) -> list[float]:
    """r of each post."""
    decoded = Decoder(model, model.collator()).decode(posts)
    return [answer.relation or 0.0 for answer in decoded]


def scores(model: TaggingModel, posts: Sequence[Post]) -> dict[str, float]:
    """Of the posts with their own image (1) and with another one's (0)."""
    pairs = MismatchedPairs(posts, MismatchSource(), 0).of_epoch(1)
    r, own = np.array(relations(model, pairs)), np.array([p.relation for p in pairs]) > 0.5
    above = (r[own][:, None] > r[~own]) + 0.5 * (r[own][:, None] == r[~own])
    right = ((r > 0.5) == own).tolist()
    return {
        "pairs_scored": len(pairs),
        "accuracy": float(np.mean(right)),
        "auc": float(above.mean()),
        "calibration_error": expected_calibration_error(np.maximum(r, 1 - r).tolist(), right),
        "mean_r_own": float(r[own].mean()),
        "mean_r_exchanged": float(r[~own].mean()),
    }


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"photographs.py: {error}")
