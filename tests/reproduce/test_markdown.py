"""A table as people read it."""

from __future__ import annotations

from rpbert.reproduce.rows import SNAP
from rpbert.reproduce.table import DataResult, Figure, RowResult, TableResult, render

MACHINE = {"machine": "x86_64", "gpu": None, "threads": 2, "python": "3", "torch": "2",
           "transformers": "5"}  # fmt: skip


def test_ours_stands_beside_the_papers() -> None:
    first = Figure([80.0, 81.0, 82.0], 81.0, 1.0, 80.1, None)
    second = Figure([85.25], 85.25, None, None, 0.0005)
    rows = [
        RowResult("a", "A", "a", "", [0, 1, 2], "text only", "random", 61.4, "", 10, {"f1": first}),
        RowResult("b", "B", "b", "", [0], "blocks", "random", 1234.0, "a", 1, {"f1": second}),
        RowResult("c", "C", "c", "no image | none"),
    ]
    sets = [DataResult("made", of, 4200, 1200, 1500, "", rows) for of in (SNAP, None)]
    result = TableResult("table4", "Table 4", ("f1",), sets, MACHINE, {})
    lines = [line for line in render(result).splitlines() if line.startswith("| `")]
    assert lines == [
        "| `a` | A | 81.0 ± 1.0 | 80.1 |  |  | 3 | text only | random | 61 s, 10 epochs |",
        "| `b` | B | 85.2 |  | < 0.001 | `a` | 1 | blocks | random | 1,234 s, 1 epoch |",
        "| `c` | C | not run: no image \\| none |  |  |  |  |  |  |  |",
        "| `a` | A | 81.0 ± 1.0 |  |  | 3 | text only | random | 61 s, 10 epochs |",
        "| `b` | B | 85.2 | < 0.001 | `a` | 1 | blocks | random | 1,234 s, 1 epoch |",
        "| `c` | C | not run: no image \\| none |  |  |  |  |  |  |",
    ]
    assert "4,200 training posts, 1,200 test posts with 1,500 entities." in render(result)
