"""The one door to what computes a system: the model itself, or another engine by its name."""

from __future__ import annotations

import torch

from rpbert.config.run import Backend, Precision
from rpbert.errors import InputError
from rpbert.models.saved import TaggingModel
from rpbert.models.tagger import System, TaggerOutput
from rpbert.modules.crf import LinearChainCRF
from rpbert.types import Batch


def system_for(model: TaggingModel, backend: Backend, precision: Precision, device: str) -> System:
    """What runs for inference, on the device; with ``torch`` in float32 it is the system itself.
    ``torch`` runs bf16 under autocast; biLSTM, gate and CRF keep float32. Raises InputError: the
    backend or the device cannot do it."""
    precision = resolved(precision, device)
    if precision not in ("fp32", "bf16"):
        raise InputError("precision", repr(precision), "auto, fp32 or bf16")
    if backend != "torch":
        from rpbert.backends.engines import ExportedSystem

        return ExportedSystem(model, backend, precision, device).eval()
    system = model.system.to(device).eval()
    return Autocast(system).eval() if precision == "bf16" else system


def device_for(backend: Backend, name: str | None = None) -> str:
    """The device by that name. Unless named it is a GPU if PyTorch computes and there is one; other
    engines take a GPU only by its name. Raises InputError: PyTorch has no such device here."""
    gpu = backend == "torch" and torch.cuda.is_available()
    chosen = name or ("cuda" if gpu else "cpu")
    try:
        torch.empty(0, device=chosen if backend == "torch" else "cpu")
    except (RuntimeError, AssertionError) as error:  # the latter where PyTorch is built without it
        there = " or ".join(["cpu", *(f"cuda:{n}" for n in range(torch.cuda.device_count()))])
        raise InputError("device", repr(name), there) from error
    return chosen


def resolved(precision: Precision, device: torch.device | str) -> Precision:
    """What ``auto`` is on a device: bf16 where it multiplies bfloat16, else fp32."""
    if precision != "auto":
        return precision
    kind = torch.device(device).type
    if kind == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = kind == "cpu" and (
            torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        )
    return "bf16" if native else "fp32"


class Autocast(System):
    """A system whose heavy parts are computed in bfloat16."""

    def __init__(self, system: System) -> None:
        super().__init__()
        self.system = system

    @property
    def crf(self) -> LinearChainCRF:
        """The CRF of the system."""
        return self.system.crf

    def forward(self, batch: Batch) -> TaggerOutput:
        """Tag a batch."""
        with torch.autocast(batch.word_mask.device.type, torch.bfloat16):
            output: TaggerOutput = self.system(batch)
        return output
