"""Runs killed at random moments and run again: nothing lost, nothing doubled."""

from __future__ import annotations

import multiprocessing
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from rpbert.batch import Summary
from tests.batch.made import Loaded, answers, bytes_of, job_of, rows, tagged, write_jsonl
from tests.soak import Soak


def written(folder: Path, shards: int, posts: int) -> list[str]:
    """Writes shards of posts and gives all their ids in order."""
    ids = []
    for number in range(shards):
        given = rows(posts, number, images=False)
        write_jsonl(folder / f"{number:03}.jsonl", given)
        ids += [row["id"] for row in given]
    return ids


def test_a_process_killed_at_random_and_run_again(
    model: Path, engine: Loaded, tmp_path: Path
) -> None:
    """A forked process, which starts without delay."""
    source, output, job = tmp_path / "in", tmp_path / "out", job_of(model)
    ids = written(source, 6, 60)
    torch.set_num_threads(1)  # threads do not survive a fork
    tagged(source, tmp_path / "calm", job, engine)

    def again() -> Summary:
        return tagged(source, output, job, engine, resume=True)

    draw, context = random.Random(0), multiprocessing.get_context("fork")
    kills, longest = 0, 0.3
    while len(list(output.glob("*.meta.json"))) < 6:
        run = context.Process(target=again)
        run.start()
        time.sleep(draw.random() * longest)
        longest *= 1.05  # so that a busy machine comes to an end, too
        run.kill()
        run.join()
        kills += run.exitcode == -signal.SIGKILL
    assert kills >= 2
    assert again().rows == len(ids)
    assert [row["id"] for row in answers(output)] == ids
    assert bytes_of(output) == bytes_of(tmp_path / "calm")


@pytest.mark.slow("workers of a sharded run killed, run again", "20 kills")
def test_workers_and_runs_killed_at_random(model: Path, tmp_path: Path, soak: Soak) -> None:
    """Every other time it is a Ray worker, which Ray replaces, else the run with its workers."""
    ids = written(tmp_path / "in", 150, 150)
    command = [sys.executable, "-m", "rpbert", "predict", str(model), "--gpus", "0", "--resume"]
    command += ["--input", str(tmp_path / "in"), "--engine", "ray", "--workers", "2", "--output"]
    output, draw = tmp_path / "out", random.Random(0)
    output.mkdir()
    kills = {"workers": 0, "runs": 0}
    run = subprocess.Popen([*command, str(output)], stderr=subprocess.DEVNULL)
    while sum(kills.values()) < 20:
        if run.poll() is not None:
            run = subprocess.Popen([*command, str(output)], stderr=subprocess.DEVNULL)
        before = len(list(output.iterdir()))
        while len(list(output.iterdir())) == before and run.poll() is None:
            time.sleep(0.005)
        assert len(list(output.glob("*.meta.json"))) < 150, "the run was over before its last kill"
        time.sleep(draw.random() * 0.2)
        children = psutil.Process(run.pid).children(recursive=True)
        workers = [child for child in children if "_Worker" in str(child.cmdline())]
        if sum(kills.values()) % 2 and workers:
            draw.choice(workers).kill()
            kills["workers"] += 1
        else:
            run.kill()
            run.wait()
            kills["runs"] += 1
    run.kill()
    run.wait()
    for folder in (output, tmp_path / "calm"):
        subprocess.run([*command, str(folder)], check=True, capture_output=True)
    assert [row["id"] for row in answers(output)] == ids
    assert bytes_of(output) == bytes_of(tmp_path / "calm")
    kinds = f"{kills['runs']} runs and {kills['workers']} workers killed; {len(ids):,} posts once"
    soak(f"{kinds}, every file byte for byte that of an undisturbed run")
