"""Predictions and results as tables and text for a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rpbert.errors import InputError, counted, reason_of
from rpbert.types import Entity, Prediction

if TYPE_CHECKING:
    from rpbert.synthetic.demo import DemoResult

STYLES = {"PER": "bold magenta", "LOC": "bold green", "ORG": "bold blue", "MISC": "bold yellow"}
GAUGE = 10
SCALES = (
    "Not on the paper's scale: S_TV is a sum over words and blocks, as Eq. 10 is printed; the "
    "paper does not say by what its figures were divided (docs/analysis.md)."
)


def console() -> Console:
    """Where tables and tagged posts are printed."""
    return Console(highlight=False)


def tagged_text(text: str, entities: list[Entity]) -> Text:
    """The text with each entity as ``[PER Kevin Love]``, coloured where colours are shown."""
    shown, position = Text(), 0
    for entity in entities:
        shown.append(text[position : entity.start])
        style = STYLES.get(entity.label, "bold cyan")
        shown.append(f"[{entity.label} {entity.text}]", style=style)
        position = entity.end
    shown.append(text[position:])
    return shown


def relation_gauge(prediction: Prediction) -> str:
    """r as a bar and a number, or why there is none."""
    if prediction.image != "used":
        return {"none": "none", "missing": "missing"}.get(prediction.image, "unreadable")
    if prediction.relation is None:
        return "not weighed"
    filled = round(prediction.relation * GAUGE)
    return "█" * filled + "░" * (GAUGE - filled) + f" {prediction.relation:.2f}"


def print_prediction(prediction: Prediction) -> None:
    """One post: its text with the entities in place, their scores, and the relation."""
    screen = console()
    screen.print(tagged_text(prediction.text, prediction.entities))
    for entity in prediction.entities:
        place = f"{entity.start}-{entity.end}"
        screen.print(
            f"  {entity.label:5} {entity.score:.2f}  {place:>9}  {entity.text}", markup=False
        )
    screen.print(f"  image: {relation_gauge(prediction)}", markup=False)


def print_demo(result: DemoResult) -> None:
    """The demo's scores, and what the systems say of the same posts."""
    screen = console()
    made = f"{result.posts['train']:,} made posts to train on, {result.posts['test']:,} to test"
    scores = Table("system", "F1", "image adds", "doesn't", "r accuracy", "time", title=made)
    for column in scores.columns[1:]:
        column.justify = "right"
    for row in result.rows:
        accuracy = "" if row.relation_accuracy is None else f"{100 * row.relation_accuracy:.1f}"
        by_relation = (f"{100 * row.f1_adds:.1f}", f"{100 * row.f1_does_not:.1f}")
        scores.add_row(
            row.title, f"{100 * row.f1:.1f}", *by_relation, accuracy, f"{row.seconds:.0f} s"
        )
    screen.print(scores)
    screen.print("F1: seqeval strict IOB2, test split, in %. The same budget for each system.\n")

    posts = Table("post, as rpbert tags it", "the image", "image adds? r", "text only says")
    for example in result.examples:
        posts.add_row(
            tagged_text(example.multimodal.text, example.multimodal.entities),
            example.caption,
            relation_gauge(example.multimodal),
            ", ".join(f"{e.label} {e.text}" for e in example.text_only.entities) or "nothing",
        )
    screen.print(posts)
    screen.print(f"Data and models: {result.folder}", markup=False)
    screen.print(
        f"Tag a post of your own:\n  rpbert predict {result.folder}/rpbert/model "
        f'--text "can\'t stop thinking about Jordan" --image {result.examples[0].image}',
        markup=False,
        soft_wrap=True,
    )


def print_systems(rows: Sequence[Mapping[str, Any]]) -> None:
    """A row a system."""
    table = Table("system", "paper", "row", "evidence", "parameters", box=None)
    # A name is there to be typed, and half a number says another: the other columns give way.
    for column in (table.columns[0], table.columns[-1]):
        column.no_wrap = True
    for row in rows:
        evidence = ", ".join(row["evidence"]) or "none"
        parameters = f"{row['parameters'] / 1e6:.1f} M"
        table.add_row(row["name"], row["paper"], row["row"], evidence, parameters)
    console().print(table)


def print_analysis(figures: Mapping[str, Any], report: Path) -> None:
    """Mean S_TV by relation, of each model, beside the paper's where two are compared."""
    compared = len(figures["models"]) > 1
    # Of the folder's name alone, a model called none would read as no image.
    models = [f"model\n{name}" for name in reversed(figures["models"])]
    table = Table("image", "posts", *models, *(("change", "paper") if compared else ()), box=None)
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
                error = f" ± {change['error'] or 0:.3f}" if change else ""
                cells.append(f"{change['mean']:+.3f}{error}" if change else "")
                cells.append("{:.3f} → {:.3f}".format(*figures["paper"][row["relation"]]))
            table.add_row(*cells)
    screen = console()
    screen.print(table)
    outcomes = ", ".join(f"{count:,} {name}" for name, count in figures["outcomes"].items())
    if compared:
        screen.print(SCALES, markup=False)
    screen.print(f"{counted(figures['posts'], 'post')}: {outcomes}", markup=False)
    screen.print(f"Report: {report}", markup=False, soft_wrap=True)


def read_benchmark(path: Path) -> dict[str, Any]:
    """What an earlier `rpbert benchmark --json` printed."""
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if not {"work", "machine", "inference", "training"} <= found.keys():
            raise ValueError("no benchmark")
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(path, reason_of(error), "what `rpbert benchmark --json` printed") from None
    return found


def benchmark_table(found: Mapping[str, Any], earlier: Mapping[str, Any]) -> Iterator[str]:
    """A benchmark line by line; beside an earlier one each rate with its ratio to that."""
    machine, work = found["machine"], found["work"]
    where = machine["gpu"] or f"{machine['processor']}, {machine['threads']} threads"
    yield f"{where}, {machine['instructions']}; {machine['system']}, Python {machine['python']}"
    yield ", ".join(f"{name} {machine[name]}" for name in ("torch", "transformers", "rpbert"))
    best = machine["products"]
    products = ", ".join(f"{name} {rate:,.0f}" for name, rate in best.items())
    yield f"best products of square matrices, GFLOP/s: {products}"
    yield f"{work['system']}, {work['size']} sizes, batches of {work['batch']}; median (low-high)"
    keys = ("system", "size", "batch", "threads", "device")
    before = earlier.get("work", work)
    if other := ", ".join(f"{key} {before[key]}" for key in keys if before[key] != work[key]):
        yield f"the earlier benchmark is of other work: {other}"

    def cells(name: str, rates: Mapping[str, float], gflop: float, *path: str) -> str:
        """Posts a second, its share of the best products, and its ratio to the earlier one."""
        share = f"{100 * gflop * rates['median'] / best[name]:.0f} %" if name in best else ""
        then: Any = earlier
        for key in (*path, "median"):
            then = then.get(key, {})
        ratio = f"   {rates['median'] / then:.2f} × the earlier" if then else ""
        rate = f"{rates['median']:.2f} ({rates['low']:.2f}-{rates['high']:.2f})"
        return f"{rate:>22}{share:>13}{ratio}"

    yield f"\n{'inference':11}{'posts/s':>22}{'of the best':>13}"
    for name, row in found["inference"].items():
        path = ("inference", name, "posts_per_second")
        yield f"{name:11}{cells(name, row['posts_per_second'], row['gflop_per_post'], *path)}"
        waits = row["latency_seconds"]
        yield (
            f"{'':11}one post {1000 * waits['p50']:.0f} ms (p95 {1000 * waits['p95']:.0f}), peak "
            f"{row['peak_gib']:.2f} GiB, first answer {row['first_prediction_seconds']:.1f} s, "
            f"{row['gflop_per_post']:.1f} GFLOP a post, {row['max_difference']:.1e} from plain fp32"
        )
    if found["training"]:
        yield f"\n{'training':21}{'posts/s':>22}{'of the best':>13}"
    for name, row in found["training"].items():
        for task, rates in row["posts_per_second"].items():
            gflop = found["training_gflop_per_post"][task]
            place = ("training", name, "posts_per_second", task)
            yield f"{name:11}{task:10}{cells(name, rates, gflop, *place)}"
        yield f"{'':11}peak {row['peak_gib']:.2f} GiB, moments: {row['moments']}"
    titles = {"batch": "posts in a batch", "length": "times the words", "posts": "posts in all"}
    for name, grown in found.get("growth", {}).items():
        yield f"\n{name}: posts/s as the work grows"
        for axis, points in grown.items():
            values = "".join(f"{point:>6}: {rate:<7.2f}" for point, rate in points.items())
            yield f"  {titles[axis]:18}{values}"
    for name, profile in found.get("profile", {}).items():
        yield f"\n{name}: {1000 * profile['seconds_per_post']:.1f} ms a post, of which"
        for row in profile["operations"]:
            yield f"  {100 * row['share']:5.1f} %  {row['calls']:>6} ×  {row['name']}"
