"""Time, memory, and what this machine can do at most."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from rpbert.backends.packed import onednn_available

SIDE = 2048  # of the matrices that are multiplied to find the machine's best
_STATUS = Path("/proc/self/status")


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def seconds(call: Callable[..., object], *given: Any) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    call(*given)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that at least a share of them does not exceed (nearest rank)."""
    return float(np.percentile(values, 100 * share, method="inverted_cdf"))


@contextmanager
def counting() -> Iterator[FlopCounterMode]:
    """Counts products and convolutions; also those of attention, which a fused kernel hides."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        yield counter


class PeakMemory:
    """The most memory this process holds from now on, in GiB: that of a GPU if one is used."""

    def __init__(self, device: str) -> None:
        self.device = device
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        elif _STATUS.exists():
            Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak is counted afresh

    def read(self) -> float:
        """GiB."""
        if self.device == "cuda":
            return torch.cuda.max_memory_allocated() / 2**30
        if _STATUS.exists():
            lines = _STATUS.read_text().splitlines()
            found = next(line for line in lines if line.startswith("VmHWM"))
            return int(found.split()[1]) / 2**20
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used / (2**30 if platform.system() == "Darwin" else 2**20)


def machine(device: str) -> dict[str, Any]:
    """Processor, threads and versions."""
    import transformers

    import rpbert

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "rpbert": rpbert.__version__,
    }


def products(device: str, side: int = SIDE) -> dict[str, float]:
    """GFLOP/s of a product of square matrices by precision, the best of each way and of seven."""
    ways: dict[str, list[Callable[[], object]]] = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        left, right = (torch.randn(side, side, device=device).to(dtype) for _ in "lr")
        ways[name] = [partial(torch.mm, left, right)]
    if device == "cpu" and onednn_available():
        ways["int8"] = [_product_of_bytes(side)]
    with torch.inference_mode():
        return {
            name: 2 * side**3 / 1e9 / min(seconds(call) for call in calls for _ in range(8))
            for name, calls in ways.items()
        }


def _product_of_bytes(side: int) -> Callable[[], object]:
    rows = torch.randint(0, 255, (side, side), dtype=torch.uint8)
    weight = torch.ops.onednn.qlinear_prepack(rows.view(torch.int8), None)
    scale, zeros = torch.ones(side), torch.zeros(side, dtype=torch.long)

    def product() -> object:
        return torch.ops.onednn.qlinear_pointwise(
            rows, 1.0, 128, weight, scale, zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )

    return product


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
