"""Means of the weights along training, which are scored and saved in the place of the last ones.

Buffers are those of the last step: batch normalisation keeps the statistics it has gathered.
"""

from __future__ import annotations

from typing import Protocol, TypeAlias, cast

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from rpbert.config.run import TrainingSettings
from rpbert.models.tagger import System

Parameters: TypeAlias = tuple[Tensor, ...] | list[Tensor]


class Average(Protocol):
    """What is scored and saved of a system in training."""

    @property
    def system(self) -> System:
        """The one to score and save."""

    @property
    def kept(self) -> AveragedModel | None:
        """What a checkpoint holds of the mean, None without any."""

    def after_step(self) -> None:
        """Called after each step."""

    def after_epoch(self, number: int) -> None:
        """Called after each epoch, from 1; again where a run goes on from there."""


class LastWeights:
    """No mean: the system as it is."""

    kept = None

    def __init__(self, system: System) -> None:
        self.system = system

    def after_step(self) -> None:
        """Nothing."""

    def after_epoch(self, number: int) -> None:
        """Nothing."""


class MovingAverage:
    """The exponential moving average over all steps (Polyak and Juditsky 1992).

    The first steps, which are far from the last, are left behind sooner: at step t the mean keeps
    at most (1 + t) / (10 + t), as TensorFlow's ``ExponentialMovingAverage`` has it.

    Args:
        decay: share of itself that the mean keeps at a step.
    """

    def __init__(self, system: System, decay: float) -> None:
        def follow(means: Parameters, values: Parameters, steps: Tensor | int) -> None:
            share = min(decay, (1 + int(steps)) / (10 + int(steps)))
            # In place and all at once: a fifth of the time that new tensors take.
            torch._foreach_lerp_(means, values, 1 - share)

        self.followed = system
        self.kept = AveragedModel(system, multi_avg_fn=follow)

    @property
    def system(self) -> System:
        """The system of mean weights."""
        return cast(System, self.kept.module)

    def after_step(self) -> None:
        """Follow the weights."""
        self.kept.update_parameters(self.followed)

    def after_epoch(self, number: int) -> None:
        """Nothing."""


class EpochMean:
    """The mean of the weights after each of the last epochs (Izmailov et al. 2018).

    Args:
        last: how many epochs.
        of: epochs of the whole training.
    """

    def __init__(self, system: System, last: int, of: int) -> None:
        self.followed = system
        self.first = max(of - last, 0)
        self.kept = AveragedModel(system)

    @property
    def system(self) -> System:
        """The system of mean weights; before there is a mean, the one that is trained."""
        return cast(System, self.kept.module) if self.kept.n_averaged else self.followed

    def after_step(self) -> None:
        """Nothing."""

    def after_epoch(self, number: int) -> None:
        """Take the weights into the mean, once."""
        if self.kept.n_averaged < number - self.first:
            self.kept.update_parameters(self.followed)


def average_of(system: System, settings: TrainingSettings) -> Average:
    """The mean that the settings ask for."""
    chosen = settings.average
    if chosen is not None and chosen.ema is not None:
        return MovingAverage(system, chosen.ema)
    if chosen is not None and chosen.epochs is not None:
        return EpochMean(system, chosen.epochs, settings.epochs)
    return LastWeights(system)
