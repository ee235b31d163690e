"""Checkpoints: folders that are whole or not there, never a pickle.
``epoch-0003`` is the state after three epochs, ``epoch-0003-step-000150`` after 150 steps of the
fourth. Each holds files of tensors, ``progress.json`` and a manifest, which is written last."""

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
Parts: TypeAlias = Mapping[str, nn.Module | torch.optim.Optimizer]
"""What a checkpoint holds the tensors of, by the name of the file."""

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

    @classmethod
    def of(
        cls, place: Place, parts: Parts, generators: Sequence[Tensors], progress: Mapping[str, Any]
    ) -> Checkpoint:
        """A checkpoint of now; `generators` are the random ones by process."""
        files = {"generators": _flat(dict(enumerate(generators)))}
        for name, part in parts.items():
            state = part.state_dict()
            files[name] = state if isinstance(part, nn.Module) else _flat(state["state"])
        return cls(place, files, progress)

    def restore(self, parts: Parts, process: int) -> Progress:
        """Load it into a process, and return how far the run has come."""
        try:
            for name, part in parts.items():
                tensors = dict(self.files[name])
                if isinstance(part, nn.Module):
                    part.load_state_dict(tensors)
                else:
                    state = _nested(tensors)
                    _check_moments(part, state)
                    part.load_state_dict({**part.state_dict(), "state": state})
            progress = Progress(**self.progress)
            progress.best = (float(progress.best[0]), int(progress.best[1]))
            states = _nested(self.files["generators"]).get(process, {})
            if "torch" in states:  # not where the run goes on with more processes
                torch.set_rng_state(states["torch"])
            if "cuda" in states and torch.cuda.is_available():
                torch.cuda.set_rng_state(states["cuda"])
        except (RuntimeError, LookupError, ValueError, TypeError) as error:
            where = f"checkpoint {self.place}"
            raise InputError(where, reason_of(error), "one of this configuration") from error
        if process > 0:  # the counts of all processes go on in the first
            progress.images = {}
        return progress


def _check_moments(optimizer: torch.optim.Optimizer, state: dict[int, dict[str, Tensor]]) -> None:
    """Raise a ValueError for moments of other shapes than the parameters, which PyTorch takes."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for number, moments in state.items():
        if any(m.ndim and m.shape != parameters[number].shape for m in moments.values()):
            raise ValueError(f"moments of another shape than parameter {number}")


def _flat(nested: Mapping[int, Mapping[str, Any]]) -> dict[str, Tensor]:
    """Tensors as ``number/name``."""
    of_all = nested.items()
    return {f"{i}/{k}": torch.as_tensor(value) for i, own in of_all for k, value in own.items()}


def _nested(tensors: Tensors) -> dict[int, dict[str, Tensor]]:
    nested: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split("/")
        nested.setdefault(int(number), {})[name] = value
    return nested


class Checkpoints:
    """The checkpoints in a folder, such as RUN/checkpoints."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, checkpoint: Checkpoint, keep: int, besides: Collection[Place] = ()) -> None:
        """Write a checkpoint, then drop all others but the last `keep` and those `besides`."""
        with folder_written_whole(self.folder / str(checkpoint.place)) as new:
            for name, tensors in checkpoint.files.items():
                on_cpu = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
                save_file(on_cpu, new / f"{name}.safetensors")
            (new / _PROGRESS).write_text(json.dumps(checkpoint.progress), encoding="utf-8")
        # Later ones were skipped as damaged when the run was resumed before them.
        earlier = [place for place in self.places() if place <= checkpoint.place]
        dropped = {*self.places()} - {*earlier[-keep:], *besides}
        half_written = self.folder.glob(".epoch-*")  # by a process that was killed
        for path in (*(self.folder / str(place) for place in dropped), *half_written):
            path.unlink() if path.is_file() else shutil.rmtree(path, ignore_errors=True)

    def newest(self, note: Callable[[str], None]) -> Checkpoint | None:
        """The newest whole checkpoint, None where none was ever written; notes what it skips."""
        damage: list[InputError] = []
        for place in reversed(self.places()):
            try:
                found = self.load(place)
            except InputError as fault:
                damage.append(fault)
                continue
            for passed in damage:
                note(f"{passed}; passed over for {place}")
            return found
        if damage:
            expected = "one whole checkpoint at least"
            raise InputError(damage[0].where, damage[0].found, expected, "train anew")
        return None

    def load(self, place: Place) -> Checkpoint:
        """The checkpoint of a place; an `InputError` where there is none, or it is damaged."""
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
    """How far a run has come: what a checkpoint holds beside tensors."""

    posts: str  # fingerprint of the training posts
    taken: dict[str, int]  # steps of each task, over all epochs
    epoch: int = 0  # whole epochs, scored and saved
    step: int = 0  # steps of the epoch after them
    best: tuple[float, int] = (-1.0, 0)  # development F1, and its epoch
    # Of that epoch's steps by task: the sum of losses and the number of posts, and how many of
    # this process's posts have each image status.
    sums: dict[str, list[float]] = field(default_factory=dict)
    images: dict[str, dict[str, int]] = field(default_factory=dict)
    seconds: float = 0.0  # of training

    def count(self, task: str, losses: Tensor, posts: Tensor) -> float:
        """Add the summed losses of a step; returns their mean."""
        total, number = self.sums.get(task, (0.0, 0.0))
        self.sums[task] = [total + float(losses), number + float(posts)]
        return float(losses) / max(float(posts), 1.0)

    def ended(self, epochs: int, patience: int | None) -> bool:
        """Whether all epochs are trained, or the last `patience` of them were no better."""
        return self.epoch >= min(epochs, self.best[1] + (patience or epochs))

    def losses(self) -> dict[str, float]:
        """The mean loss of each task in this epoch."""
        return {task: total / max(number, 1.0) for task, (total, number) in self.sums.items()}


def generators() -> dict[str, Tensor]:
    """The state of PyTorch's random generators, the only global ones that training draws from."""
    cuda = {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {}
    return {"torch": torch.get_rng_state(), **cuda}
