"""Ends runs of training at random moments and lets them go on, in processes of their own.

``python -m tests.killing CONFIG FOLDER SIGNAL ENDS SEED`` trains CONFIG once undisturbed, then
again and again in new folders, each time ended by SIGNAL at random moments and resumed, until that
happened ENDS times within training; every fifth end comes earlier, while the run is set up. Prints
a JSON document: how the runs differ from the undisturbed one (nothing, where all is well), and
what happened.

Processes are forks of this one, which has imported all and computed nothing: an end then falls into
the run and not into the import of PyTorch.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import transformers.models.bert.modeling_bert
import transformers.models.resnet.modeling_resnet  # noqa: F401

import rpbert.training.train  # noqa: F401 - imported before the forks, as is what follows
from rpbert import cli
from rpbert.training.checkpoint import Checkpoints

DONE, STOPPED = 0, 130
MOST_ENDS = 5
"""Of one run, before it is let be."""


def begin(config: Path, run: Path) -> int:
    """Start a run, or go on with it where it has begun; returns the process."""
    child = os.fork()
    if child:
        return child
    log = os.open(run.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    torch.set_num_threads(1)
    resume = ["--resume"] if (run / "config.yaml").exists() else []
    sys.argv = ["rpbert", "train", str(config), "--output", str(run), *resume]
    code = 1
    try:
        cli.main()
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def finish(child: int) -> int:
    """The exit code of a process, or the signal that ended it below 0."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def left_by(run: Path) -> dict[str, str]:
    """What a run came to: digests of its model's and last checkpoint's files, its scores."""
    last = Checkpoints(run / "checkpoints")
    files = [*(run / "model").rglob("*"), *(last.folder / str(last.places()[-1])).glob("*.s*")]
    found = {
        path.relative_to(run).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.is_file()
    }
    for line in (run / "metrics.jsonl").read_text().splitlines():
        record = {key: value for key, value in json.loads(line).items() if key != "seconds"}
        found[f"epoch {record['epoch']}"] = json.dumps(record)
    return found


def loop_began(run: Path, told: int) -> None:
    """Wait until a run that has said `told` bytes begins its loop, or ends."""
    log = run.with_suffix(".log")
    while os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if log.exists() and b"Task tagging" in log.read_bytes()[told:]:
            return
        time.sleep(0.002)


def disturbed(
    config: Path, run: Path, end: signal.Signals, most: int, seconds: float
) -> Counter[str]:
    """One run ended at random moments; counts what happened.

    Args:
        seconds: of the loop of an undisturbed run.
    """
    happened: Counter[str] = Counter()
    log = run.with_suffix(".log")
    log.touch()
    for ends in range(most + 1):
        told = log.stat().st_size
        child = begin(config, run)
        if ends < most:
            within = random.random() < 0.8
            if within:
                loop_began(run, told)
            # A run that was resumed is shorter; and its set-up, than its loop.
            time.sleep(random.uniform(0, seconds / 2 if within else 0.1))
            os.kill(child, end)
        code = finish(child)
        if code == DONE:
            happened["finished"] += 1
            break
        if ends == most or code not in (STOPPED, -end):
            raise RuntimeError(f"{run} ends with {code}: {log.read_text()[-3000:]}")
        within = b"Task tagging" in log.read_bytes()[told:]
        happened[f"{code} {'within' if within else 'before'}"] += 1
    return happened


def main(config: Path, folder: Path, end: signal.Signals, ends: int, seed: int) -> dict[str, Any]:
    """End runs until that happened often enough."""
    random.seed(seed)
    undisturbed = begin(config, folder / "undisturbed")
    loop_began(folder / "undisturbed", 0)
    started = time.monotonic()
    assert finish(undisturbed) == DONE
    seconds = time.monotonic() - started
    expected = left_by(folder / "undisturbed")
    happened: Counter[str] = Counter()
    differences: list[str] = []
    while (within := sum(n for what, n in happened.items() if "within" in what)) < ends:
        run = folder / f"run{happened['finished']}"
        happened += disturbed(config, run, end, min(MOST_ENDS, ends - within), seconds)
        found = left_by(run)
        names = sorted(expected.keys() | found.keys())
        differences += [f"{run.name}: {n}" for n in names if expected.get(n) != found.get(n)]
    return {"differences": differences, "happened": dict(happened), "seconds": seconds}


if __name__ == "__main__":
    config, folder, name, ends, seed = sys.argv[1:]
    found = main(Path(config), Path(folder), signal.Signals[name], int(ends), int(seed))
    print(json.dumps(found))
