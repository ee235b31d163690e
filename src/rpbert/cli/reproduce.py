"""`rpbert reproduce`: a table of the paper, or what its gate gives on given posts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from rpbert.cli.common import Json, print_json, stopped
from rpbert.errors import InputError


def reproduce(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="table3 … table6, fig3, or gates.")],
    data: Annotated[list[Path], typer.Argument(metavar="DATA", help="Data folders.")],
    output: Annotated[Path, typer.Option("--output", metavar="DIR", help="Runs and table.")],
    seeds: Annotated[int, typer.Option(metavar="N", min=1, help="Runs of each row.")] = 3,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What all rows share; else Table 2.")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Changes what all rows share."),
    ] = None,
    relations: Annotated[
        Path | None, typer.Option(metavar="DATA", help="Task#1's posts, such as TRC.")
    ] = None,
    only: Annotated[
        str | None, typer.Option(metavar="ROW,...", help="Run these rows alone.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Quick pass: so many epochs.")] = None,
    posts: Annotated[
        int | None, typer.Option(min=1, help="Quick pass: so many posts of each split.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train and score every row of a table; stopped, it resumes."""
    for path in (*data, *([relations] if relations else [])):
        if not path.is_dir():
            raise InputError(path, "no such folder", "a data folder with train, dev and test")
    from rpbert.reproduce.make import Request
    from rpbert.reproduce.make import reproduce as run
    from rpbert.reproduce.settings import load_shared
    from rpbert.reproduce.table import render

    rows = [name.strip() for name in only.split(",") if name.strip()] if only else []
    shared = load_shared(config, changes or ())
    request = Request(table, data, output, shared, seeds, relations, rows, epochs, posts)
    try:
        result = run(request, lambda line: print(line, file=sys.stderr, flush=True))
    except KeyboardInterrupt:
        stopped(*sys.argv[1:])
    if as_json:
        print_json(result.to_dict())
    else:
        print(render(result), end="")
    chosen = [row for found in result.data for row in found.rows if not rows or row.row in rows]
    reasons = [row.skip_reason for row in chosen]
    if all(reasons):
        raise InputError(table, "no row that could run", "one at least", reasons[0])
