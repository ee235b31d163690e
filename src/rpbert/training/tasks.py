"""Algorithm 1: the two tasks, what each updates at which rate, and the order of their batches."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from rpbert.config.run import Rates, TrainingSettings
from rpbert.data.collate import shuffled_batches
from rpbert.errors import InputError
from rpbert.models.tagger import System
from rpbert.training.relation_sources import MismatchedPairs
from rpbert.types import Batch, Post


class Task(ABC):
    """A loss, the posts it is computed on, and the parameters it updates.

    Args:
        posts: those it always learns from.
        rates: learning rate of each group of parameters.
    """

    name: ClassVar[str]
    head: ClassVar[str]
    """The parameter group (`System.parameter_groups`) that is this task's alone."""
    shared: ClassVar[tuple[str, ...]] = ("encoder", "projection", "visual")
    """The parameter groups that both tasks update, each at the rate of its name."""

    weight: float = 1.0
    """What the loss is multiplied by."""

    def __init__(self, posts: Sequence[Post], rates: Rates) -> None:
        self.posts = posts
        self.rates = rates

    def __len__(self) -> int:
        return len(self.posts)

    def of_epoch(self, number: int) -> Sequence[Post]:
        """The posts of an epoch, as many in each."""
        return self.posts

    @abstractmethod
    def losses(self, system: System, batch: Batch) -> Tensor:
        """The loss of each post that counts. Shape: (at most B,)."""

    @property
    def parts(self) -> set[str]:
        """The parameter groups that learn in this task: those whose rate is above 0."""
        return {part for part in (self.head, *self.shared) if self.rate(part) > 0}

    def rate(self, part: str) -> float:
        """The learning rate of a parameter group in this task."""
        chosen: float = getattr(self.rates, "head" if part == self.head else part)
        return chosen

    def optimizer(self, system: System, settings: TrainingSettings) -> torch.optim.Optimizer:
        """An optimiser of this task's parameters alone; groups of rate 0 are left out."""
        groups: dict[tuple[str, float], dict[str, Any]] = {}
        heights = system.heights() if settings.layer_decay < 1 else {}
        learning = (
            (part, parameter)
            for part, parameters in system.parameter_groups().items()
            for parameter in parameters
            if part in self.parts and parameter.requires_grad
        )
        for part, parameter in learning:
            rate = self.rate(part) * settings.layer_decay ** heights.get(parameter, 0)
            group = groups.setdefault((part, rate), {"params": [], "lr": rate, "rate": rate})
            group["params"].append(parameter)
        if not groups:
            raise InputError(f"training.{self.name}", "rates of 0 only", "a rate above 0")
        kinds: dict[str, type[torch.optim.Adam]] = {
            "adam": torch.optim.Adam,
            "adamw": torch.optim.AdamW,
        }
        return kinds[settings.optimizer](list(groups.values()), fused=True)


class RelationTask(Task):
    """Task#1, text-image relation classification: Eq. 7, Algorithm 1, lines 2 to 6."""

    name = "relation"
    head = "relation"

    def __init__(
        self,
        posts: Sequence[Post],
        rates: Rates,
        pairs: MismatchedPairs | None = None,
        weight: float = 1.0,
    ) -> None:
        super().__init__(posts, rates)
        self.pairs = pairs
        self.weight = weight

    def __len__(self) -> int:
        return len(self.posts) + (len(self.pairs) if self.pairs else 0)

    def of_epoch(self, number: int) -> Sequence[Post]:
        """The posts with a relation, and the pairs made for this epoch."""
        return [*self.posts, *(self.pairs.of_epoch(number) if self.pairs else ())]

    def losses(self, system: System, batch: Batch) -> Tensor:
        """Cross entropy of the relation, of the posts whose image (or caption) could be read.

        Each is multiplied by the weight that its source has.
        """
        if batch.relations is None:
            raise ValueError("Task#1 needs the relation of every post")
        shown = batch.has_evidence
        adds = batch.relations[shown]
        target = torch.stack([1 - adds, adds], dim=1)  # a label, or a probability
        logits = system.relation_logits(batch)[shown]
        weights = target.new_tensor([post.relation_weight for post in batch.posts])[shown]
        return weights * torch.nn.functional.cross_entropy(logits, target, reduction="none")


class TaggingTask(Task):
    """Task#2, MNER via relation propagation: Eq. 9, Algorithm 1, lines 7 to 13.

    The relation classifier is not among its parameters, though the gradient flows through r.
    """

    name = "tagging"
    head = "head"

    def losses(self, system: System, batch: Batch) -> Tensor:
        """Negative log-likelihood of each post's tags."""
        losses = system(batch).losses
        if losses is None:
            raise ValueError("Task#2 needs the tags of every post")
        return losses  # type: ignore[no-any-return]


def share_moments(optimizers: Iterable[torch.optim.Optimizer]) -> None:
    """Let optimisers of the same parameters keep one pair of moments for each, at any time."""
    shared: dict[Tensor, dict[str, Any]] = {}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                own = optimizer.state.get(parameter, {})
                optimizer.state[parameter] = shared.setdefault(parameter, own)


@dataclass(frozen=True)
class Schedule(ABC):
    """The order in which the tasks' batches are trained on."""

    tasks: Sequence[Task]
    batch_size: int
    seed: int
    lengths: Callable[[Sequence[Post]], Sequence[int]] | None = None
    """How long posts are for the system, so that equals meet in a batch; None: their words."""

    @abstractmethod
    def epoch(self, number: int) -> Iterator[tuple[Task, list[Post]]]:
        """The steps of an epoch, in order; an epoch's batches depend on nothing before it."""

    def batches(self, task: Task, number: int) -> list[list[Post]]:
        """A task's batches of an epoch: each of its posts once."""
        seed = f"{self.seed}/{task.name}/{number}"
        posts = task.of_epoch(number)
        lengths = self.lengths(posts) if self.lengths else None
        return shuffled_batches(posts, self.batch_size, seed, lengths)

    def fingerprint(self) -> str:
        """Tells the posts of the tasks, in their order, from any others."""
        digest = hashlib.sha256()
        for task in self.tasks:
            for post in task.of_epoch(1):
                shown = (task.name, post.id, post.words, post.tags, post.relation)
                digest.update(ascii(shown).encode())
        return digest.hexdigest()

    def steps(self, task: Task) -> int:
        """Steps of a task in an epoch."""
        return -(-len(task) // self.batch_size)


class BlockSchedule(Schedule):
    """Algorithm 1 as printed: in every epoch all batches of Task#1, then all of Task#2."""

    def epoch(self, number: int) -> Iterator[tuple[Task, list[Post]]]:
        """Task after task."""
        for task in self.tasks:
            for posts in self.batches(task, number):
                yield task, posts


class InterleavedSchedule(Schedule):
    """The tasks take turns, each spread evenly over the epoch.

    Algorithm 1 ends an epoch with a long block that moves the encoder and not the relation
    classifier, which then reads an encoder it was not trained on. At the paper's rate of 1e-6
    that hardly matters; at higher rates turns keep the two together.
    """

    def epoch(self, number: int) -> Iterator[tuple[Task, list[Post]]]:
        """Turn by turn; of two steps that fall together the earlier task's comes first."""
        turns = []
        for order, task in enumerate(self.tasks):
            batches = self.batches(task, number)
            turns += [
                ((step + 0.5) / len(batches), order, posts) for step, posts in enumerate(batches)
            ]
        for _, order, posts in sorted(turns, key=lambda turn: turn[:2]):
            yield self.tasks[order], posts


SCHEDULES: dict[str, type[Schedule]] = {
    "blocks": BlockSchedule,
    "interleaved": InterleavedSchedule,
}
