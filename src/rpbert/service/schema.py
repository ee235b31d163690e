"""What goes in and comes out as JSON; the OpenAPI document is made of these."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from rpbert.types import ImageStatus


def _clean(value: Any) -> Any:
    """A lone surrogate, which JSON can hold and no encoder takes, as U+FFFD; offsets stay."""
    if not isinstance(value, str):
        return value
    return "".join("\ufffd" if "\ud800" <= sign <= "\udfff" else sign for sign in value)


Text = Annotated[str, BeforeValidator(_clean)]


class Sent(BaseModel):
    """Base of what clients send: a key nobody reads is an error."""

    model_config = ConfigDict(extra="forbid", strict=True)


class PostIn(Sent):
    """A post: `text`, `tokens` or both, and an image if there is one."""

    id: Annotated[str, Field(max_length=200), BeforeValidator(_clean)] | int | None = Field(
        None, description="Comes back with the answer."
    )
    text: Text | None = Field(None, description="The raw text; offsets count its characters.")
    tokens: list[Text] | None = Field(None, description="Its words, where they are known.")
    image: str | None = Field(
        None,
        description="A JPEG, PNG, GIF, WEBP or BMP file in base64; never a path or an address.",
    )
    caption: Text | None = Field(
        None, description="What the image shows, for a model that reads captions."
    )


class ExplainIn(PostIn):
    """A post to look into."""

    relation: float | None = Field(
        None, ge=0, le=1, description="r to read the image with, in place of the model's own."
    )


class PostForm(Sent):
    """A post as a form."""

    text: str
    id: str | None = None
    image: bytes | None = Field(None, description="The image file itself.")
    caption: str | None = None


class ExplainForm(PostForm):
    """A post to look into, as a form."""

    relation: float | None = Field(None, ge=0, le=1)


class EntityOut(BaseModel):
    """A named entity: `text` is what the post holds from `start` to `end`."""

    text: str
    label: str
    start: int
    end: int
    score: float = Field(description="Probability of exactly this span with this label.")


class SourceOut(BaseModel):
    """The relation score of one kind of evidence."""

    evidence: str
    image: int
    relation: float


class PredictionOut(BaseModel):
    """What the tagger says of a post, as `rpbert predict` writes it."""

    id: str
    text: str
    entities: list[EntityOut]
    relation: float | None = Field(
        description="r, how much of the image was let through; null without a relation gate."
    )
    image: ImageStatus
    sources: list[SourceOut] = Field(
        [], description="r of each kind of evidence, of a model that combines several."
    )


class Error(BaseModel):
    """Why there is no answer."""

    code: str = Field(description="One word for programs.")
    reason: str = Field(description="A sentence for people.")


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
    """Attention to the blocks of the image (Eq. 11), rows from the top, to six decimals.

    Other evidence, such as regions, stands in one row.
    """

    all: list[list[float]] = Field(description="Of all words together.")
    words: list[list[list[float]]] = Field(description="Of each word by itself.")
    boxes: list[list[float]] = Field(
        description="What each block shows of the image: x0, y0, x1, y1 in shares of its sides."
    )


class ExplanationOut(BaseModel):
    """A prediction, the attention that led to it, and what the text alone gives."""

    prediction: PredictionOut
    text_only: PredictionOut | None = Field(description="Null where no image was read.")
    words: list[WordOut]
    attention: AttentionOut | None = Field(description="Null where no image was read.")
    s_tv: float | None = Field(description="S_TV (Eq. 10).")
    s_tv_per_word: float | None
    image_reason: str = Field(description="Why the image is unreadable, else empty.")


class ModelOut(BaseModel):
    """The model that answers, and what the service takes."""

    name: str
    version: str
    system: str
    paper: str
    labels: list[str]
    reads_images: bool
    weighs_images: bool
    parameters: int
    limits: dict[str, float]


class ExampleOut(BaseModel):
    """A post to try."""

    text: str
    image: str | None = Field(description="Where its image is, on this service.")
    caption: str
