"""One training loop for every system: the steps of Algorithm 1, scored after every epoch."""

from __future__ import annotations

import atexit
import math
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import gather_object
from torch import Tensor

from rpbert.checkpoint import load_checkpoint, save_checkpoint
from rpbert.config import RunSettings, TrainingSettings, read_yaml, write_yaml
from rpbert.data import Post
from rpbert.data.collate import Collator
from rpbert.data.readers import open_data
from rpbert.data.words import SPLITTERS
from rpbert.errors import InputError
from rpbert.inference import Decoded, Decoder
from rpbert.models import parse_options
from rpbert.models.saved import TaggingModel, recover
from rpbert.progress import Reporter
from rpbert.repeatable import repeatable, seed_everything
from rpbert.scoring import RelationScores, TagScores, score_relations, score_tags
from rpbert.tasks import SCHEDULES, RelationTask, Schedule, TaggingTask, Task


def rate_factor(step: int, total: int, settings: TrainingSettings) -> float:
    """What a rate is multiplied by at a step: linear warm-up, then the decay."""
    warm = int(settings.warmup * total)
    if step < warm:
        return (step + 1) / warm
    left = (total - step) / max(total - warm, 1)
    return {
        "constant": 1.0,
        "linear": left,
        "cosine": (1 - math.cos(math.pi * left)) / 2,  # Loshchilov and Hutter 2017, Eq. 5
    }[settings.decay]


@dataclass(frozen=True)
class TrainingResult:
    """The best epoch by the development F1, and where its model lies."""

    model: Path
    epoch: int
    f1: float
    seconds: float


class Trainer:
    """One loop for every system.

    Several processes (``accelerate launch``) share each batch and add up their gradients, which
    are those of the whole batch: the sum of its losses over the number of posts that count.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: TaggingModel,
        schedule: Schedule,
        settings: TrainingSettings,
        run: Path,
    ) -> None:
        self.accelerator = accelerator
        self.model, self.schedule, self.settings, self.run = model, schedule, settings, run
        self.system = model.system.to(self.accelerator.device)
        learnt = set().union(*(task.parts for task in schedule.tasks))
        self.system.freeze({part for part, _ in self.system.parts()} - learnt)
        self.collator: Collator = model.collator()
        # One collator, and so one store of decoded images, for both.
        self.decoder = Decoder(model, self.collator, self.accelerator.device)
        self.optimizers = {t.name: t.optimizer(self.system, settings) for t in schedule.tasks}
        self.taken = dict.fromkeys(self.optimizers, 0)
        self.best = (-1.0, 0)  # F1 and epoch
        self.finished = 0  # epochs
        self.images: dict[str, Counter[str]] = {}  # what became of the images, by task

    def resume(self, reporter: Reporter) -> None:
        """Go on after the last epoch that was finished; from the start if there is none."""
        state = load_checkpoint(self.run / "checkpoints", self.system, self.optimizers)
        if state is not None:
            self.finished, self.taken = state["epoch"], state["taken"]
            self.best = (state["best"][0], state["best"][1])
        best = self.run / "model"
        if self.finished and not (best / "manifest.json").is_file():
            if self.finished == self.settings.epochs:
                raise InputError(best, "no model", "that of the finished run", "train anew")
            reporter.note(f"no model in {best}: the best of the epochs to come goes there")
            self.best = (-1.0, 0)
        reporter.resume(self.finished)

    def fit(self, dev: Sequence[Post], reporter: Reporter) -> TrainingResult:
        """Train to the last epoch; the best model by the development F1 goes to RUN/model."""
        started = time.monotonic()
        for number in range(self.finished + 1, self.settings.epochs + 1):
            losses = self._epoch(number, reporter)
            tags, relation = self._score(dev)
            images = self._images()
            if number == self.finished + 1:
                for task, counts in images.items():
                    shown = ", ".join(f"{n:,} {status}" for status, n in sorted(counts.items()))
                    reporter.note(f"images of {task}: {shown}")
            improved = tags.strict.f1 > self.best[0]
            if improved:
                self.best = (tags.strict.f1, number)
            reporter.evaluated(
                {
                    "epoch": number,
                    "seconds": round(time.monotonic() - started, 1),
                    "loss": losses,
                    "dev": tags.to_dict(),
                    "dev_relation": relation.to_dict() if relation else None,
                    "images": images,
                    "best": improved,
                }
            )
            if self.accelerator.is_main_process:
                self._save(number, improved)
            self.accelerator.wait_for_everyone()
        f1, epoch = self.best
        return TrainingResult(self.run / "model", epoch, f1, time.monotonic() - started)

    def _epoch(self, number: int, reporter: Reporter) -> dict[str, float]:
        """Train one epoch; returns the mean loss of each task."""
        self.system.train()
        self.images = {name: Counter() for name in self.optimizers}
        sums = {name: torch.zeros(2) for name in self.optimizers}
        total = sum(self.schedule.steps(task) for task in self.schedule.tasks)
        with reporter.epoch(number, total, self.best[0]) as advance:
            for task, posts in self.schedule.epoch(number):
                step = self._step(task, posts)
                sums[task.name] += step.cpu()
                advance(task.name, float(step[0] / step[1].clamp(min=1)), len(posts))
        return {name: float(s[0] / s[1].clamp(min=1)) for name, s in sums.items()}

    def _step(self, task: Task, posts: Sequence[Post]) -> Tensor:
        """One step of one task. Returns the sum of losses and how many posts they are of."""
        optimizer = self.optimizers[task.name]
        total = self.schedule.steps(task) * self.settings.epochs
        step = self.taken[task.name]
        self.taken[task.name] = step + 1
        self.system.anneal(step / max(total - 1, 1))
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * rate_factor(step, total, self.settings)

        share = posts[self.accelerator.process_index :: self.accelerator.num_processes]
        losses = torch.zeros(0, device=self.accelerator.device)
        if share:
            batch = self.collator.with_gold(share).to(self.accelerator.device)
            self.images[task.name].update(batch.image_status)
            with self.accelerator.autocast():
                losses = task.losses(self.system, batch)
        summed: Tensor = torch.stack([losses.detach().sum(), torch.tensor(len(losses)).to(losses)])
        summed = self.accelerator.reduce(summed, reduction="sum")
        if share:
            self.accelerator.backward(losses.sum() / summed[1].clamp(min=1))
        self._add_gradients(optimizer)
        if self.settings.clip_norm is not None:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, self.settings.clip_norm)
        optimizer.step()
        # The whole system: gradients also reach parameters that are another task's to update.
        self.system.zero_grad(set_to_none=True)
        return summed

    def _add_gradients(self, optimizer: torch.optim.Optimizer) -> None:
        if self.accelerator.num_processes == 1:
            return
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:  # this process's share did not reach it
                    parameter.grad = torch.zeros_like(parameter)
                parameter.grad = self.accelerator.reduce(parameter.grad, reduction="sum")

    def _score(self, dev: Sequence[Post]) -> tuple[TagScores, RelationScores | None]:
        """Score the development posts, each once however many processes there are."""
        accelerator = self.accelerator
        self._share_statistics()
        share = list(dev[accelerator.process_index :: accelerator.num_processes])
        with accelerator.autocast():
            decoded = self.decoder.decode(share, self.settings.evaluation_batch_size)
        pairs: list[tuple[Post, Decoded]] = gather_object(list(zip(share, decoded, strict=True)))
        tags = score_tags([post.tags or () for post, _ in pairs], [d.tags for _, d in pairs])
        # Task#1 knows nothing of posts whose image could not be read, as in its loss.
        known = [
            (p.relation, d.relation)
            for p, d in pairs
            if p.relation is not None and d.image == "used"
        ]
        if not known or not self.system.has_relation:
            return tags, None
        return tags, score_relations(
            [int(gold > 0.5) for gold, _ in known], [float(r or 0.0) for _, r in known]
        )

    def _share_statistics(self) -> None:
        """Average what each process gathered in its buffers, such as batch normalisation's."""
        if self.accelerator.num_processes > 1:
            for buffer in self.system.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(self.accelerator.reduce(buffer, reduction="mean"))

    def _images(self) -> dict[str, dict[str, int]]:
        """What became of the images of the epoch's posts, over all processes."""
        parts: list[dict[str, Counter[str]]] = gather_object([self.images])
        return {name: dict(sum((part[name] for part in parts), Counter())) for name in self.images}

    def _save(self, number: int, improved: bool) -> None:
        if improved:
            self.model.notes |= {"epoch": number, "dev_f1": self.best[0]}
            self.model.save(self.run / "model")
        save_checkpoint(
            self.run / "checkpoints",
            number,
            self.system,
            self.optimizers,
            {"taken": self.taken, "best": self.best},
            self.settings.keep_checkpoints,
        )


def train(settings: RunSettings, run: Path, *, resume: bool = False) -> TrainingResult:
    """Train the system that `settings` describe and write RUN.

    Raises:
        InputError: settings, data or RUN cannot be used.
    """
    options = parse_options(settings.model)
    accelerator = _accelerator(settings.training)
    complete = settings.model_copy(update={"model": options.model_dump(mode="json")})
    if accelerator.is_main_process:
        _claim(run, resume)
    seed_everything(settings.training.seed)
    source = open_data(settings.data.path)
    posts, dev = list(source.read("train")), list(source.read("dev"))
    _need_tags(posts, f"{settings.data.path}, train")
    _need_tags(dev, f"{settings.data.path}, dev")
    others = dev + (list(source.read("test")) if "test" in source.splits else [])
    reporter = Reporter(run, settings.training, shown=accelerator.is_main_process)
    model = TaggingModel.create(options, posts, others)
    tasks: list[Task] = []
    if model.system.has_relation:
        labelled, why_none = _relation_posts(settings, posts, model)
        if labelled:
            tasks.append(RelationTask(labelled, settings.training.relation))
        else:
            reporter.note(
                f"{why_none}: Task#1 is skipped, and the gate learns from Task#2's gradient "
                "through BERT alone"
            )
    else:
        unread = "; data.relations is not read" if settings.data.relations else ""
        reporter.note(f"no relation classifier in this system: Task#1 is skipped{unread}")
    tasks.append(TaggingTask(posts, settings.training.tagging))
    for task in tasks:
        reporter.note(f"Task {task.name}: {len(task.posts):,} posts")
    chosen = SCHEDULES[settings.training.schedule]
    schedule = chosen(tasks, settings.training.batch_size, settings.training.seed)
    trainer = Trainer(accelerator, model, schedule, settings.training, run)
    if accelerator.is_main_process:
        run.mkdir(parents=True, exist_ok=True)
        _keep_settings(complete, run / "config.yaml")
    accelerator.wait_for_everyone()
    if resume:
        trainer.resume(reporter)
    with reporter, repeatable(accelerator.device):
        return trainer.fit(dev, reporter)


def _accelerator(settings: TrainingSettings) -> Accelerator:
    # Accelerate keeps one state a process, and a second run in it may want another precision.
    AcceleratorState._reset_state()
    accelerator = Accelerator(
        mixed_precision="bf16" if settings.precision == "bf16" else "no",
        cpu=settings.device == "cpu",
    )
    if accelerator.num_processes > 1:
        # Threads of the process group that outlive the interpreter can abort it.
        atexit.register(accelerator.state.destroy_process_group)
    return accelerator


def _relation_posts(
    settings: RunSettings, posts: Sequence[Post], model: TaggingModel
) -> tuple[list[Post], str]:
    """Task#1's posts, those of `data.relations` or else of the training split; or why none."""
    candidates: Sequence[Post] = posts
    where = settings.data.relations
    if where is not None:
        source = open_data(where, SPLITTERS[model.vocabulary.marks])
        split = next((name for name in ("train", "all") if name in source.splits), None)
        if split is None:
            raise InputError(where, f"splits {', '.join(source.splits)}", "a training split")
        candidates = list(source.read(split))
    labelled = [post for post in candidates if post.relation is not None]
    # Task#1 reads no tags, and those of other data may be of other types.
    evidence = model.collator().evidence
    shown = [post.with_(tags=None) for post in labelled if evidence.has(post)]
    if where is not None and not shown:
        found = f"no post with both {evidence.wanted} and relation"
        raise InputError(where, found, "relation labels")
    why = f"relation labels but no {evidence.wanted}" if labelled else "no relation labels"
    return shown, why


def _need_tags(posts: Sequence[Post], where: str) -> None:
    if not posts:
        raise InputError(where, "no post", "tagged posts")
    for post in posts:
        if post.tags is None:
            raise InputError(post.origin or post.id, "no tags", "tags or entities for training")


def _keep_settings(settings: RunSettings, path: Path) -> None:
    """Write RUN/config.yaml; a run that goes on must go on with the settings it began with."""
    if path.exists():
        begun = read_yaml(path)
        for block, keys in settings.model_dump(mode="json").items():
            if begun.get(block) != keys:
                changed = (
                    [k for k in keys if begun[block].get(k) != keys[k]]
                    if isinstance(keys, dict)
                    else []
                )
                raise InputError(
                    path,
                    f"other settings of {block} {', '.join(changed)}",
                    "those the run began with",
                    "resume with the same settings, or train into another --output",
                )
    write_yaml(settings, path)


def _claim(run: Path, resume: bool) -> None:
    """See that RUN can be written and is no other run; it is made once the run can begin."""
    begun = (run / "metrics.jsonl").exists() or (run / "config.yaml").exists()
    if begun and not resume:
        raise InputError(
            run, "an earlier run", "a new folder", "give --resume to go on or another --output"
        )
    if resume and not begun:
        raise InputError(run, "no run", "the folder of a run to resume", "leave out --resume")
    if resume:
        recover(run / "model")
    there = next(folder for folder in (run, *run.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise InputError(there, "no folder that can be written", "one for RUN")
