"""Where the time of a call goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

SHOWN = 15


def profiled(call: Callable[[], object], posts: int) -> dict[str, Any]:
    """The operations that take most time by themselves, of a call that has run before.

    Args:
        posts: of a call.
    """
    call()
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as seen:
        call()
    rows = [(_own_time(event), event) for event in seen.key_averages()]
    total = sum(time for time, _ in rows) or 1.0
    rows.sort(key=lambda row: -row[0])
    return {
        "seconds_per_post": total / 1e6 / posts,
        "operations": [
            {"name": event.key, "share": time / total, "calls": event.count}
            for time, event in rows[:SHOWN]
        ],
    }


def _own_time(event: Any) -> float:
    """Microseconds in the operation itself, on a GPU where there is one."""
    return float(event.self_device_time_total or event.self_cpu_time_total)
