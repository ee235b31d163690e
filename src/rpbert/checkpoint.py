"""Checkpoints of a run: written whole or not at all, and never a pickle.

A checkpoint is a folder ``epoch-0003`` with the weights, the state of each optimiser and of every
random generator, and ``state.json``, which is written last and makes it complete.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rpbert.errors import InputError


def save_checkpoint(
    folder: Path,
    epoch: int,
    system: nn.Module,
    optimizers: Mapping[str, torch.optim.Optimizer],
    progress: Mapping[str, Any],
    keep: int,
) -> None:
    """Write the checkpoint of a finished epoch and drop all but the last `keep`.

    Args:
        folder: RUN/checkpoints.
        progress: what else is needed to go on, as JSON types.
    """
    final = folder / f"epoch-{epoch:04d}"
    new = folder / f".{final.name}.new-{os.getpid()}"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    save_file(_contiguous(system.state_dict()), new / "system.safetensors")
    for name, optimizer in optimizers.items():
        save_file(_flat(optimizer), new / f"optimizer-{name}.safetensors")
    save_file(_generators(), new / "generators.safetensors")
    state = {"epoch": epoch, "python": random.getstate(), **progress}
    (new / "state.json").write_text(json.dumps(state), encoding="utf-8")
    shutil.rmtree(final, ignore_errors=True)
    new.rename(final)
    for old in _complete(folder)[:-keep]:
        shutil.rmtree(old)


def load_checkpoint(
    folder: Path, system: nn.Module, optimizers: Mapping[str, torch.optim.Optimizer]
) -> dict[str, Any] | None:
    """Restore the newest checkpoint and return its progress, None where there is none yet.

    Raises:
        InputError: the checkpoint is damaged or of another configuration.
    """
    for unfinished in folder.glob(".epoch-*"):  # of a process that was killed while saving
        shutil.rmtree(unfinished)
    complete = _complete(folder)
    if not complete:
        return None
    newest = complete[-1]
    try:
        state: dict[str, Any] = json.loads((newest / "state.json").read_text("utf-8"))
        system.load_state_dict(load_file(newest / "system.safetensors"))
        for name, optimizer in optimizers.items():
            _restore(optimizer, load_file(newest / f"optimizer-{name}.safetensors"))
        generators = load_file(newest / "generators.safetensors")
    except (RuntimeError, OSError, LookupError, ValueError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise InputError(
            newest,
            reason,
            "a whole checkpoint of this configuration",
            "remove this folder to resume from the one before, or train anew",
        ) from error
    torch.set_rng_state(generators["torch"])
    if "cuda" in generators and torch.cuda.is_available():
        torch.cuda.set_rng_state(generators["cuda"])
    version, internal, gauss = state.pop("python")
    random.setstate((version, tuple(internal), gauss))
    return state


def _complete(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("epoch-*/state.json"))


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _flat(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's moments as ``parameter number / name``."""
    state = optimizer.state_dict()["state"]
    return _contiguous(
        {
            f"{number}/{name}": torch.as_tensor(value)
            for number, moments in state.items()
            for name, value in moments.items()
        }
    )


def _restore(optimizer: torch.optim.Optimizer, flat: Mapping[str, Tensor]) -> None:
    state = optimizer.state_dict()
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in flat.items():
        number, name = key.split("/")
        moments.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": moments, "param_groups": state["param_groups"]})


def _generators() -> dict[str, Tensor]:
    states = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states
