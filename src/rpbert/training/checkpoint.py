"""Checkpoints of a run: folders that are written whole or not at all, and never a pickle.

``epoch-0003`` is the state after three epochs, ``epoch-0003-step-000150`` after 150 steps of the
fourth. A checkpoint holds files of tensors, ``progress.json`` and a manifest
(`rpbert.storage.manifest`), which is written last; without one that holds it is no checkpoint.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rpbert.errors import InputError, reason_of
from rpbert.storage.manifest import folder_written_whole, verify

Tensors: TypeAlias = Mapping[str, Tensor]

_NAME = re.compile(r"epoch-(\d+)(?:-step-(\d+))?")
_PROGRESS = "progress.json"


@dataclass(frozen=True, order=True)
class Place:
    """Where a run stands: whole epochs, and steps taken of the one after them."""

    epoch: int
    step: int = 0

    def __str__(self) -> str:
        within = f"-step-{self.step:06d}" if self.step else ""
        return f"epoch-{self.epoch:04d}{within}"


@dataclass(frozen=True)
class Checkpoint:
    """What was saved at a place.

    Attributes:
        files: tensors by name, by the name of their file.
        progress: the rest, as JSON types.
    """

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
                there = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
                save_file(there, new / f"{name}.safetensors")
            (new / _PROGRESS).write_text(json.dumps(checkpoint.progress), encoding="utf-8")
        # What lies further on was passed over as damaged: this run has not been there.
        earlier = [place for place in self.places() if place <= checkpoint.place]
        kept = {*earlier[-keep:], *besides}
        for place in self.places():
            if place not in kept:
                shutil.rmtree(self.folder / str(place), ignore_errors=True)
        for left in self.folder.glob(".epoch-*"):  # of a process that was killed while saving
            shutil.rmtree(left, ignore_errors=True)

    def newest(self, note: Callable[[str], None]) -> Checkpoint | None:
        """The newest whole checkpoint, None where none was ever written.

        Args:
            note: told of each damaged one that is passed over.

        Raises:
            InputError: all that were written are damaged; the line names the newest.
        """
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
            raise InputError(
                damage[0].where, damage[0].found, "one whole checkpoint at least", "train anew"
            )
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
