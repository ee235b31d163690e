"""What goes in and comes out as JSON; FastAPI makes the OpenAPI document of these."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from rpbert.types import Prediction


def _clean(value: Any) -> Any:
    """A lone surrogate, which JSON can hold and no encoder takes, as U+FFFD; offsets stay."""
    return re.sub("[\ud800-\udfff]", "\ufffd", value) if isinstance(value, str) else value


def _rounded(numbers: Any) -> Any:
    """Small enough to be asked for at every move of a slider."""
    return np.asarray(numbers, float).round(6).tolist()


Text = Annotated[str, BeforeValidator(_clean)]
Share = Annotated[float, Field(ge=0, le=1)]
Rows = Annotated[list[list[float]], BeforeValidator(_rounded)]


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
    threshold: Share = 0.0
    """Entities with a score below it are left out."""


class ExplainIn(PostIn):
    """A post to look into."""

    relation: Share | None = None
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
    """An error in place of an answer; of a post of a list, with its `id`."""

    error: Error
    id: str | None = None


class Failure(HTTPException):
    """A request, or one post of it, that cannot be answered."""

    def __init__(
        self, status: int, code: str, reason: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, reason, headers)
        self.error = Error(code=code, reason=reason)

    def response(self) -> JSONResponse:
        """The failure as an answer."""
        return JSONResponse({"error": dict(self.error)}, self.status_code, self.headers)


def invalid(reason: str) -> Failure:
    """The request holds no valid post."""
    return Failure(422, "invalid", reason)


def too_large(what: str, found: str, most: object) -> Failure:
    """The request is beyond a limit of the service."""
    return Failure(413, "too_large", f"{what}: {found}; at most {most}")


def busy(reason: str, seconds: int) -> Failure:
    """The service holds as much work as it may."""
    headers = {"Retry-After": str(seconds)}
    return Failure(503, "busy", f"{reason}; try again in {seconds} s", headers)


def internal() -> Failure:
    """A fault of the service; its log has the stack."""
    return Failure(500, "internal", "the service failed on this; its log says why")


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

    all: Rows
    words: Annotated[list[list[list[float]]], BeforeValidator(_rounded)]
    boxes: Rows


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
