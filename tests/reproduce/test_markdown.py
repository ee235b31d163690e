"""A table as people read it."""

from __future__ import annotations

from rpbert.reproduce.rows import SNAP
from rpbert.reproduce.table import DataResult, Figure, RowResult, TableResult, render

HEADER = "| system | row | F1 | paper | difference | p | p against | seeds | evidence | initial"
MACHINE = {"machine": "x86_64", "gpu": None, "threads": 2, "python": "3", "torch": "2",
           "transformers": "5"}  # fmt: skip


def table(paper_set: str | None) -> list[str]:
    """The lines of a table of three rows: one that ran, one below it, one that could not run."""
    first = Figure([80.0, 81.0, 82.0], 81.0, 1.0, 80.1, 0.9, None)
    second = Figure([85.25], 85.25, None, None, None, 0.0005)
    rows = [
        RowResult("a", "A", "a", "", [0, 1, 2], "text only", "random", 61.4, "", {"f1": first}),
        RowResult("b", "B", "b", "", [0], "blocks", "random", 1234.0, "a", {"f1": second}),
        RowResult("c", "C", "c", "no image | none"),
    ]
    data = DataResult("made", paper_set, 4200, 1200, 1500, "", rows)
    settings = {"training": {"epochs": 10}}
    result = TableResult("table4", "Table 4", ("f1",), [data], MACHINE, settings)
    return render(result).splitlines()


def test_ours_stands_beside_the_papers() -> None:
    assert table(SNAP)[-5:] == [
        f"{HEADER} weights | time |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        "| `a` | A | 81.0 ± 1.0 | 80.1 | +0.9 |  |  | 3 | text only | random | 61 s |",
        "| `b` | B | 85.2 |  |  | < 0.001 | `a` | 1 | blocks | random | 1,234 s |",
        "| `c` | C | not run: no image \\| none |  |  |  |  |  |  |  |  |",
    ]
    assert "4,200 training posts, 1,200 test posts with 1,500 entities." in table(SNAP)
    made = "Training time of one seed, 10 epochs, on x86_64, 2 threads; Python 3, torch 2, tr"
    assert any(line.startswith(made) for line in table(SNAP))


def test_without_a_data_set_of_the_paper_its_columns_are_left_out() -> None:
    lines = table(None)
    assert lines[-5].startswith("| system | row | F1 | p | p against | seeds |")
    assert all(line.count(" | ") == lines[-5].count(" | ") for line in lines[-3:-1])
