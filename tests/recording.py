"""`rpbert train`, which also writes down the loss of every step: python -m tests.recording …"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import distributed

from rpbert import cli
from rpbert.training.progress import Reporter


def world_size() -> int:
    """Processes that train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def record(path: Path) -> None:
    """Write a line a step to `path`, from the process that shows the run."""
    epoch = Reporter.epoch

    @contextmanager
    def recorded(self: Reporter, *args: Any) -> Iterator[Any]:
        with epoch(self, *args) as advance, path.open("a") as file:

            def noted(task: str, loss: float, count: int) -> None:
                if self.shown:
                    step = {"task": task, "loss": loss, "posts": count}
                    file.write(json.dumps({**step, "processes": world_size()}) + "\n")
                advance(task, loss, count)

            yield noted

    Reporter.epoch = recorded  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    record(Path(os.environ["STEPS"]))
    sys.argv[0] = "rpbert"
    cli.main()
