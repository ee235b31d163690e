"""The loop that trains every system: the steps of Algorithm 1, scored after every epoch."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from rpbert.config.run import TrainingSettings
from rpbert.data.collate import Collator, ahead
from rpbert.errors import InputError
from rpbert.evaluation.scoring import (
    RelationScores,
    TagScores,
    relation_groups,
    score_relations,
    score_tags,
)
from rpbert.inference import Decoded, Decoder
from rpbert.storage.manifest import is_whole
from rpbert.storage.model_folder import TaggingModel
from rpbert.training.averaging import average_of
from rpbert.training.card import CardWriter
from rpbert.training.checkpoint import Checkpoint, Checkpoints, Place
from rpbert.training.progress import METRICS, Reporter, record_of
from rpbert.training.repeatable import generators
from rpbert.training.state import Progress, files_of, restore
from rpbert.training.stopping import StopSignals
from rpbert.training.tasks import Schedule, Task, share_moments
from rpbert.types import Batch, Post


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
    """The best epoch by the development F1, and where its model lies.

    Attributes:
        f1: of the entities, or of a system that tags none the macro F1 of the relation.
    """

    model: Path
    epoch: int
    f1: float
    seconds: float


class Trainer:
    """One loop for every system, which can be stopped after any step and goes on from there.

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
        stop: StopSignals,
        card: CardWriter | None = None,
    ) -> None:
        self.accelerator = accelerator
        self.card = card
        self.model, self.schedule, self.settings, self.run = model, schedule, settings, run
        self.stop = stop
        self.system = model.system.to(self.accelerator.device)
        learnt = set().union(*(task.parts for task in schedule.tasks))
        self.system.freeze(self.system.parameter_groups().keys() - learnt)
        self.average = average_of(self.system, settings)
        self.collator: Collator = model.collator()
        self.optimizers = {t.name: t.optimizer(self.system, settings) for t in schedule.tasks}
        if settings.moments == "shared":
            share_moments(self.optimizers.values())
        self.progress = Progress(schedule.fingerprint(), dict.fromkeys(self.optimizers, 0))
        self.checkpoints = Checkpoints(run / "checkpoints")
        self._saved: tuple[Place | None, float] = (None, time.monotonic())

    def resume(self, reporter: Reporter) -> None:
        """Go on from the newest whole checkpoint; from the start if there never was one.

        Raises:
            InputError: it is of other posts or settings, all are damaged, or a finished run's
                model is lost.
        """
        checkpoint = self.checkpoints.newest(reporter.note)
        if checkpoint is not None:
            if checkpoint.progress.get("posts") != self.progress.posts:
                hint = "give the data as it was, or train into another --output"
                raise InputError(self.run, "other training posts", "those it began with", hint)
            self._restore(checkpoint)
            if self.progress.best[1] and not is_whole(self.run / "model"):
                self._bring_back_model(checkpoint, reporter)
        reporter.resume(self.progress.epoch, self.progress.step)

    def fit(self, dev: Sequence[Post], reporter: Reporter) -> TrainingResult:
        """Train to the last epoch; the best model by the development F1 goes to RUN/model.

        Raises:
            KeyboardInterrupt: stopped by a signal; what was done is in a checkpoint.
            InputError: a checkpoint or model cannot be written; the one before is whole.
        """
        started = time.monotonic() - self.progress.seconds
        first = self.progress.epoch
        with self.stop.held():
            while self.progress.epoch < self.settings.epochs:
                self._epoch(reporter, started)
                self._share_statistics()
                self.average.after_epoch(self.progress.epoch + 1)
                tags, relation = self._scored(dev)
                images = self._images()
                if self.progress.epoch == first and self.collator.evidence.wanted:
                    _say_evidence(images, reporter)
                self.progress.seconds = time.monotonic() - started
                number = self.progress.epoch + 1
                f1 = tags.strict.f1 if tags else relation.macro_f1 if relation else 0.0
                improved = f1 > self.progress.best[0]
                if improved:
                    self.progress.best = (f1, number)
                reporter.evaluated(
                    {
                        "epoch": number,
                        "seconds": round(self.progress.seconds, 1),
                        "loss": self.progress.losses(),
                        "dev": tags.to_dict() if tags else None,
                        "dev_relation": relation.to_dict() if relation else None,
                        "images": images,
                        "best": improved,
                    }
                )
                self.progress.next_epoch()
                self._save(improved)
        f1, epoch = self.progress.best
        return TrainingResult(self.run / "model", epoch, f1, self.progress.seconds)

    def _epoch(self, reporter: Reporter, started: float) -> None:
        """Train what is left of an epoch."""
        progress, number = self.progress, self.progress.epoch + 1
        self.system.train()
        total = sum(self.schedule.steps(task) for task in self.schedule.tasks)
        left = islice(self.schedule.epoch(number), progress.step, None)
        with reporter.epoch(number, progress.step, total, progress.best[0]) as advance:
            for task, count, batch in ahead(self._packed(left)):
                losses, counted = self.step(task, batch).cpu()
                progress.step += 1
                advance(task.name, progress.count(task.name, losses, counted), count)
                save, stop = self._wishes()
                if stop or (save and progress.step < total):
                    progress.seconds = time.monotonic() - started
                    self._checkpoint()
                if stop:
                    raise KeyboardInterrupt

    def _packed(
        self, steps: Iterable[tuple[Task, list[Post]]]
    ) -> Iterator[tuple[Task, int, Batch | None]]:
        """Each step with its number of posts and this process's share of them, if it has one."""
        for task, posts in steps:
            share = posts[self.accelerator.process_index :: self.accelerator.num_processes]
            yield task, len(posts), self.collator.with_gold(share) if share else None

    def step(self, task: Task, batch: Batch | None) -> Tensor:
        """One step of one task. Returns the sum of losses and how many posts they are of.

        Args:
            batch: this process's share, None where there are fewer posts than processes.
        """
        optimizer = self.optimizers[task.name]
        total = self.schedule.steps(task) * self.settings.epochs
        step = self.progress.taken[task.name]
        self.progress.taken[task.name] = step + 1
        self.system.anneal(step / max(total - 1, 1))
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * rate_factor(step, total, self.settings)

        losses = torch.zeros(0, device=self.accelerator.device)
        if batch is not None:
            batch = batch.to(self.accelerator.device)
            seen = self.progress.images.get(task.name, {})
            self.progress.images[task.name] = Counter(seen) + Counter(batch.image_status)
            with self.accelerator.autocast():
                losses = task.losses(self.system, batch)
        summed: Tensor = torch.stack([losses.detach().sum(), torch.tensor(len(losses)).to(losses)])
        summed = self.accelerator.reduce(summed, reduction="sum")
        if batch is not None:
            self.accelerator.backward(task.weight * losses.sum() / summed[1].clamp(min=1))
        self._add_gradients(optimizer)
        if self.settings.clip_norm is not None:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, self.settings.clip_norm)
        optimizer.step()
        self.average.after_step()
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

    def _wishes(self) -> tuple[bool, bool]:
        """Whether to save and whether to stop after this step, the same in all processes."""
        every, minutes = self.settings.checkpoint_steps, self.settings.checkpoint_minutes
        save = every is not None and self.progress.step % every == 0
        save = save or time.monotonic() - self._saved[1] >= 60 * minutes
        stop = self.stop.wanted
        if self.accelerator.num_processes > 1:
            wishes = torch.tensor([save, stop], device=self.accelerator.device).float()
            save, stop = (self.accelerator.reduce(wishes, reduction="sum") > 0).tolist()
        return save, stop

    def _scored(self, dev: Sequence[Post]) -> tuple[TagScores | None, RelationScores | None]:
        """Score; a signal stops that at once where no other process waits for this one."""
        alone = self.accelerator.num_processes == 1
        try:
            with self.stop.released() if alone else nullcontext():
                return self._score(dev)
        except KeyboardInterrupt:
            self._checkpoint()
            raise

    def _score(self, dev: Sequence[Post]) -> tuple[TagScores | None, RelationScores | None]:
        """Score the development posts, each once however many processes there are."""
        accelerator = self.accelerator
        share = list(dev[accelerator.process_index :: accelerator.num_processes])
        # One collator, and so one store of decoded images, for training and scoring.
        decoder = Decoder(self.model, self.collator, accelerator.device, self.average.system)
        with accelerator.autocast():
            decoded = decoder.decode(share, self.settings.evaluation_batch_size)
        pairs: list[tuple[Post, Decoded]] = gather_object(list(zip(share, decoded, strict=True)))
        tags = None
        if self.system.tags_words:
            gold, found = [post.tags or () for post, _ in pairs], [d.tags for _, d in pairs]
            groups = relation_groups(
                [post.relation for post, _ in pairs], [d.relation for _, d in pairs]
            )
            tags = score_tags(gold, found, groups)
        # Task#1 knows nothing of posts whose image could not be read, as in its loss.
        known = [pair for post, answer in pairs for pair in answer.known(post)]
        if not known or not self.system.has_relation:
            return tags, None
        return tags, score_relations([int(gold > 0.5) for gold, _ in known], [r for _, r in known])

    def _share_statistics(self) -> None:
        """Average what each process gathered in its buffers, such as batch normalisation's."""
        if self.accelerator.num_processes > 1:
            for buffer in self.system.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(self.accelerator.reduce(buffer, reduction="mean"))

    def _images(self) -> dict[str, dict[str, int]]:
        """What became of the images of the epoch's posts, over all processes."""
        parts: list[dict[str, dict[str, int]]] = gather_object([self.progress.images])
        names = sorted({name for part in parts for name in part})
        summed = {name: sum((Counter(p.get(name, {})) for p in parts), Counter()) for name in names}
        return {name: dict(counts) for name, counts in summed.items()}

    def _save(self, improved: bool) -> None:
        """Save a finished epoch, then stop where that was wished meanwhile."""
        if improved and self.accelerator.is_main_process:
            self._save_model()
        self._checkpoint()
        if self._wishes()[1]:
            raise KeyboardInterrupt

    def _save_model(self) -> None:
        f1, epoch = self.progress.best
        self.model.notes |= {"epoch": epoch, "dev_f1": f1}
        if self.card is not None:
            self.model.card = self.card(self.model, record_of(self.run / METRICS, epoch))
        try:
            replace(self.model, system=self.average.system).save(self.run / "model")
        except InputError as error:
            raise self._nothing_lost(error) from error

    def _checkpoint(self) -> None:
        """Save the state of now, unless that is done."""
        place = self.progress.place
        if place == self._saved[0]:
            return
        self._share_statistics()
        states: list[dict[str, Tensor]] = gather_object([generators()])
        progress = {**asdict(self.progress), "images": self._images()}
        if self.accelerator.is_main_process:
            files = files_of(self.system, self.optimizers, states, self.average.kept)
            best = [Place(self.progress.best[1])] if self.progress.best[1] else []
            try:
                keep = self.settings.keep_checkpoints
                self.checkpoints.save(Checkpoint(place, files, progress), keep, best)
            except InputError as error:
                raise self._nothing_lost(error) from error
        self.accelerator.wait_for_everyone()
        self._saved = (place, time.monotonic())

    def _nothing_lost(self, error: InputError) -> InputError:
        """What could not be written, and what the run goes on from."""
        places = self.checkpoints.places()
        kept = f"{places[-1]} is kept" if places else "no checkpoint is there yet"
        hint = f"{kept}: free some space or repair the disk, then give --resume"
        return InputError(error.where, error.found, error.expected, hint)

    def _restore(self, checkpoint: Checkpoint) -> None:
        """Take over all of a checkpoint."""
        process = self.accelerator.process_index
        average = self.average.kept
        self.progress = restore(checkpoint, self.system, self.optimizers, process, average)
        if self.settings.moments == "shared":  # they were read for each task apart
            share_moments(self.optimizers.values())
        self._saved = (checkpoint.place, time.monotonic())

    def _bring_back_model(self, newest: Checkpoint, reporter: Reporter) -> None:
        """Have the best model in RUN/model again, where it was lost or damaged."""
        folder, epoch = self.run / "model", self.progress.best[1]
        try:
            best = self.checkpoints.load(Place(epoch))
        except InputError:
            if self.progress.epoch == self.settings.epochs:
                expected = "that of the finished run"
                raise InputError(folder, "no whole model", expected, "train anew") from None
            reporter.note(f"no whole model in {folder}: the best of the epochs to come goes there")
            self.progress.best = (-1.0, 0)
            return
        self._restore(best)
        if self.accelerator.is_main_process:
            self._save_model()
        reporter.note(f"no whole model in {folder}: written again from {best.place}")
        self._restore(newest)


def _say_evidence(images: dict[str, dict[str, int]], reporter: Reporter) -> None:
    for task, counts in images.items():
        shown = ", ".join(f"{n:,} {status}" for status, n in sorted(counts.items()))
        reporter.note(f"evidence of {task}: {shown}")
