"""How fast a system is on this machine: made posts, random weights of published shapes.
`run` measures each part in a separate process, so that one part's memory is not counted for another
and what one leaves warm does not help another."""

from __future__ import annotations

import io
import os
import platform
import random
import re
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
import yaml
from accelerate.utils import set_seed
from torch import nn

from rpbert.config.run import Backend, Precision, TrainingSettings
from rpbert.errors import InputError, reason_of
from rpbert.evidence.networks import ResNetBlocks
from rpbert.inference import Tagger
from rpbert.models import parse_options
from rpbert.models.saved import TaggingModel
from rpbert.stopping import StopSignals
from rpbert.synthetic.controlled import Options, make_post
from rpbert.synthetic.scenes import draw
from rpbert.training.tasks import RelationTask, Schedule, TaggingTask, Task
from rpbert.training.train import accelerator_for, repeatable
from rpbert.training.trainer import Trainer
from rpbert.types import Post

SHAPES: dict[str, dict[str, Any]] = yaml.safe_load(
    files("rpbert").joinpath("benchmark.yaml").read_text("utf-8")
)

Moments: TypeAlias = Literal["task", "shared"]


@dataclass(frozen=True)
class Work:
    """What is measured, and how often: no two repeats share posts."""

    system: Literal["rpbert", "bert"] = "rpbert"
    size: Literal["published", "tiny"] = "published"
    batch: int = 8
    posts: int = 64
    repeats: int = 5
    threads: int | None = None  # as many as PyTorch takes
    device: str = "cpu"
    backend: Backend = "torch"

    def texts(self, first: int, count: int) -> list[Post]:
        """Posts without pictures, each two made posts long: 18 words, about 20 sub-words."""
        posts = []
        for number in range(first, first + count):
            made = [make_post(2 * number + k, Options()) for k in (0, 1)]
            words, tags, _ = zip(*(token for post in made for token in post.tokens), strict=True)
            relation = float(made[0].relation)
            posts.append(Post.from_words(str(number), words, tags=tags, relation=relation))
        return posts

    def given(self, first: int, count: int) -> list[Post]:
        """Posts as the system takes them: with a JPEG each, as bytes, but for `bert`."""
        posts, side = self.texts(first, count), SHAPES[self.size]["pixels"]
        if self.system == "bert":
            return posts
        return [post.with_(image=_jpeg(int(post.id), side)) for post in posts]

    def model(self) -> TaggingModel:
        """A model of random weights, the same each time, that knows every word of the posts."""
        settings = {"system": self.system, **SHAPES[self.size]["model"]}
        if self.system == "bert":
            del settings["evidence"]
        torch.manual_seed(0)
        known = self.texts(0, 512)
        model = TaggingModel.create(parse_options(settings), [*known, *known])
        for blocks in (m for m in model.system.modules() if isinstance(m, ResNetBlocks)):
            blocks.frozen = True  # what published weights are trained with
            for layer in (one for stage in blocks.resnet.encoder.stages for one in stage.layers):
                # Branches weigh less than what goes around them: numbers do not grow with depth.
                nn.init.constant_(layer.layer[-1].normalization.weight, 0.25)
        return model

    def runs(self) -> list[list[Post]]:
        """The posts of each repeat."""
        return [self.given((i + 1) * self.posts, self.posts) for i in range(self.repeats)]


@cache
def _jpeg(number: int, side: int) -> bytes:
    rng, file = random.Random(f"benchmark/{number}"), io.BytesIO()
    image = draw(make_post(2 * number, Options()).shows, rng, side).image
    image.save(file, "JPEG", quality=rng.randint(75, 92))
    return file.getvalue()


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def seconds(call: Callable[..., object], *given: Any) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    call(*given)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def peak_gib(device: str) -> float:
    """The most memory that this process has held: that of a GPU if one is used."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (2**30 if platform.system() == "Darwin" else 2**20)


def machine(device: str = "cpu") -> dict[str, Any]:
    """Processor, threads and versions."""
    info = Path("/proc/cpuinfo")
    models = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    return {
        "processor": next(iter(models), platform.processor() or platform.machine()),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "rpbert")},
    }


def _saved(work: Work, folder: Path) -> dict[str, float]:
    """Writes the model as the backend reads it; returns how far that is from PyTorch."""
    if work.backend == "torch":
        work.model().save(folder)
        return {}
    from rpbert.backends.engines import export

    return export(work.model(), work.backend, folder, work.given(0, work.batch))


def _inference(work: Work, folder: Path, precision: Precision, growth: bool) -> dict[str, Any]:
    """Posts a second, latency, memory; then posts a second as batch and length of posts grow."""
    tagger = Tagger.from_pretrained(folder, work.device, precision, work.backend)

    def rate(posts: list[Post], batch: int = work.batch) -> float:
        tagger.predict_batch(posts[:batch], batch)  # engines prepare for a size they have not seen
        return len(posts) / seconds(tagger.predict_batch, posts, batch)

    tagger.predict_batch(work.given(0, 2 * work.batch), work.batch)
    rates = [rate(run) for run in work.runs()]
    tagger.predict_batch(work.given(0, 1))
    waits = [seconds(tagger.predict_batch, [post]) for post in work.given(0, 40)]
    p50, p95 = np.percentile(waits, (50, 95), method="inverted_cdf").tolist()
    found: dict[str, Any] = {
        "posts_per_second": spread(rates),
        "latency_seconds": {"p50": p50, "p95": p95},
        "peak_gib": peak_gib(work.device),
    }
    if growth:
        posts, few = work.given(0, 32), work.given(0, 2 * work.batch)
        found["batch"] = {str(size): rate(posts, size) for size in (1, 2, 4, 8, 16, 32)}
        found["length"] = {
            str(times): rate([Post.from_words(p.id, p.words * times, image=p.image) for p in few])
            for times in (1, 2, 4, 8)
        }
    return found


def _training(work: Work, precision: Precision, moments: Moments) -> dict[str, Any]:
    """Posts a second and memory, with the optimisers of both tasks."""
    set_seed(0)
    device: Literal["cpu", "auto"] = "cpu" if work.device == "cpu" else "auto"
    settings = TrainingSettings(
        precision=precision, moments=moments, batch_size=work.batch, device=device
    )
    model, posts = work.model(), work.given(0, work.batch * (work.repeats + 1))
    tasks: list[Task] = [TaggingTask(posts, settings.tagging)]
    if model.system.has_relation:
        tasks.insert(0, RelationTask(posts, settings.relation))
    schedule = Schedule(tasks, work.batch, 0, model.collator().lengths)
    rates: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name, repeatable(torch.device(work.device)):
        accelerator, folder = accelerator_for(settings, Path(name)), Path(name)
        trainer = Trainer(accelerator, model, schedule, settings, folder, StopSignals())
        trainer.system.train()
        for task in tasks:
            warm, *batches = map(trainer.collator.with_gold, schedule.batches(task, 1))
            trainer.step(task, warm)
            times = [seconds(trainer.step, task, batch) for batch in batches]
            rates[task.name] = spread([work.batch / taken for taken in times])
    return {"posts_per_second": rates, "peak_gib": peak_gib(work.device), "moments": moments}


def run(
    work: Work,
    precisions: Sequence[Precision],
    say: Callable[[str], None],
    *,
    training: bool = True,
    moments: Moments = "task",
    growth: bool = True,
) -> dict[str, Any]:
    """Measure inference and training; returns a JSON document.
    Raises InputError: a measurement failed."""

    def part(measure: Callable[..., Any], *given: Any) -> Any:
        shown = [str(one) for one in given if isinstance(one, str)]
        say(" ".join([measure.__name__.strip("_"), *shown]))
        return _in_a_process(measure, work.threads, *given)

    found: dict[str, Any] = {"work": asdict(work), "machine": part(machine, work.device)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "model")
        found["differences"] = part(_saved, work, folder)
        found["inference"] = {p: part(_inference, work, folder, p, growth) for p in precisions}
    trained = precisions if training else ()
    found["training"] = {p: part(_training, work, p, moments) for p in trained}
    return found


def _in_a_process(measure: Callable[..., Any], threads: int | None, *given: Any) -> Any:
    with ProcessPoolExecutor(1, get_context("spawn"), _start, (threads,)) as pool:
        try:
            return pool.submit(measure, *given).result()
        except Exception as error:
            where = f"benchmark, {measure.__name__.strip('_')}"
            raise InputError(where, reason_of(error), "a run to its end") from error


def _start(threads: int | None) -> None:
    sys.stdout = sys.stderr  # whatever libraries print is no result
    if threads:
        torch.set_num_threads(threads)
