"""What the OpenAPI document says of each path."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from rpbert.service.schema import (
    ExampleOut,
    ExplainForm,
    ExplainIn,
    ExplanationOut,
    FailureOut,
    ModelOut,
    PostFailureOut,
    PostForm,
    PostIn,
    PredictionOut,
)

PATHS = frozenset(
    (
        *("/v1/predict", "/v1/explain", "/v1/model", "/v1/examples", "/v1/examples/{number}/image"),
        *("/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"),
    )
)

REASONS = {
    400: "The body is no JSON, or no form.",
    401: "The service has API keys, and none of them was sent.",
    404: "There is nothing at this address.",
    408: "The request did not arrive in time.",
    413: "The body, or a post of it, is beyond a limit.",
    415: "Neither JSON nor a form.",
    422: "What was sent is no post.",
    500: "The service failed; its log says why.",
    503: "Too much waits; `Retry-After` tells when there should be room.",
    504: "The deadline passed.",
}


def _failures(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {s: {"model": FailureOut, "description": REASONS[s]} for s in statuses}


def _body(json_schema: dict[str, Any], form: type[BaseModel]) -> dict[str, Any]:
    content = {
        "application/json": {"schema": json_schema},
        "multipart/form-data": {"schema": form.model_json_schema()},
    }
    return {"requestBody": {"required": True, "content": content}}


_POST = PostIn.model_json_schema()
_TAKES_POSTS = _failures(400, 401, 408, 413, 415, 422, 500, 503, 504)

PREDICT: dict[str, Any] = {
    "summary": "Tag posts",
    "openapi_extra": _body({"anyOf": [_POST, {"type": "array", "items": _POST}]}, PostForm),
    "responses": {
        200: {"model": PredictionOut | list[PredictionOut | PostFailureOut]},
        **_TAKES_POSTS,
    },
}
EXPLAIN: dict[str, Any] = {
    "summary": "Look into a post",
    "openapi_extra": _body(ExplainIn.model_json_schema(), ExplainForm),
    "responses": {200: {"model": ExplanationOut}, **_TAKES_POSTS},
}
MODEL: dict[str, Any] = {
    "summary": "The model",
    "responses": {200: {"model": ModelOut}, **_failures(401)},
}
EXAMPLES: dict[str, Any] = {
    "summary": "Examples",
    "responses": {200: {"model": list[ExampleOut]}, **_failures(401)},
}
EXAMPLE_IMAGE: dict[str, Any] = {
    "summary": "An example's image",
    "responses": {
        200: {"content": {"image/*": {}}, "description": "The file."},
        **_failures(401, 404),
    },
}
HEALTH: dict[str, Any] = {
    "summary": "Is it alive?",
    "responses": {500: {"description": "It is not, and should be started anew."}},
}
READY: dict[str, Any] = {
    "summary": "Is it ready?",
    "responses": {503: {"description": "It is being stopped."}},
}
METRICS: dict[str, Any] = {
    "summary": "Counts for Prometheus",
    "responses": {
        200: {"content": {"text/plain": {}}, "description": "Requests, latency, batches, images."},
        **_failures(401),
    },
}
