"""Where and how a checkpoint is written: folders that are whole or not there, never a pickle.

``epoch-0003`` is the state after three epochs, ``epoch-0003-step-000150`` after 150 steps of the
fourth. A checkpoint holds files of tensors, ``progress.json`` and a manifest
(`rpbert.storage.manifest`), which is written last; without a manifest that holds it is none.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rpbert.errors import InputError, reason_of
from rpbert.storage.manifest import folder_written_whole, verify

Tensors: TypeAlias = Mapping[str, Tensor]
Optimizers: TypeAlias = Mapping[str, torch.optim.Optimizer]
"""By the name of their task."""

_NAME = re.compile(r"epoch-(\d+)(?:-step-(\d+))?")
_PROGRESS = "progress.json"


@dataclass(frozen=True, order=True)
class Place:
    """A moment of a run: whole epochs, and steps of the one after them."""

    epoch: int
    step: int = 0

    def __str__(self) -> str:
        within = f"-step-{self.step:06d}" if self.step else ""
        return f"epoch-{self.epoch:04d}{within}"


@dataclass(frozen=True)
class Checkpoint:
    """What was saved at a place: tensors by file and name, and the rest as JSON types."""

    place: Place
    files: Mapping[str, Tensors]
    progress: Mapping[str, Any]


class Checkpoints:
    """The checkpoints in a folder, such as RUN/checkpoints."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, checkpoint: Checkpoint, keep: int, besides: Collection[Place] = ()) -> None:
        """Write a checkpoint, then drop all others but the last `keep` and those `besides`.

        Raises:
            InputError: the disk is full or fails; the checkpoints before are as they were.
        """
        with folder_written_whole(self.folder / str(checkpoint.place)) as new:
            for name, tensors in checkpoint.files.items():
                on_cpu = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
                save_file(on_cpu, new / f"{name}.safetensors")
            (new / _PROGRESS).write_text(json.dumps(checkpoint.progress), encoding="utf-8")
        # Later ones were passed over as damaged when the run was resumed before them.
        earlier = [place for place in self.places() if place <= checkpoint.place]
        dropped = {*self.places()} - {*earlier[-keep:], *besides}
        half_written = self.folder.glob(".epoch-*")  # by a process that was killed
        for path in (*(self.folder / str(place) for place in dropped), *half_written):
            shutil.rmtree(path, ignore_errors=True)

    def newest(self, note: Callable[[str], None]) -> Checkpoint | None:
        """The newest whole checkpoint, None where none was ever written.

        Args:
            note: called with a line for each damaged one that is passed over.

        Raises:
            InputError: all that were written are damaged; the line names the newest.
        """
        damage: list[InputError] = []
        for place in reversed(self.places()):
            try:
                found = self.load(place)
            except InputError as fault:
                damage.append(fault)
            else:
                for passed in damage:
                    note(f"{passed}; passed over for {place}")
                return found
        if damage:
            expected = "one whole checkpoint at least"
            raise InputError(damage[0].where, damage[0].found, expected, "train anew")
        return None

    def load(self, place: Place) -> Checkpoint:
        """The checkpoint of a place.

        Raises:
            InputError: there is none, or it is damaged.
        """
        folder = self.folder / str(place)
        listed = verify(folder, (_PROGRESS,), "resume from an earlier one, or train anew")
        try:
            tensors = [folder / name for name in listed if name.endswith(".safetensors")]
            files = {path.stem: load_file(path) for path in tensors}
            progress = json.loads((folder / _PROGRESS).read_text("utf-8"))
        except (OSError, ValueError, SafetensorError) as error:
            raise InputError(folder, reason_of(error), "a whole checkpoint") from error
        return Checkpoint(place, files, progress)

    def places(self) -> list[Place]:
        """What is there, whole or not, the earliest first."""
        names = (_NAME.fullmatch(path.name) for path in self.folder.glob("epoch-*"))
        return sorted(Place(int(name[1]), int(name[2] or 0)) for name in names if name)


@dataclass
class Progress:
    """How far a run has come: what a checkpoint holds beside tensors.

    Attributes:
        posts: fingerprint of the training posts; the batches are drawn from them by the seed.
        taken: steps of each task, over all epochs.
        epoch: whole epochs, scored and saved.
        step: steps of the epoch after them.
        best: the best development F1, and its epoch.
        sums: of that epoch's steps by task, the sum of losses and the number of posts.
        images: of those posts by task, how many have each image status; in this process.
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

    def count(self, task: str, losses: Tensor, posts: Tensor) -> float:
        """Add the summed losses of a step; returns their mean."""
        total, number = self.sums.get(task, (0.0, 0.0))
        self.sums[task] = [total + float(losses), number + float(posts)]
        return float(losses) / max(float(posts), 1.0)

    def losses(self) -> dict[str, float]:
        """The mean loss of each task in this epoch."""
        return {task: total / max(number, 1.0) for task, (total, number) in self.sums.items()}

    def next_epoch(self) -> None:
        """Begin the next epoch."""
        self.epoch, self.step, self.sums, self.images = self.epoch + 1, 0, {}, {}


def generators() -> dict[str, Tensor]:
    """The state of PyTorch's random generators, the only global ones that training draws from."""
    cuda = {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {}
    return {"torch": torch.get_rng_state(), **cuda}


def tensors_of(
    system: nn.Module,
    average: nn.Module | None,
    optimizers: Optimizers,
    states: Sequence[Tensors],
) -> dict[str, Tensors]:
    """The tensors of a checkpoint by file; `states` are the random generators by process."""
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
    average: nn.Module | None,
    optimizers: Optimizers,
    process: int,
) -> Progress:
    """Load a checkpoint into a process, and return how far the run has come.

    Raises:
        InputError: the checkpoint is of another configuration.
    """
    try:
        system.load_state_dict(dict(checkpoint.files["system"]))
        if average is not None:
            average.load_state_dict(dict(checkpoint.files["average"]))
        for task, optimizer in optimizers.items():
            _set_moments(optimizer, checkpoint.files[f"optimizer-{task}"])
        progress = Progress(**checkpoint.progress)
        progress.best = (float(progress.best[0]), int(progress.best[1]))
        states = checkpoint.files["generators"]
        if f"{process}/torch" in states:  # not where the run goes on with more processes
            torch.set_rng_state(states[f"{process}/torch"])
        if f"{process}/cuda" in states and torch.cuda.is_available():
            torch.cuda.set_rng_state(states[f"{process}/cuda"])
    except (RuntimeError, LookupError, ValueError, TypeError) as error:
        where = f"checkpoint {checkpoint.place}"
        raise InputError(where, reason_of(error), "one of this configuration") from error
    if process > 0:  # the counts of all processes go on in the first
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
