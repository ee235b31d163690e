"""A reproduced table as Markdown."""

from __future__ import annotations

from rpbert.errors import counted
from rpbert.reproduce.result import IN_PERCENT, SCORER, DataResult, Figure, RowResult, TableResult
from rpbert.reproduce.rows import POSTS, TITLES, Measure

LEAST = 0.001
"""A smaller p is not told apart from others: there are too few resamples."""
COLUMNS = ("ours", "paper", "difference", "p")


def render(result: TableResult) -> str:
    """The table, one part for each data set, and what it was made by."""
    made = result.machine
    on = made["gpu"] or f"{made['machine']}, {counted(made['threads'], 'thread')}"
    versions = (
        f"Python {made['python']}, torch {made['torch']}, transformers {made['transformers']}"
    )
    epochs = counted(result.settings["training"]["epochs"], "epoch")
    lines = [f"# {result.title}", ""]
    if set(result.measures) & IN_PERCENT:
        lines += [f"F1 in %; entities by {SCORER}. Ours is the mean ± sd of the seeds."]
    else:
        lines += ["S_TV (Eq. 10) divided by the number of words; mean of the posts."]
    lines += [
        "p: paired bootstrap over the test posts, two-sided, against the row above.",
        f"Training time of one seed, {epochs}, on {on}; {versions}.",
    ]
    for data in result.data:
        lines += ["", f"## {data.name}", "", *_described(data), "", *_table(result, data)]
    return "\n".join(lines) + "\n"


def _described(data: DataResult) -> list[str]:
    entities = f" with {data.support:,} entities" if data.support else ""
    lines = [f"{data.train:,} training posts, {data.test:,} test posts{entities}."]
    if data.paper_set:
        train, test = POSTS[data.paper_set]
        own = f"{train:,} training posts, {test:,} test posts, its own evidence and initial weights"
        lines.append(f"The paper's figures are those on {data.paper_set}: {own}.")
    if data.groups:
        lines.append(f"Posts are grouped by {data.groups}.")
    return lines


def _table(result: TableResult, data: DataResult) -> list[str]:
    columns = [*COLUMNS] if data.paper_set else [*COLUMNS[:1], *COLUMNS[-1:]]
    header = ["system", "row"]
    for measure in result.measures:
        header += [TITLES[measure], *columns[1:]]
    header += ["seeds", "evidence", "initial weights", "time"]
    return [
        _line(header),
        _line(["---"] * len(header)),
        *(_line(_cells(result, row, columns, len(header))) for row in data.rows),
    ]


def _cells(result: TableResult, row: RowResult, columns: list[str], width: int) -> list[str]:
    cells = [f"`{row.row}`", row.label]
    if row.figures is None:
        return [*cells, f"not run: {row.why_not}", *[""] * (width - 3)]
    for measure in result.measures:
        figure = shown(row.figures[measure], measure)
        cells += [figure[column] for column in columns]
    weights = row.initial_weights
    return [*cells, str(len(row.seeds)), row.evidence, weights, f"{row.seconds:,.0f} s"]


def shown(figure: Figure | None, measure: Measure) -> dict[str, str]:
    """A figure by column: ours, the paper's, the difference and p."""
    if figure is None:
        return {**dict.fromkeys(COLUMNS, ""), "ours": "no post"}
    places = 1 if measure in IN_PERCENT else 3
    deviation = "" if figure.sd is None else f" ± {figure.sd:.{places}f}"
    return {
        "ours": f"{figure.mean:.{places}f}{deviation}",
        "paper": "" if figure.paper is None else f"{figure.paper:.{places}f}",
        "difference": "" if figure.difference is None else f"{figure.difference:+.{places}f}",
        "p": "" if figure.p is None else f"{figure.p:.3f}" if figure.p >= LEAST else f"< {LEAST}",
    }


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
