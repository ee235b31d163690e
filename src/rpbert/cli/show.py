"""Results as tables and text for a terminal: each takes the document that ``--json`` prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rpbert.errors import counted

Document: TypeAlias = Mapping[str, Any]
STYLES = {"PER": "bold magenta", "LOC": "bold green", "ORG": "bold blue", "MISC": "bold yellow"}
GAUGE = 10


def show(*content: Any) -> None:
    """Print tables, and lines as they are."""
    for one in content:
        Console(highlight=False).print(one, markup=False, soft_wrap=isinstance(one, str))


def tagged_text(post: Document) -> Text:
    """The text with each entity as ``[PER Kevin Love]``, coloured where colours are shown."""
    shown, position = Text(), 0
    for entity in post["entities"]:
        shown.append(post["text"][position : entity["start"]])
        style = STYLES.get(entity["label"], "bold cyan")
        shown.append(f"[{entity['label']} {entity['text']}]", style=style)
        position = entity["end"]
    return shown.append(post["text"][position:])


def relation_gauge(post: Document) -> str:
    """r as a bar and a number, or why there is none."""
    image, relation = post["image"], post["relation"]
    if image != "used" or relation is None:
        reason = f" ({post['image_reason']})" if "image_reason" in post else ""
        return "used, r not learnt" if image == "used" else f"{image}{reason}"
    filled: int = round(relation * GAUGE)
    return "█" * filled + "░" * (GAUGE - filled) + f" {relation:.2f}"


def print_prediction(post: Document) -> None:
    """One post: its text with the entities in place, their scores, and the relation."""
    lines = []
    for entity in post["entities"]:
        place = f"{entity['start']}-{entity['end']}"
        lines.append(f"  {entity['label']:5} {entity['score']:.2f}  {place:>9}  {entity['text']}")
    show(tagged_text(post), *lines, f"  image: {relation_gauge(post)}")


def print_demo(result: Document) -> None:
    """The demo's scores, and what the systems say of the same posts."""
    posts, examples = result["posts"], result["examples"]
    made = f"{posts['train']:,} made posts to train on, {posts['test']:,} to test"
    scores = Table("system", "F1", "image adds", "doesn't", "r accuracy", "time", title=made)
    for column in scores.columns[1:]:
        column.justify = "right"
    for row in result["rows"]:
        shares = [row[key] for key in ("f1", "f1_adds", "f1_does_not", "relation_accuracy")]
        cells = ["" if share is None else f"{100 * share:.1f}" for share in shares]
        scores.add_row(row["title"], *cells, f"{row['seconds']:.0f} s")
    tagged = Table("post, as rpbert tags it", "the image", "image adds? r", "text only says")
    for example in examples:
        seen, blind = example["multimodal"], example["text_only"]
        said = ", ".join(f"{e['label']} {e['text']}" for e in blind["entities"]) or "nothing"
        shown = (Text(example["caption"]), relation_gauge(seen), Text(said))
        tagged.add_row(tagged_text(seen), *shown)
    show(
        scores,
        "F1: seqeval strict IOB2, test split, in %. The same budget for each system.\n",
        tagged,
        f"Data and models: {result['folder']}\n"
        f"Tag a post of your own:\n  rpbert predict {result['folder']}/rpbert/model "
        f'--text "can\'t stop thinking about Jordan" --image {examples[0]["image"]}',
    )


def print_systems(rows: Sequence[Document]) -> None:
    """A row a system."""
    table = Table("system", "paper", "row", "evidence", "parameters", box=None)
    # A name is there to be typed, and half a number says another: the other columns give way.
    for column in (table.columns[0], table.columns[-1]):
        column.no_wrap = True
    for row in rows:
        evidence = ", ".join(row["evidence"]) or "none"
        parameters = f"{row['parameters'] / 1e6:.1f} M"
        table.add_row(row["name"], row["paper"], row["row"], evidence, parameters)
    show(table)


def print_analysis(figures: Document) -> None:
    """Mean S_TV by relation, of each model, and what changes where two are compared."""
    titles = {"s_tv": "S_TV (Eq. 10)", "s_tv_per_word": "S_TV / words"}
    for row in figures["means"]:
        about = f"{titles[row['measure']]}, {row['relation']} by {row['by']}"
        pairs = zip(figures["models"], row["models"], strict=True)
        means = [f"model {name} {mean['mean']:.3f}" for name, mean in pairs if mean]
        if change := row["change"]:
            means.append(f"change {change['mean']:+.3f} ± {change['error'] or 0:.3f}")
        show(f"{about}, {counted(row['posts'], 'post')}: {', '.join(means)}")
    outcomes = ", ".join(f"{count:,} {name}" for name, count in figures["outcomes"].items())
    show(f"{counted(figures['posts'], 'post')}: {outcomes}", f"Report: {figures['files'][0]}")


def benchmark_table(found: Document) -> Iterator[str]:
    """A benchmark line by line."""
    machine, work = found["machine"], found["work"]
    where = machine["gpu"] or f"{machine['processor']}, {machine['threads']} threads"
    yield f"{where}, {machine['instructions']}; {machine['system']}, Python {machine['python']}"
    yield ", ".join(f"{name} {machine[name]}" for name in ("torch", "transformers", "rpbert"))
    sizes = f"{work['system']}, {work['size']} sizes, batches of {work['batch']}"
    yield f"{sizes}, by {work['backend']}; median (low-high)"
    for name, gap in found["differences"].items():
        yield f"{name}: at most {gap:.1e} from PyTorch in float32"

    def rate(rates: Mapping[str, float]) -> str:
        return f"{rates['median']:.2f} ({rates['low']:.2f}-{rates['high']:.2f})"

    yield f"\n{'inference':21}{'posts/s':>22}"
    for name, row in found["inference"].items():
        waits = row["latency_seconds"]
        yield f"{name:21}{rate(row['posts_per_second']):>22}"
        one = f"one post {1000 * waits['p50']:.0f} ms (p95 {1000 * waits['p95']:.0f})"
        yield f"{'':11}{one}, peak {row['peak_gib']:.2f} GiB"
        for axis, title in (("batch", "posts in a batch"), ("length", "times the words")):
            points = "".join(f"{n:>6}: {value:<7.2f}" for n, value in row.get(axis, {}).items())
            if points:
                yield f"  {title:18}{points}"
    if found["training"]:
        yield f"\n{'training':21}{'posts/s':>22}"
    for name, row in found["training"].items():
        for task, rates in row["posts_per_second"].items():
            yield f"{name:11}{task:10}{rate(rates):>22}"
        yield f"{'':11}peak {row['peak_gib']:.2f} GiB, moments: {row['moments']}"
