"""F1 against the share of irrelevant images, from a table of `rpbert reproduce`.

    python scripts/curve.py DIR/gates.json CURVE.png

Its data sets are named by the share, such as ``harder-75``; a line for each row, with the mean and
sd of its seeds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure


def main(table: Path, picture: Path) -> None:
    """Draw the picture."""
    sets: list[dict[str, Any]] = json.loads(table.read_text("utf-8"))["data"]
    lines: dict[str, list[tuple[int, float, float]]] = {}
    for data in sets:
        share = int(data["name"].rpartition("-")[2])
        for row in data["rows"]:
            if figures := row["figures"]:
                f1 = figures["f1"]
                lines.setdefault(row["row"], []).append((share, f1["mean"], f1["sd"] or 0.0))
    canvas = Figure(figsize=(6, 3.6), layout="constrained")
    axis = canvas.subplots()
    for name, points in lines.items():
        shares, means, sds = zip(*sorted(points), strict=True)
        axis.errorbar(shares, means, yerr=sds, marker="o", capsize=3, label=name)
    axis.set_xlabel("irrelevant images, %")
    axis.set_ylabel("F1, %")
    axis.grid(alpha=0.3)
    axis.legend()
    canvas.savefig(picture, dpi=150, metadata={"Software": None})


if __name__ == "__main__":
    if len(sys.argv) != 3 or not Path(sys.argv[1]).is_file():
        sys.exit("curve.py: expected the JSON of a table that exists, and a name for the picture")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
