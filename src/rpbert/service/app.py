"""The service: what is answered at which path."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from prometheus_client import generate_latest
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

import rpbert
from rpbert.analysis import explain
from rpbert.inference import Tagger
from rpbert.models import registered
from rpbert.models.rpbert import RpBert
from rpbert.service import schema
from rpbert.service.batching import Batcher, Work
from rpbert.service.guard import Guard, Metrics
from rpbert.service.intake import Intake, Ready, Sent
from rpbert.service.limits import Failure, Keys, ServiceSettings, internal, invalid
from rpbert.service.pages import FOLDER, PAGE, Example
from rpbert.types import TEXTS, Prediction

Answer = TypeVar("Answer")
Listed: TypeAlias = Prediction | schema.PostFailureOut
KINDS = (Failure, HTTPException, TimeoutError, Exception)  # of what goes wrong


class Service:
    """A model under the `name` that clients see, with its queue, its limits and its counts."""

    def __init__(
        self, tagger: Tagger, name: str, settings: ServiceSettings, examples: Sequence[Example]
    ) -> None:
        self.tagger, self.name, self.settings, self.examples = tagger, name, settings, examples
        self.intake = Intake(tagger, settings)
        self.metrics = Metrics(lambda: len(self.batcher))
        self.batcher = Batcher(settings.batch_wait / 1000, settings.queue, self.metrics.batch)
        run = partial(tagger.predict_batch, batch_size=settings.batch_size)
        self.work = Work("predict", run, settings.batch_size)
        # Bodies are parsed and images decoded here; more threads than cores only cost memory.
        self.readers = ThreadPoolExecutor(os.cpu_count(), "intake")

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Run the model's thread; at the end, finish what was accepted."""
        self.batcher.start()
        yield
        await self.batcher.close()
        self.readers.shutdown()

    async def predict(self, request: Request) -> Prediction | list[Listed]:
        """Tag a post, or a list of posts in its order; in it, a post that fails gets an `error`."""
        self.batcher.check()  # before anything is decoded
        async with asyncio.timeout(self.settings.deadline):
            sent = await self._sent(request)
            ready = [
                await self._read(self.intake.post_or_failure, one, index)
                for index, one in enumerate(self.intake.each(sent))
            ]
            answers = await self._tag(ready)
            if not isinstance(sent.values, list):
                return _raised(answers[0])
            ids = [one.post.id if isinstance(one, Ready) else str(i) for i, one in enumerate(ready)]
            return [
                schema.PostFailureOut(id=id, **answer.to_dict())
                if isinstance(answer, Failure)
                else answer
                for id, answer in zip(ids, answers, strict=True)
            ]

    async def explain(self, request: Request) -> schema.ExplanationOut:
        """Tag one post and show where on its image the words look; r may be set by hand."""
        self.batcher.check()
        async with asyncio.timeout(self.settings.deadline):
            sent = await self._sent(request)
            ready = await self._read(self.intake.post, sent, schema.ExplainIn)
            look = Work("explain", lambda p: [explain(self.tagger, p[0], ready.relation)], 1)
            (found,) = await self.batcher.answers(look, [ready.post])
            self.metrics.post(found if isinstance(found, Failure) else found.prediction)
            text_only = None
            if _raised(found).prediction.image == "used":
                blind = ready.post.with_(image=None, **dict.fromkeys(TEXTS))
                (text_only,) = await self.batcher.answers(self.work, [blind])
                text_only = _raised(text_only).above(ready.threshold)
            shown = _raised(found)
            shown = replace(shown, prediction=shown.prediction.above(ready.threshold))
            return schema.explanation_out(shown, text_only, ready.image_reason)

    async def model(self) -> schema.ModelOut:
        """The model that answers, and the limits of the service."""
        model = self.tagger.model
        return schema.ModelOut(
            name=self.name,
            version=rpbert.__version__,
            system=model.options.system,
            paper=registered(model.options.system).paper,
            labels=sorted({tag[2:] for tag in model.vocabulary.tags if tag != "O"}),
            reads_images=self.intake.reads_images,
            weighs_images=isinstance(model.system, RpBert),
            parameters=sum(p.numel() for p in model.system.parameters()),
            limits=self.settings.limits(),
        )

    async def counts(self) -> Response:
        """Counts for Prometheus."""
        content = generate_latest(self.metrics.registry)
        return Response(content, media_type="text/plain; version=0.0.4")

    async def list_examples(self) -> list[schema.ExampleOut]:
        """Posts to try."""
        paths = (f"/v1/examples/{i}/image" for i in range(len(self.examples)))
        return [
            schema.ExampleOut(text=one.text, image=path if one.image else None, caption=one.caption)
            for path, one in zip(paths, self.examples, strict=True)
        ]

    async def example_image(self, request: Request) -> Response:
        """The image of an example."""
        numbered = {str(i): one for i, one in enumerate(self.examples) if one.image}
        example = numbered.get(request.path_params["number"])
        if example is None:
            raise Failure(404, "not_found", "no image of an example")
        return Response(example.image, media_type=example.media)

    async def _read(self, task: Callable[..., Answer], *arguments: Any) -> Answer:
        """Run a task of the intake beside the event loop."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.readers, partial(task, *arguments))

    async def _sent(self, request: Request) -> Sent:
        """The JSON value of a request, or its form."""
        # As the parser of forms reads it, for which the client would else choose a codec.
        kind, options = parse_options_header(request.headers.get("content-type"))
        if options.get(b"charset", b"utf-8").lower() not in (b"utf-8", b"utf8"):
            raise Failure(415, "charset", "expected UTF-8")
        if kind == b"application/json":
            return Sent(await self._read(self.intake.parsed, await request.body()))
        if kind != b"multipart/form-data":
            raise Failure(415, "media_type", "expected application/json or multipart/form-data")
        fields: dict[str, Any] = {}
        file = None
        size = self.settings.limits()["body_bytes"]
        async with request.form(max_files=1, max_fields=8, max_part_size=size) as form:
            for key, value in form.multi_items():
                if key in fields:
                    raise invalid(f"the field {key!a:.40} occurs twice")
                if isinstance(value, UploadFile) != (key == "image"):
                    raise invalid("expected a file as image, and text in every other field")
                if not isinstance(value, UploadFile):
                    fields[key] = value
                elif value.filename or value.size:  # a form sends an empty one where none is chosen
                    file = await value.read()
        return Sent(fields, file, is_form=True)

    async def _tag(self, ready: Sequence[Ready | Failure]) -> list[Prediction | Failure]:
        """The prediction of each post, or why there is none."""
        posts = [one.post for one in ready if isinstance(one, Ready)]
        found = iter(await self.batcher.answers(self.work, posts))
        answers = [one if isinstance(one, Failure) else next(found) for one in ready]
        for answer in answers:
            self.metrics.post(answer)
        return [
            answer.above(one.threshold)
            if isinstance(answer, Prediction) and isinstance(one, Ready)
            else answer
            for one, answer in zip(ready, answers, strict=True)
        ]


def _raised(answer: Answer | Failure) -> Answer:
    if isinstance(answer, Failure):
        raise answer
    return answer


def create_app(service: Service, keys: Keys, *hosts: str) -> Guard:
    """The service as an ASGI application; `hosts` are names that it answers for, see `Guard`."""
    app = FastAPI(
        title="rpbert",
        version=rpbert.__version__,
        description="Named entities of social posts with images.",
        lifespan=service.lifespan,
        docs_url=None,  # FastAPI's own loads scripts from another host
        redoc_url=None,
        exception_handlers=dict.fromkeys(KINDS, _answer_failure),
    )
    guard = Guard(app, service.settings, keys, service.metrics, *hosts)
    posts: dict[str, Any] = {
        "responses": _failures(400, 401, 408, 413, 415, 422, 500, 503, 504),
        "response_model_exclude_defaults": True,  # `sources`, where there is one
    }
    post, look = schema.request_body(schema.PostIn), schema.request_body(schema.ExplainIn)
    app.post("/v1/predict", openapi_extra=post, **posts)(service.predict)
    app.post("/v1/explain", openapi_extra=look, **posts)(service.explain)
    app.get("/v1/model", responses=_failures(401))(service.model)
    app.get("/v1/examples", responses=_failures(401))(service.list_examples)
    number = {"name": "number", "in": "path", "required": True, "schema": {"type": "integer"}}
    image: dict[str, Any] = {
        "responses": _failures(401, 404) | {200: {"content": {"image/*": {}}}},
        "openapi_extra": {"parameters": [number]},
        "response_class": Response,
    }
    app.get("/v1/examples/{number}/image", **image)(service.example_image)

    @app.get("/healthz", responses={500: {}})
    async def healthz() -> JSONResponse:
        """Whether the service should be kept running."""
        alive = service.batcher.alive()
        return JSONResponse({"status": "ok" if alive else "failed"}, 200 if alive else 500)

    @app.get("/readyz", responses={503: {}})
    async def readyz() -> JSONResponse:
        """Whether the service takes requests."""
        ready = service.batcher.alive() and not guard.draining
        return JSONResponse({"status": "ready" if ready else "stopping"}, 200 if ready else 503)

    counts = _failures(401) | {200: {"content": {"text/plain": {}}}}
    app.get("/metrics", responses=counts, response_class=Response)(service.counts)
    for path, name in PAGE.items():
        app.get(path, include_in_schema=False)(partial(_file, name))
    return guard


def _failures(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": schema.FailureOut} for status in statuses}


async def _file(name: str) -> FileResponse:
    return FileResponse(FOLDER / name, headers={"Cache-Control": "no-cache"})


async def _answer_failure(_: Request, error: Exception) -> JSONResponse:
    """Whatever goes wrong is answered as JSON with a reason."""
    match error:
        case Failure():
            failure = error
        case HTTPException(status_code=status):
            code = {400: "malformed", 404: "not_found", 405: "method"}.get(status, "refused")
            reason = "there is nothing at this address" if status == 404 else str(error.detail)
            failure = Failure(status, code, reason, error.headers)
        case TimeoutError():
            failure = Failure(504, "deadline", "no answer within the deadline of this service")
        case _:
            failure = internal()
    return failure.response()
