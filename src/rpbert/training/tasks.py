"""Algorithm 1: the two tasks, what each updates at which rate, and the order of their batches."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import get_scheduler

from rpbert.config.run import Rates, TrainingSettings
from rpbert.data.collate import shuffled_batches
from rpbert.errors import InputError
from rpbert.models.tagger import System
from rpbert.training.relation_sources import MismatchedPairs
from rpbert.types import Batch, Post


class Task(ABC):
    """A loss, its weight, the posts it is computed on, and the parameters it updates."""

    name: ClassVar[str]  # in settings and records
    head: ClassVar[str]  # the parameter group that this task alone updates

    def __init__(
        self,
        posts: Sequence[Post],
        rates: Rates,
        pairs: MismatchedPairs | None = None,
        weight: float = 1.0,
    ) -> None:
        self.posts, self.pairs, self.weight = posts, pairs, weight
        named = {"head": self.head}
        self.rates: dict[str, float] = {named.get(k, k): rate for k, rate in rates if rate > 0}
        """The learning rate of each parameter group that learns in this task."""

    def __len__(self) -> int:
        return len(self.posts) + (len(self.pairs) if self.pairs else 0)

    def of_epoch(self, number: int) -> Sequence[Post]:
        """The posts of an epoch, as many in each: the given ones, and pairs made for it."""
        return [*self.posts, *(self.pairs.of_epoch(number) if self.pairs else ())]

    @abstractmethod
    def losses(self, system: System, batch: Batch) -> Tensor:
        """The loss of each post that counts. Shape: (at most B,)."""

    def optimizer(self, system: System, settings: TrainingSettings) -> torch.optim.Optimizer:
        """An optimiser of this task's parameters alone; groups of rate 0 are left out."""
        groups: list[dict[str, Any]] = []
        for group, parameters in system.parameter_groups().items():
            learning = [parameter for parameter in parameters if parameter.requires_grad]
            if group in self.rates and learning:
                groups.append({"params": learning, "lr": self.rates[group]})
        if not groups:
            raise InputError(f"training.{self.name}", "rates of 0 only", "a rate above 0")
        kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
        return kind(groups, fused=True)


class RelationTask(Task):
    """Task#1, text-image relation classification: Eq. 7, Algorithm 1, lines 2 to 6."""

    name = "relation"
    head = "relation"

    def losses(self, system: System, batch: Batch) -> Tensor:
        """Cross entropy, times the weight of its source, of each post with evidence.
        Shape: (posts with evidence,)."""
        assert batch.relations is not None
        shown = batch.has_evidence
        adds = batch.relations[shown]
        target = torch.stack([1 - adds, adds], dim=1)  # a label, or a probability
        logits = system.relation_logits(batch)[shown]
        weights = target.new_tensor([post.relation_weight for post in batch.posts])[shown]
        return weights * torch.nn.functional.cross_entropy(logits, target, reduction="none")


class TaggingTask(Task):
    """Task#2, MNER via relation propagation: Eq. 9, Algorithm 1, lines 7 to 13.
    The relation classifier is not among its parameters, though the gradient flows through r."""

    name = "tagging"
    head = "head"

    def __init__(
        self,
        posts: Sequence[Post],
        rates: Rates,
        agreement: float | None = None,
        evidence_dropout: float = 0.0,
    ) -> None:
        super().__init__(posts, rates)
        self.agreement, self.evidence_dropout = agreement, evidence_dropout

    def losses(self, system: System, batch: Batch) -> Tensor:
        """Negative log-likelihood of each post's tags. With `agreement` a post that has evidence is
        also read as text alone, whose own loss is added, and how far its tags diverge from those
        with evidence, which teach it (Wang et al. 2022, ITA, over tag sequences). Shape: (B,)."""
        if self.evidence_dropout:
            dropped = torch.rand(len(batch)) < self.evidence_dropout
            batch = batch.without_evidence(dropped.to(batch.word_mask.device))
        seen = system(batch)
        losses: Tensor = seen.losses
        if self.agreement is None:
            return losses
        alone = system(batch.without_evidence())
        apart = system.crf.divergence(seen.emissions, alone.emissions, batch.word_mask)
        added: Tensor = batch.has_evidence * (alone.losses + self.agreement * apart)
        return losses + added


def share_moments(optimizers: Iterable[torch.optim.Optimizer]) -> None:
    """Let optimisers of the same parameters keep one pair of moments for each."""
    shared: dict[Tensor, dict[str, Any]] = {}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                own = optimizer.state.get(parameter, {})
                optimizer.state[parameter] = shared.setdefault(parameter, own)


def rate_factor(
    optimizer: torch.optim.Optimizer, steps: int, settings: TrainingSettings
) -> Callable[[int], float]:
    """What the rates of an optimiser (``initial_lr``) are multiplied by at each of its steps.
    Linear warm-up, then the decay. transformers warms up from 0; here the first step learns."""
    warm = int(settings.warmup * steps)
    name = "constant_with_warmup" if settings.decay == "constant" else settings.decay
    (factor, *_) = get_scheduler(name, optimizer, warm, steps).lr_lambdas
    return lambda step: factor(step + 1 if step < warm else step)


@dataclass(frozen=True)
class Schedule:
    """The order in which the tasks' batches are trained on.
    Without `interleaved` it is Algorithm 1 as printed: in every epoch all batches of Task#1, then
    all of Task#2, which moves the encoder and not the relation classifier that reads it. At the
    paper's rate of 1e-6 that hardly matters; at higher rates turns keep the two together."""

    tasks: Sequence[Task]
    batch_size: int
    seed: int
    lengths: Callable[[Sequence[Post]], Sequence[int]] | None = None  # of posts, for the system
    interleaved: bool = False

    def epoch(self, number: int) -> Iterator[tuple[Task, list[Post]]]:
        """The steps of an epoch, in order; interleaved tasks are spread evenly over it."""
        turns = []
        for order, task in enumerate(self.tasks):
            batches = self.batches(task, number)
            for step, posts in enumerate(batches):
                place = (step + 0.5) / len(batches) if self.interleaved else 0
                turns.append((place, order, posts))
        for _, order, posts in sorted(turns, key=lambda turn: turn[:2]):
            yield self.tasks[order], posts

    def batches(self, task: Task, number: int) -> list[list[Post]]:
        """A task's batches of an epoch: each of its posts once."""
        posts = task.of_epoch(number)
        lengths = self.lengths(posts) if self.lengths else None
        return shuffled_batches(
            posts, self.batch_size, f"{self.seed}/{task.name}/{number}", lengths
        )

    def fingerprint(self) -> str:
        """Tells the posts of the tasks, in their order, from any others."""
        digest = hashlib.sha256()
        for task in self.tasks:
            for post in task.of_epoch(1):
                content = (task.name, post.id, post.words, post.tags, post.relation)
                digest.update(ascii(content).encode())
        return digest.hexdigest()

    def steps(self, task: Task) -> int:
        """Steps of a task in an epoch."""
        return -(-len(task) // self.batch_size)
