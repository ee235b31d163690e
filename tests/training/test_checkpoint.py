"""Checkpoints: whole or not there, whatever the disk does; the newest whole one is resumed."""

from __future__ import annotations

import json
import resource
import shutil
import signal
from functools import partial
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rpbert.errors import InputError
from rpbert.models.saved import TaggingModel
from rpbert.storage.manifest import recover
from rpbert.training.checkpoint import Checkpoint, Checkpoints, Place
from tests.conftest import tiny
from tests.killing import FAULTS, KILLED, REFUSED, FaultyDisk, outcome

MODELS = tiny("bilstm_crf"), tiny("bilstm_crf")
MODELS[1].notes["second"] = True


def checkpoint(epoch: int, step: int = 0) -> Checkpoint:
    values = {"weights": torch.full((100,), float(epoch)), "steps": torch.tensor([step])}
    return Checkpoint(Place(epoch, step), {"system": values, "generators": values}, {"at": epoch})


def same(found: Checkpoint | None, expected: Checkpoint) -> bool:
    assert found is not None
    pairs = zip(sorted(found.files.items()), sorted(expected.files.items()), strict=True)
    return (found.place, found.progress) == (expected.place, expected.progress) and all(
        one == other and all(torch.equal(a[name], b[name]) for name in a.keys() | b.keys())
        for (one, a), (other, b) in pairs
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_last_ones_and_the_best_stay_as_plain_tensors_and_json(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path)
    for epoch, step in ((0, 5), (1, 0), (1, 5), (2, 0), (2, 5), (3, 0)):
        kept.save(checkpoint(epoch, step), 2, [Place(1)])
    assert names(tmp_path) == ["epoch-0001", "epoch-0002-step-000005", "epoch-0003"]
    folder = tmp_path / "epoch-0003"
    files = ["generators.safetensors", "manifest.json", "progress.json", "system.safetensors"]
    assert names(folder) == files
    assert json.loads((folder / "progress.json").read_text()) == {"at": 3}
    assert torch.equal(load_file(folder / "system.safetensors")["weights"], torch.full((100,), 3.0))
    # What the manifest does not list is not read.
    shutil.copy(folder / "system.safetensors", folder / "more.safetensors")
    assert same(kept.newest(print), checkpoint(3))
    places = [Place(9, 99), Place(9, 1_000_000), Place(10), Place(10, 2), Place(10, 1_000_000)]
    assert sorted(places) == places  # by number, not by name


def test_a_damaged_newest_is_passed_over_with_a_note_and_written_anew(tmp_path: Path) -> None:
    kept, notes = Checkpoints(tmp_path), list[str]()
    for epoch in (1, 2):
        kept.save(checkpoint(epoch), 2)
    weights = tmp_path / "epoch-0002" / "system.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert same(kept.newest(notes.append), checkpoint(1))
    (note,) = notes
    assert str(weights) in note
    assert "passed over for epoch-0001" in note
    kept.save(checkpoint(1, 7), 1)
    assert names(tmp_path) == ["epoch-0001-step-000007"]  # the damaged one is no reserve
    kept.save(checkpoint(2), 2)
    assert same(kept.newest(notes.append), checkpoint(2))
    (tmp_path / "epoch-0001-step-000007" / "progress.json").unlink()
    (tmp_path / "epoch-0002" / "progress.json").unlink()
    with pytest.raises(InputError, match=r"epoch-0002/progress\.json: found no such file"):
        kept.newest(print)


def save(model: bool, below: Path, second: bool) -> None:
    """Save a checkpoint or a model, the first or one over it."""
    if model:
        MODELS[second].save(below / "model")
    else:
        Checkpoints(below).save(checkpoint(1, 5 * second), 2)


def replaced(model: bool, below: Path) -> bool:
    """Whether the new one is there; it or the one before is whole, and saving goes on."""
    if not model:
        found = Checkpoints(below).newest(lambda note: pytest.fail(f"half-written: {note}"))
        assert same(found, checkpoint(1)) or same(found, checkpoint(1, 5))
        Checkpoints(below).save(checkpoint(2), 2)
        assert names(below)[-1] == "epoch-0002"
        assert not list(below.glob(".*"))
        return found is not None and found.place.step == 5
    recover(below / "model")  # as resuming does
    loaded = TaggingModel.load(below / "model")
    weights = MODELS["second" in loaded.notes].system.state_dict()
    for name, tensor in loaded.system.state_dict().items():
        assert torch.equal(tensor, weights[name])
    return "second" in loaded.notes


@pytest.mark.parametrize("model", [False, True], ids=["checkpoint", "model"])
def test_a_disk_that_fails_in_a_save_leaves_the_one_before(model: bool, tmp_path: Path) -> None:
    """Each fault, at each third operation."""

    def over(disk: FaultyDisk) -> None:
        with disk.in_place():
            save(model, disk.below, second=True)

    counted = FaultyDisk(tmp_path / "counted", -1, "full")
    save(model, counted.below, second=False)
    over(counted)
    assert counted.count > 10
    new = 0
    for at, fault in list(product(range(counted.count), FAULTS))[::3]:
        disk = FaultyDisk(tmp_path / f"{at}-{fault}", at, fault)
        save(model, disk.below, second=False)
        code = outcome(partial(over, disk))
        assert code == (KILLED if fault in ("kill", "power") else REFUSED), (at, fault)
        new += replaced(model, disk.below)
    assert new > 0  # some come when all is on the disk


def test_a_folder_that_cannot_be_renamed_is_kept(tmp_path: Path) -> None:
    """Without `recover`: the process lives on."""
    counted = FaultyDisk(tmp_path, -1, "full")
    MODELS[0].save(tmp_path / "model")
    with counted.in_place():
        MODELS[0].save(tmp_path / "model")
    for back in (2, 3):  # the new name and, before it, the old one away
        disk = FaultyDisk(tmp_path, counted.count - back, "full")
        with disk.in_place(), pytest.raises(InputError):
            MODELS[0].save(tmp_path / "model")
        TaggingModel.load(tmp_path / "model")
        assert names(tmp_path) == ["model"]


def test_what_the_system_refuses_below_python_is_the_same_one_line(tmp_path: Path) -> None:
    """Past the limit of a file's size the system itself refuses the writes of safetensors."""
    kept = Checkpoints(tmp_path)
    kept.save(checkpoint(1), 2)
    large = Checkpoint(Place(2), {"system": {"weights": torch.zeros(100_000)}}, {})

    def save() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        kept.save(large, 2)

    assert outcome(save) == REFUSED
    assert same(kept.newest(pytest.fail), checkpoint(1))
    assert names(tmp_path) == ["epoch-0001"]
