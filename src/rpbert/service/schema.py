"""What goes in and comes out as JSON; FastAPI makes the OpenAPI document of these."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from rpbert.analysis import Explanation
from rpbert.types import Prediction

DECIMALS = 6


def _clean(value: Any) -> Any:
    """A lone surrogate, which JSON can hold and no encoder takes, as U+FFFD; offsets stay."""
    return re.sub("[\ud800-\udfff]", "\ufffd", value) if isinstance(value, str) else value


Text = Annotated[str, BeforeValidator(_clean)]


class PostIn(BaseModel):
    """A post: `text`, `tokens` or both, and an image if there is one."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    id: Annotated[str, Field(max_length=200), BeforeValidator(_clean)] | int | None = None
    """Comes back with the answer."""
    text: Text | None = None
    """The raw text; offsets count its characters."""
    tokens: list[Text] | None = None
    """Its words, where they are known."""
    image: str | None = None
    """A JPEG, PNG, GIF, WEBP or BMP file in base64; never a path or an address."""
    caption: Text | None = None
    """What the image shows, for a model that reads captions."""
    image_text: Text | None = None
    """What is written in the image, for a model that reads it."""
    knowledge: Text | None = None
    """What is known of the post, for a model that reads it."""
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Entities with a score below it are left out."""


class ExplainIn(PostIn):
    """A post to look into."""

    relation: Annotated[float, Field(ge=0, le=1)] | None = None
    """r to read the image with, in place of the model's own."""


def request_body(model: type[PostIn]) -> dict[str, Any]:
    """The body of a request in OpenAPI; FastAPI cannot know it, since the intake reads it."""
    post = model.model_json_schema()
    form = {**post["properties"], "image": {"type": "string", "format": "binary"}}
    del form["tokens"]
    json = {"anyOf": [post, {"type": "array", "items": post}]} if model is PostIn else post
    content = {
        "application/json": {"schema": json},
        "multipart/form-data": {"schema": {**post, "properties": form, "required": ["text"]}},
    }
    return {"requestBody": {"required": True, "content": content}}


class Error(BaseModel):
    """Why there is no answer: `code` for programs, `reason` for people."""

    code: str
    reason: str


class FailureOut(BaseModel):
    """An error in place of an answer."""

    error: Error


class PostFailureOut(FailureOut):
    """An error in place of one post of a list."""

    id: str


class WordOut(BaseModel):
    """A word of the post and its place in the text."""

    text: str
    start: int
    end: int


class AttentionOut(BaseModel):
    """Attention of all words together and of each word to the blocks of the image (Eq. 11).

    Rows are from the top, to six decimals; other evidence, such as regions, stands in one row. A
    box is what a block shows of the image: x0, y0, x1, y1 in shares of its sides.
    """

    all: list[list[float]]
    words: list[list[list[float]]]
    boxes: list[list[float]]


class ExplanationOut(BaseModel):
    """A prediction, the attention that led to it with S_TV (Eq. 10), and what the text alone gives.

    `text_only` and `attention` are null where no image was read; `image_reason` says why.
    """

    prediction: Prediction
    text_only: Prediction | None
    words: list[WordOut]
    attention: AttentionOut | None
    s_tv: float | None
    s_tv_per_word: float | None
    image_reason: str


class ModelOut(BaseModel):
    """The model that answers, and the limits of the service."""

    name: str
    version: str
    system: str
    paper: str
    labels: list[str]
    reads_images: bool
    weighs_images: bool
    parameters: int
    limits: dict[str, int]


class ExampleOut(BaseModel):
    """A post to try; `image` is where its image is, on this service."""

    text: str
    image: str | None
    caption: str


def explanation_out(
    found: Explanation, text_only: Prediction | None, image_reason: str
) -> ExplanationOut:
    """An explanation, small enough to be asked for at every move of a slider."""
    post, attention = found.post, None
    if found.attention is not None and found.boxes is not None:
        attention = AttentionOut(
            all=found.attention.sum(0).round(DECIMALS).tolist(),
            words=found.attention.round(DECIMALS).tolist(),
            boxes=found.boxes.astype(float).round(DECIMALS).tolist(),
        )
    spans = zip(post.words, post.spans, strict=True)
    return ExplanationOut(
        prediction=found.prediction,
        text_only=text_only,
        words=[WordOut(text=word, start=start, end=end) for word, (start, end) in spans],
        attention=attention,
        s_tv=found.s_tv,
        s_tv_per_word=found.s_tv_per_word,
        image_reason=image_reason,
    )
