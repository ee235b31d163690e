"""One part of the benchmark: a request as JSON on standard input, its result on standard output."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

REQUEST = ("part", "work", "arguments")


def main() -> None:
    """Run the part that standard input asks for."""
    request: dict[str, Any] = json.load(sys.stdin)
    work = request["work"]
    if work["threads"]:  # before PyTorch counts the processors
        os.environ["OMP_NUM_THREADS"] = str(work["threads"])
    answer, sys.stdout = sys.stdout, sys.stderr  # whatever libraries print is no answer
    import torch

    from rpbert.benchmark.parts import PARTS
    from rpbert.benchmark.work import Work

    if work["threads"]:
        torch.set_num_threads(work["threads"])
    result = PARTS[request["part"]](Work(**work), **request["arguments"])
    json.dump(result, answer)


if __name__ == "__main__":
    main()
