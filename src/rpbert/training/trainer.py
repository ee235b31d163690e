"""The loop that trains every system: the steps of Algorithm 1, scored after every epoch."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias, cast

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from rpbert.config.run import TrainingSettings
from rpbert.data.collate import Collator, ahead
from rpbert.errors import InputError
from rpbert.evaluation.scoring import relation_groups, score_relations, score_tags
from rpbert.inference import Decoded, Decoder
from rpbert.models.saved import TaggingModel
from rpbert.models.tagger import System
from rpbert.modules.embeddings import Lstm
from rpbert.stopping import StopSignals
from rpbert.storage.manifest import is_whole
from rpbert.training.checkpoint import Checkpoint, Checkpoints, Parts, Place, Progress, generators
from rpbert.training.progress import Reporter, TrainingResult
from rpbert.training.tasks import Schedule, Task, rate_factor, share_moments
from rpbert.types import Batch, Post

Record: TypeAlias = dict[str, Any]  # a line of RUN/metrics.jsonl


def moving_average(system: System, most: float) -> AveragedModel:
    """The exponential moving average of the weights, once `update_parameters` is called after each
    step, which at step t keeps min(`most`, (1 + t) / (10 + t)) of itself, so that the first steps
    soon fade (Polyak and Juditsky 1992). Buffers are those of the last step."""

    def follow(means: Any, values: Any, steps: Tensor | int) -> None:
        share = min(most, (1 + int(steps)) / (10 + int(steps)))
        torch._foreach_lerp_(means, values, 1 - share)

    average = AveragedModel(system, multi_avg_fn=follow)
    for module in average.modules():
        if isinstance(module, Lstm):
            module.flatten_parameters()  # cuDNN reads them from one piece of memory
    return average


class Trainer:
    """One loop for every system, which can be stopped after any step and resumed there.
    Several processes (``accelerate launch``) share each batch and add up their gradients, which are
    those of the whole batch: the sum of its losses over the number of posts that count."""

    def __init__(
        self,
        accelerator: Accelerator,
        model: TaggingModel,
        schedule: Schedule,
        settings: TrainingSettings,
        run: Path,
        stop: StopSignals,
        card: Callable[[TaggingModel, Record], str] = lambda *_: "",
    ) -> None:
        self.accelerator, self.model, self.schedule = accelerator, model, schedule
        self.settings, self.run, self.stop, self.card = settings, run, stop, card
        self.reporter = Reporter(run, settings.epochs, accelerator)
        self.length = settings.epochs, settings.patience
        self.system = model.system.to(accelerator.device)
        learnt = {group for task in schedule.tasks for group in task.rates}
        self.system.freeze(self.system.parameter_groups().keys() - learnt)
        chosen = settings.average
        self.average = moving_average(self.system, chosen.ema) if chosen else None
        self.collator: Collator = model.collator()
        self.optimizers = {t.name: t.optimizer(self.system, settings) for t in schedule.tasks}
        self.parts: Parts = {
            "system": self.system,
            **{f"optimizer-{name}": optimizer for name, optimizer in self.optimizers.items()},
            **({"average": self.average} if self.average else {}),
        }
        self.steps = {t.name: schedule.steps(t) * settings.epochs for t in schedule.tasks}
        self.rate_factors = {
            name: rate_factor(optimizer, self.steps[name], settings)
            for name, optimizer in self.optimizers.items()
        }
        if settings.moments == "shared":
            share_moments(self.optimizers.values())
        self.progress = Progress(schedule.fingerprint(), dict.fromkeys(self.optimizers, 0))
        self.checkpoints = Checkpoints(run / "checkpoints")
        self._saved: tuple[Place | None, float] = (None, time.monotonic())

    def resume(self) -> None:
        """Load the newest whole checkpoint; start from the beginning if there never was one."""
        checkpoint = self.checkpoints.newest(self.reporter.note)
        if checkpoint is not None:
            if checkpoint.progress.get("posts") != self.progress.posts:
                hint = "give the data as it was, or train into another --output"
                raise InputError(self.run, "other training posts", "those it began with", hint)
            self._restore(checkpoint)
            if self.progress.best[1] and not is_whole(self.run / "model"):
                self._restore_best_model(checkpoint)
        self.reporter.resume(self.progress.epoch, self.progress.step)

    def fit(self, dev: Sequence[Post]) -> TrainingResult:
        """Train to the last epoch; the best model by the development F1 goes to RUN/model.
        Raises KeyboardInterrupt: stopped by a signal, after a checkpoint; InputError: a checkpoint
        or model cannot be written, and the one before is whole."""
        progress, first = self.progress, self.progress.epoch
        started = time.monotonic() - progress.seconds
        with self.stop.held():
            while not (self.reporter.ended or progress.ended(*self.length)):
                number = progress.epoch + 1
                self._epoch(number, started)
                self._share_statistics()
                try:  # a signal stops scoring at once where no other process waits for this one
                    alone = self.accelerator.num_processes == 1
                    with self.stop.held(False) if alone else nullcontext():
                        scores = self._score(dev)
                except KeyboardInterrupt:
                    self._save()
                    raise
                progress.seconds = time.monotonic() - started
                best = f1_of(scores) > progress.best[0]
                if best:
                    progress.best = (f1_of(scores), number)
                record = {
                    "epoch": number,
                    "seconds": round(progress.seconds, 1),
                    "loss": progress.losses(),
                    **scores,
                    "images": self._images(),
                    "best": best,
                }
                if progress.epoch == first and self.collator.evidence.wanted:
                    self.reporter.evidence(record["images"])
                self.reporter.evaluated(record)
                progress.epoch, progress.step, progress.sums, progress.images = number, 0, {}, {}
                self._save(record if best else None)
                if self._should()[1]:
                    raise KeyboardInterrupt
        f1, epoch = progress.best
        return TrainingResult(self.run / "model", epoch, f1, progress.seconds)

    def _epoch(self, number: int, started: float) -> None:
        """Train the steps of an epoch that are not done yet."""
        progress = self.progress
        self.system.train()
        total = sum(self.schedule.steps(task) for task in self.schedule.tasks)
        left = islice(self.schedule.epoch(number), progress.step, None)
        with self.reporter.epoch(number, progress.step, total, progress.best[0]) as advance:
            for task, count, batch in ahead(self._collated(left)):
                losses, counted = self.step(task, batch).cpu()
                progress.step += 1
                self._check_finite(task, losses, progress.step == total)
                advance(task.name, progress.count(task.name, losses, counted), count)
                save, stop = self._should()
                if stop or (save and progress.step < total):
                    self._check_finite(task, losses, last=True)
                    progress.seconds = time.monotonic() - started
                    self._save()
                if stop:
                    raise KeyboardInterrupt

    def _check_finite(self, task: Task, losses: Tensor, last: bool) -> None:
        """Stop at a loss, or before an epoch is scored at a weight, that is no finite number."""
        lost = not losses.isfinite()
        if lost or (last and not all(p.isfinite().all() for p in self.system.parameters())):
            groups = self.optimizers[task.name].param_groups
            rates = ", ".join(f"{group['lr']:g}" for group in groups)
            place = f"step {self.progress.step:,} of epoch {self.progress.epoch + 1}"
            found = (
                f"{'a loss' if lost else 'a weight'} that is not finite in {place}, rates {rates}"
            )
            places = self.checkpoints.places()
            kept = f"{places[-1]} is kept" if places else "no checkpoint is there yet"
            hint = f"{kept}: lower the rates, or give training.clip_norm"
            raise InputError(f"training.{task.name}", found, "finite numbers", hint)

    def _collated(
        self, steps: Iterable[tuple[Task, list[Post]]]
    ) -> Iterator[tuple[Task, int, Batch | None]]:
        """Each step with its number of posts and this process's share of them, if it has any."""
        for task, posts in steps:
            share = posts[self.accelerator.process_index :: self.accelerator.num_processes]
            yield task, len(posts), self.collator.with_gold(share) if share else None

    def step(self, task: Task, batch: Batch | None) -> Tensor:
        """One step on this process's share. Returns the sum of losses and how many they are."""
        optimizer, name = self.optimizers[task.name], task.name
        step = self.progress.taken[name]
        self.progress.taken[name] = step + 1
        self.system.anneal(step / max(self.steps[name] - 1, 1))
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * self.rate_factors[name](step)

        losses = torch.zeros(0, device=self.accelerator.device)
        if batch is not None:
            batch = batch.to(self.accelerator.device)
            seen = self.progress.images.get(name, {})
            self.progress.images[name] = Counter(seen) + Counter(batch.image_status)
            with self.accelerator.autocast():
                losses = task.losses(self.system, batch)
        summed: Tensor = torch.stack([losses.detach().sum(), torch.tensor(len(losses)).to(losses)])
        summed = self.accelerator.reduce(summed, reduction="sum")
        if batch is not None:
            self.accelerator.backward(task.weight * losses.sum() / summed[1].clamp(min=1))
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if self.accelerator.num_processes > 1:
            for parameter in parameters:
                if parameter.grad is None:  # this process's share did not reach it
                    parameter.grad = torch.zeros_like(parameter)
                parameter.grad = self.accelerator.reduce(parameter.grad, reduction="sum")
        if self.settings.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(parameters, self.settings.clip_norm)
        optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.system)
        # The whole system: gradients also reach parameters that are another task's to update.
        self.system.zero_grad(set_to_none=True)
        return summed

    def _should(self) -> tuple[bool, bool]:
        """Whether to save and whether to stop after this step, the same in all processes."""
        every, minutes = self.settings.checkpoint_steps, self.settings.checkpoint_minutes
        save = every is not None and self.progress.step % every == 0
        save = save or time.monotonic() - self._saved[1] >= 60 * minutes
        stop = self.stop.should_stop
        if self.accelerator.num_processes > 1:
            wishes = torch.tensor([save, stop], device=self.accelerator.device).float()
            save, stop = (self.accelerator.reduce(wishes, reduction="sum") > 0).tolist()
        return save, stop

    def _averaged(self) -> TaggingModel:
        """The model with the weights that are scored and saved."""
        averaged = self.average.module if self.average is not None else self.system
        return replace(self.model, system=cast(System, averaged))

    def _score(self, dev: Sequence[Post]) -> Record:
        """Score the development posts, each once however many processes there are."""
        accelerator = self.accelerator
        share = list(dev[accelerator.process_index :: accelerator.num_processes])
        # One collator, and so one store of decoded images, for training and scoring.
        decoder = Decoder(self._averaged(), self.collator, accelerator.device)
        with accelerator.autocast():
            decoded = decoder.decode(share, self.settings.evaluation_batch_size)
        pairs: list[tuple[Post, Decoded]] = gather_object(list(zip(share, decoded, strict=True)))
        scores: Record = {"dev": None, "dev_relation": None}
        if self.system.tags_words:
            groups = relation_groups([p.relation for p, _ in pairs], [d.relation for _, d in pairs])
            gold, found = [post.tags or () for post, _ in pairs], [d.tags for _, d in pairs]
            scores["dev"] = asdict(score_tags(gold, found, groups))
        # Posts whose image could not be read do not count, as in the loss of Task#1.
        known = [pair for post, answer in pairs for pair in answer.known(post)]
        if known and self.system.has_relation:
            scores["dev_relation"] = asdict(score_relations(known))
        return scores

    def _share_statistics(self) -> None:
        """Average what each process gathered in its buffers, such as batch normalisation's."""
        if self.accelerator.num_processes > 1:
            for buffer in self.system.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(self.accelerator.reduce(buffer, reduction="mean"))

    def _images(self) -> dict[str, dict[str, int]]:
        """Image statuses of the epoch's posts by task, over all processes."""
        counts: dict[str, Counter[str]] = {}
        for own in gather_object([self.progress.images]):
            for name, seen in own.items():
                counts[name] = counts.get(name, Counter()) + Counter(seen)
        return {name: dict(counts[name]) for name in sorted(counts)}

    def _save(self, best: Record | None = None) -> None:
        """Write a checkpoint of now; before it the model, if `best` is the record of its epoch."""
        progress = self.progress
        place = Place(progress.epoch, progress.step)
        if place == self._saved[0]:
            return
        self._share_statistics()
        states: list[dict[str, Tensor]] = gather_object([generators()])
        rest = {**asdict(progress), "images": self._images()}
        if self.accelerator.is_main_process:
            checkpoint = Checkpoint.of(place, self.parts, states, rest)
            besides = [Place(progress.best[1])] if progress.best[1] else []
            try:
                if best is not None:
                    self._save_model(best)
                self.checkpoints.save(checkpoint, self.settings.keep_checkpoints, besides)
            except InputError as error:
                places = self.checkpoints.places()
                kept = f"{places[-1]} is kept" if places else "no checkpoint is there yet"
                hint = f"{kept}: free some space or repair the disk, then give --resume"
                raise InputError(error.where, error.found, error.expected, hint) from error
        self.accelerator.wait_for_everyone()
        self._saved = (place, time.monotonic())

    def _save_model(self, record: Record) -> None:
        f1, epoch = self.progress.best
        self.model.notes |= {"epoch": epoch, "dev_f1": f1}
        self.model.card = self.card(self.model, record)
        self._averaged().save(self.run / "model")

    def _restore(self, checkpoint: Checkpoint) -> None:
        self.progress = checkpoint.restore(self.parts, self.accelerator.process_index)
        if self.settings.moments == "shared":  # they were read for each task apart
            share_moments(self.optimizers.values())
        self._saved = (checkpoint.place, time.monotonic())

    def _restore_best_model(self, newest: Checkpoint) -> None:
        """Write the best model to RUN/model again, where it was lost or damaged."""
        folder, epoch = self.run / "model", self.progress.best[1]
        try:
            best = self.checkpoints.load(Place(epoch))
        except InputError:
            if self.progress.ended(*self.length):
                expected = "that of the finished run"
                raise InputError(folder, "no whole model", expected, "train anew") from None
            self.reporter.note(f"no whole model in {folder}: a later epoch's will be written there")
            self.progress.best = (-1.0, 0)
            return
        self._restore(best)
        if self.accelerator.is_main_process:
            self._save_model(self.reporter.record_of(epoch))
        self.reporter.note(f"no whole model in {folder}: written again from {best.place}")
        self._restore(newest)


def f1_of(scores: Record) -> float:
    """The F1 that chooses the best epoch: of the entities, else the macro F1 of the relation."""
    tags, relation = scores["dev"], scores["dev_relation"]
    return float(tags["strict"]["f1"] if tags else relation["macro_f1"] if relation else 0.0)
