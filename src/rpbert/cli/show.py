"""Predictions and results as a person likes to read them in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from rpbert.types import Entity, Prediction

if TYPE_CHECKING:
    from rich.console import Console

    from rpbert.synthetic.demo import DemoResult

STYLES = {"PER": "bold magenta", "LOC": "bold green", "ORG": "bold blue", "MISC": "bold yellow"}
GAUGE = 10


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


def print_prediction(prediction: Prediction, console: Console) -> None:
    """One post: its text with the entities in place, their scores, and the relation."""
    console.print(tagged_text(prediction.text, prediction.entities))
    for entity in prediction.entities:
        place = f"{entity.start}-{entity.end}"
        console.print(
            f"  {entity.label:5} {entity.score:.2f}  {place:>9}  {entity.text}", markup=False
        )
    console.print(f"  image: {relation_gauge(prediction)}", markup=False)


def print_demo(result: DemoResult, console: Console) -> None:
    """The demo's scores, and what the systems say of the same posts."""
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
    console.print(scores)
    console.print("F1: seqeval strict IOB2, test split, in %. The same budget for each system.\n")

    posts = Table("post, as rpbert tags it", "the image", "image adds? r", "text only says")
    for example in result.examples:
        posts.add_row(
            tagged_text(example.multimodal.text, example.multimodal.entities),
            example.caption,
            relation_gauge(example.multimodal),
            ", ".join(f"{e.label} {e.text}" for e in example.text_only.entities) or "nothing",
        )
    console.print(posts)
    console.print(f"Data and models: {result.folder}", markup=False)
    console.print(
        f"Tag a post of your own:\n  rpbert predict {result.folder}/rpbert/model "
        f'--text "can\'t stop thinking about Jordan" --image {result.examples[0].image}',
        markup=False,
        soft_wrap=True,
    )
