"""`rpbert systems`: what there is to train."""

from __future__ import annotations

from typing import Any

from rpbert.cli.common import Json, console, print_json


def systems(as_json: Json = False) -> None:
    """List every system with its paper, table row, evidence and parameters."""
    from rpbert.evaluation.evaluate import describe_systems

    rows = describe_systems()
    if as_json:
        print_json(rows)
        return
    from rich.table import Table

    table = Table("system", "paper", "row", "evidence", "parameters", box=None)
    # A name is there to be typed, and half a number says another: the other columns give way.
    for column in (table.columns[0], table.columns[-1]):
        column.no_wrap = True
    for row in rows:
        evidence = ", ".join(row["evidence"]) or "none"
        table.add_row(row["name"], row["paper"], row["row"], evidence, _count(row))
    console().print(table)


def _count(row: dict[str, Any]) -> str:
    return f"{row['parameters'] / 1e6:.1f} M"
