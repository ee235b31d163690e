"""The parts of the benchmark, each run in a process of its own: ``python -m rpbert.benchmark``.

So one part's memory is not counted for another, and what one leaves warm does not help another.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed
from torch import Tensor

from rpbert.benchmark.measures import (
    PeakMemory,
    counting,
    machine,
    percentile,
    products,
    seconds,
    spread,
)
from rpbert.benchmark.profiles import profiled
from rpbert.benchmark.work import Work
from rpbert.config.run import Precision, TrainingSettings
from rpbert.inference import Tagger
from rpbert.models.saved import TaggingModel
from rpbert.stopping import StopSignals
from rpbert.training.tasks import RelationTask, Schedule, TaggingTask, Task
from rpbert.training.train import accelerator_for, repeatable
from rpbert.training.trainer import Trainer
from rpbert.types import Post

LATENCIES = 40  # posts that are tagged one by one
COUNTED = 8  # posts whose operations are counted
GROWTH = {"batch": (1, 2, 4, 8, 16, 32), "length": (1, 2, 4, 8), "posts": (1, 2, 4)}


def about_machine(work: Work) -> dict[str, Any]:
    """What the machine is, and its best products."""
    side = 2048 if work.size == "published" else 256
    return {**machine(work.device), "products": products(work.device, side)}


def inference(work: Work, precision: Precision) -> dict[str, Any]:
    """Posts a second, latency, memory, operations."""
    tagger = Tagger(work.model(), work.device, precision, work.backend)
    operations, plain = _by_the_plain_system(tagger, work)
    off = _furthest(tagger, work, plain)
    runs = [work.given(COUNTED + i * work.posts, work.posts) for i in range(work.repeats)]
    tagger.predict_batch(work.given(0, 2 * work.batch), work.batch)
    memory = PeakMemory(work.device)
    times = [seconds(tagger.predict_batch, run, work.batch) for run in runs]
    rates = spread([work.posts / taken for taken in times])
    singles = work.given(0, LATENCIES)
    tagger.predict_batch(singles[:1])
    waits = [seconds(tagger.predict_batch, [post]) for post in singles]
    return {
        "posts_per_second": rates,
        "latency_seconds": {"p50": percentile(waits, 0.5), "p95": percentile(waits, 0.95)},
        "peak_gib": memory.read(),
        "gflop_per_post": operations,
        "gflop_per_second": operations * rates["median"],
        "max_difference": off,
    }


def growth(work: Work, precision: Precision) -> dict[str, Any]:
    """Posts a second as batch, length of the posts and their number grow."""
    tagger = Tagger(work.model(), work.device, precision, work.backend)

    def rate(posts: list[Post], batch: int) -> float:
        tagger.predict_batch(posts[:batch], batch)
        return len(posts) / min(seconds(tagger.predict_batch, posts, batch) for _ in "ab")

    posts = work.given(0, max(work.posts, 32))
    few = posts[: 2 * work.batch]
    return {
        "batch": {str(size): rate(posts[:32], size) for size in GROWTH["batch"]},
        "length": {
            str(n): rate([_longer(p, n) for p in few], work.batch) for n in GROWTH["length"]
        },
        "posts": {
            str(len(more)): rate(more, work.batch)
            for more in (posts[: max(1, work.posts * n // 4)] for n in GROWTH["posts"])
        },
    }


def training(work: Work, precision: Precision, moments: str) -> dict[str, Any]:
    """Posts a second and memory, with the optimisers of both tasks."""
    with tempfile.TemporaryDirectory() as folder:
        trainer, tasks = _trainer(work, precision, moments, Path(folder))
        memory = PeakMemory(work.device)
        rates: dict[str, Any] = {}
        for task in tasks:
            groups = trainer.schedule.batches(task, 1)[: work.repeats + 1]
            batches = [trainer.collator.with_gold(group) for group in groups]
            with repeatable(torch.device(work.device)):
                trainer.step(task, batches[0])
                times = [seconds(trainer.step, task, batch) for batch in batches[1:]]
            rates[task.name] = spread([work.batch / taken for taken in times])
    return {"posts_per_second": rates, "peak_gib": memory.read(), "moments": moments}


def first_prediction(work: Work, folder: str, precision: Precision) -> dict[str, Any]:
    """What a user of a saved model waits for; the time is taken outside."""
    tagger = Tagger.from_pretrained(folder, work.device, precision, backend=work.backend)
    return {"entities": len(tagger.predict("Nice image of Kevin Love at the Finals").entities)}


def profile(work: Work, precision: Precision, train: bool) -> dict[str, Any]:
    """Where the time goes: operations by their share of it."""
    call: Callable[[], object]
    if not train:
        tagger = Tagger(work.model(), work.device, precision, work.backend)
        posts = work.given(0, 2 * work.batch)

        def call() -> object:
            return tagger.predict_batch(posts, work.batch)

        return profiled(call, 2 * work.batch)
    with tempfile.TemporaryDirectory() as folder:
        trainer, tasks = _trainer(work, precision, "task", Path(folder))
        batch = trainer.collator.with_gold(tasks[-1].posts[: work.batch])

        def call() -> object:
            return trainer.step(tasks[-1], batch)

        return profiled(call, work.batch)


def operations(work: Work) -> dict[str, float]:
    """GFLOP of a post in a training step of each task, by plain layers: as in `inference`.

    Less those of an LSTM whose kernel is fused, which shows no products: not a hundredth.
    """
    model, tasks = _to_train(work, TrainingSettings())
    system, collator, counted = model.system.to(work.device).train(), model.collator(), {}
    for task in tasks:
        posts = task.posts[:COUNTED]
        with counting() as counter:
            for post in posts:
                losses = task.losses(system, collator.with_gold([post]).to(work.device))
                torch.autograd.backward(losses.sum())
        counted[task.name] = counter.get_total_flops() / len(posts) / 1e9
    return counted


def _trainer(
    work: Work, precision: Precision, moments: str, folder: Path
) -> tuple[Trainer, list[Task]]:
    """A trainer at work, and its tasks."""
    set_seed(0)
    settings = TrainingSettings.model_validate(
        {
            "precision": precision,
            "moments": moments,
            "batch_size": work.batch,
            "device": "cpu" if work.device == "cpu" else "auto",
        }
    )
    model, tasks = _to_train(work, settings)
    schedule = Schedule(tasks, work.batch, 0, model.collator().lengths)
    accelerator = accelerator_for(settings, folder)
    trainer = Trainer(accelerator, model, schedule, settings, folder, StopSignals())
    trainer.system.train()
    return trainer, tasks


def _to_train(work: Work, settings: TrainingSettings) -> tuple[TaggingModel, list[Task]]:
    """A model, and its tasks on enough posts for a warm-up and every repeat."""
    model = work.model()
    posts = work.given(COUNTED, work.batch * (work.repeats + 1))
    tasks: list[Task] = [TaggingTask(posts, settings.tagging)]
    if model.system.has_relation:
        tasks.insert(0, RelationTask(posts, settings.relation))
    return model, tasks


def _by_the_plain_system(tagger: Tagger, work: Work) -> tuple[float, list[Tensor]]:
    """GFLOP of a post, and the emissions of some posts by the plain system in float32.

    Products and convolutions are counted, of posts that are read one by one: nothing is padded.

    Returns:
        the emissions of each post. Shape: (W, K).
    """
    system, collator = tagger.model.system.eval(), tagger.decoder.collator
    total, emissions = 0, []
    for post in work.given(0, COUNTED):
        with torch.inference_mode(), counting() as counter:
            emissions.append(system(collator([post]).to(work.device)).emissions[0])
        total += counter.get_total_flops()
    return total / COUNTED / 1e9, emissions


def _furthest(tagger: Tagger, work: Work, plain: list[Tensor]) -> float:
    """How far any emission of the same posts, tagged in one batch, is from the plain system's."""
    batch = tagger.decoder.collator(work.given(0, COUNTED)).to(work.device)
    with torch.inference_mode():
        found = tagger.decoder.system(batch).emissions
    pairs = zip(found, plain, strict=True)
    return max(float((row[: len(one)] - one).abs().max()) for row, one in pairs)


def _longer(post: Post, times: int) -> Post:
    """The post's words several times over."""
    return Post.from_words(post.id, post.words * times, image=post.image)


def save(work: Work, folder: str) -> None:
    """The model as `first_prediction` reads it."""
    work.model().save(Path(folder))


PARTS: dict[str, Callable[..., Any]] = {
    "machine": about_machine,
    "inference": inference,
    "growth": growth,
    "operations": operations,
    "training": training,
    "save": save,
    "first_prediction": first_prediction,
    "profile": profile,
}
"""Each takes the work and arguments of its own, and gives JSON types."""
