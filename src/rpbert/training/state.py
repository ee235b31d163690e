"""All that a run is at a moment of its training, as a checkpoint holds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from rpbert.errors import InputError, reason_of
from rpbert.training.checkpoint import Checkpoint, Place, Tensors
from rpbert.training.repeatable import set_generators


@dataclass
class Progress:
    """How far a run has come: what a checkpoint holds beside tensors.

    Attributes:
        posts: fingerprint of the training posts; the batches are drawn from them by the seed.
        taken: steps of each task, over all epochs.
        epoch: whole epochs, scored and saved.
        step: steps of the epoch after them.
        best: the best development F1, and its epoch.
        sums: of that epoch's steps by task, the sum of losses and how many posts they are of.
        images: of those posts by task, what became of their images; in this process.
        seconds: of training so far.
    """

    posts: str
    taken: dict[str, int]
    epoch: int = 0
    step: int = 0
    best: tuple[float, int] = (-1.0, 0)
    sums: dict[str, list[float]] = field(default_factory=dict)
    images: dict[str, dict[str, int]] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def place(self) -> Place:
        """Where a checkpoint of now is of."""
        return Place(self.epoch, self.step)

    def count(self, task: str, losses: Tensor, posts: Tensor) -> float:
        """Add the summed losses of a step; returns their mean."""
        total, number = self.sums.get(task, (0.0, 0.0))
        self.sums[task] = [total + float(losses), number + float(posts)]
        return float(losses) / max(float(posts), 1.0)

    def losses(self) -> dict[str, float]:
        """The mean loss of each task in this epoch."""
        return {task: total / max(number, 1.0) for task, (total, number) in self.sums.items()}

    def next_epoch(self) -> None:
        """Leave an epoch behind."""
        self.epoch, self.step, self.sums, self.images = self.epoch + 1, 0, {}, {}


def files_of(
    system: nn.Module,
    optimizers: Mapping[str, torch.optim.Optimizer],
    states: Sequence[Tensors],
    average: nn.Module | None = None,
) -> dict[str, Tensors]:
    """The tensors of a checkpoint by file.

    Args:
        optimizers: by task.
        states: the random generators of each process.
        average: the mean of the weights so far.
    """
    return {
        "system": system.state_dict(),
        **({"average": average.state_dict()} if average else {}),
        "generators": {
            f"{i}/{name}": state[name] for i, state in enumerate(states) for name in state
        },
        **{f"optimizer-{task}": _moments(optimizer) for task, optimizer in optimizers.items()},
    }


def restore(
    checkpoint: Checkpoint,
    system: nn.Module,
    optimizers: Mapping[str, torch.optim.Optimizer],
    process: int,
    average: nn.Module | None = None,
) -> Progress:
    """Put all of a process where a checkpoint has it, and return how far the run has come.

    Raises:
        InputError: the checkpoint is of another configuration.
    """
    try:
        system.load_state_dict(dict(checkpoint.files["system"]))
        if average is not None:
            average.load_state_dict(dict(checkpoint.files["average"]))
        for task, optimizer in optimizers.items():
            _set_moments(optimizer, checkpoint.files[f"optimizer-{task}"])
        own = f"{process}/"
        states = {
            name.removeprefix(own): state
            for name, state in checkpoint.files["generators"].items()
            if name.startswith(own)
        }
        if states:  # none where the run goes on with more processes
            set_generators(states)
        progress = Progress(**checkpoint.progress)
        progress.best = (float(progress.best[0]), int(progress.best[1]))
    except (RuntimeError, LookupError, ValueError, TypeError) as error:
        where = f"checkpoint {checkpoint.place}"
        raise InputError(where, reason_of(error), "one of this configuration") from error
    if process > 0:  # what all processes counted goes on in the first
        progress.images = {}
    return progress


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's moments as ``parameter number/name``."""
    state = optimizer.state_dict()["state"]
    return {
        f"{number}/{name}": torch.as_tensor(value)
        for number, moments in state.items()
        for name, value in moments.items()
    }


def _set_moments(optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
    state = optimizer.state_dict()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split("/")
        if value.dim() and value.shape != parameters[int(number)].shape:
            raise ValueError(f"moments of shape {tuple(value.shape)} for parameter {number}")
        moments.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": moments, "param_groups": state["param_groups"]})
