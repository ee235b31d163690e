"""The whole benchmark: its parts one after the other, each in a fresh process."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rpbert.errors import InputError

if TYPE_CHECKING:
    from rpbert.benchmark.work import Work
    from rpbert.config.run import Precision


@dataclass(frozen=True)
class Plan:
    """What is to be measured.

    Attributes:
        precisions: of inference; training is measured in those of them that it knows.
        moments: `training.moments`, task or shared.
        profile: also name the operations that take the time.
    """

    work: Work
    precisions: Sequence[Precision]
    training: bool = True
    moments: str = "task"
    growth: bool = True
    profile: bool = False


def run(plan: Plan, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure; the result is a JSON document.

    Args:
        say: told what is being measured.

    Raises:
        InputError: a part failed.
    """

    def part(name: str, **arguments: Any) -> Any:
        told = [str(value) for key, value in arguments.items() if key != "folder"]
        say(" ".join([name.replace("_", " "), *told]))
        return _in_a_process(name, plan.work, arguments)

    found: dict[str, Any] = {"work": asdict(plan.work), "machine": part("machine")}
    trained = [name for name in plan.precisions if name != "int8"] if plan.training else []
    found["inference"] = {name: part("inference", precision=name) for name in plan.precisions}
    found["training"] = {
        name: part("training", precision=name, moments=plan.moments) for name in trained
    }
    if trained:
        found["training_gflop_per_post"] = part("operations")
    with tempfile.TemporaryDirectory() as folder:
        part("save", folder=f"{folder}/model")
        for name in plan.precisions:
            started = time.perf_counter()
            part("first_prediction", folder=f"{folder}/model", precision=name)
            found["inference"][name]["first_prediction_seconds"] = time.perf_counter() - started
    if plan.growth:
        found["growth"] = {name: part("growth", precision=name) for name in plan.precisions[-1:]}
    if plan.profile:
        found["profile"] = {
            f"inference {name}": part("profile", precision=name, train=False)
            for name in plan.precisions
        } | {f"training {name}": part("profile", precision=name, train=True) for name in trained}
    return found


def _in_a_process(name: str, work: Work, arguments: dict[str, Any]) -> Any:
    request = {"part": name, "work": asdict(work), "arguments": arguments}
    command = [sys.executable, "-m", "rpbert.benchmark"]
    done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise InputError(f"benchmark, {name} {arguments}", lines[-1][:200], "a run to its end")
    return json.loads(done.stdout)
