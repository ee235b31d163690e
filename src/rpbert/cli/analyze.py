"""`rpbert analyze`: what a model looks at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rpbert.cli.common import Json, ModelPath, console, print_json
from rpbert.errors import counted

if TYPE_CHECKING:
    from rpbert.analysis.run import Analysis


SCALES = (
    "Not on the paper's scale: S_TV is a sum over words and blocks, as Eq. 10 is printed; the "
    "paper does not say by what its figures were divided (docs/analysis.md)."
)


def analyze(
    model: ModelPath,
    data: Annotated[Path, typer.Argument(metavar="DATA")],
    output: Annotated[
        Path, typer.Option("--output", metavar="DIR", help="Where tables, figures, report go.")
    ],
    against: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Compare with this one, such as one of gate=none."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="train, dev or test; all in a single file.", show_default="test"),
    ] = None,
    posts: Annotated[int, typer.Option(metavar="N", help="Most posts in the report.")] = 200,
    as_json: Json = False,
) -> None:
    """Show what a model looks at: relation score against S_TV, heat maps, one HTML report."""
    from rich.console import Console
    from rich.progress import SpinnerColumn, TextColumn

    from rpbert.analysis.run import analyze as run
    from rpbert.training.progress import bar

    columns = (SpinnerColumn(), TextColumn("{task.completed:,} posts"))
    with bar(Console(stderr=True), *columns) as progress:
        task = progress.add_task("posts", total=None)
        analysis = run(
            model, data, output, against, split, posts, lambda n: progress.advance(task, n)
        )
    if as_json:
        files = [str(analysis.report), *map(str, analysis.files)]
        print_json({**analysis.summary.to_dict(), "files": files})
    else:
        _print(analysis)


def _print(analysis: Analysis) -> None:
    from rich.table import Table

    figures = analysis.summary.to_dict()
    compared = len(figures["models"]) > 1
    # Of the folder's name alone, a model called none would read as no image.
    models = [f"model\n{name}" for name in reversed(figures["models"])]
    table = Table("image", "posts", *models, box=None)
    for name in ("change", "paper") if compared else ():
        table.add_column(name)
    for column in table.columns:
        column.no_wrap = True
    titles = {"s_tv": "mean S_TV (Eq. 10)", "s_tv_per_word": "mean S_TV / words"}
    for measure, title in titles.items():
        table.add_row(title)
        for row in (row for row in figures["means"] if row["measure"] == measure):
            means = [f"{m['mean']:.3f}" if m else "" for m in reversed(row["models"])]
            cells = [f"  {row['relation']} by {row['by']}", f"{row['posts']:,}", *means]
            if compared:
                change = row["change"]
                cells.append(
                    f"{change['mean']:+.3f} ± {change['error'] or 0:.3f}" if change else ""
                )
                cells.append("{:.3f} → {:.3f}".format(*figures["paper"][row["relation"]]))
            table.add_row(*cells)
    screen = console()
    screen.print(table)
    outcomes = ", ".join(f"{count:,} {name}" for name, count in figures["outcomes"].items())
    if compared:
        screen.print(SCALES, markup=False)
    screen.print(f"{counted(figures['posts'], 'post')}: {outcomes}", markup=False)
    screen.print(f"Report: {analysis.report}", markup=False, soft_wrap=True)
