"""The service: what is answered at which path."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from importlib.resources import files
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

import rpbert
from rpbert.analysis import explain
from rpbert.inference import Tagger
from rpbert.models import registered
from rpbert.models.rpbert import RpBert
from rpbert.service import openapi
from rpbert.service.batching import Batcher, Work
from rpbert.service.deadline import Deadline
from rpbert.service.docs import docs_page
from rpbert.service.examples import Example
from rpbert.service.explanation import explanation_json
from rpbert.service.failures import Failure, internal
from rpbert.service.guard import Guard
from rpbert.service.intake import Intake, Ready
from rpbert.service.keys import Keys
from rpbert.service.metrics import Metrics
from rpbert.service.schema import ExplainIn, PostIn
from rpbert.service.settings import ServiceSettings
from rpbert.types import Post, Prediction

Answer = TypeVar("Answer")

PAGE = {
    "/": ("index.html", "text/html"),
    "/app.js": ("app.js", "text/javascript"),
    "/heat.js": ("heat.js", "text/javascript"),
    "/sentences.js": ("sentences.js", "text/javascript"),
    "/style.css": ("style.css", "text/css"),
    "/docs.css": ("docs.css", "text/css"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
"""Files of the page by their path."""
OPEN = frozenset(PAGE) | {"/healthz", "/readyz", "/docs", "/openapi.json"}
"""Paths that need no key: they tell of no post, and a page must load to ask for the key."""


class Service:
    """A model with its queue, its limits and its counts.

    Args:
        tagger: the model.
        name: what clients are told that it is called.
        examples: posts to try on the page.
    """

    def __init__(
        self,
        tagger: Tagger,
        name: str,
        settings: ServiceSettings,
        examples: Sequence[Example] = (),
    ) -> None:
        self.tagger = tagger
        self.name = name
        self.settings = settings
        self.examples = examples
        self.intake = Intake(tagger, settings)
        self.metrics = Metrics(
            lambda: len(self.batcher), frozenset(openapi.PATHS) | frozenset(PAGE)
        )
        self.batcher = Batcher(settings.batch_wait / 1000, settings.queue, self.metrics)
        self.predict = Work("predict", self._predict, settings.batch_size)
        # Bodies are parsed and images decoded here; more threads than cores only cost memory.
        self.readers = ThreadPoolExecutor(os.cpu_count(), "intake")

    def _predict(self, posts: Sequence[Post]) -> Sequence[Prediction]:
        return self.tagger.predict_batch(posts, len(posts))

    def begin(self) -> Deadline:
        """The deadline of a request that begins, before anything is decoded for it.

        Raises:
            Failure: too many posts wait.
        """
        self.batcher.check()
        return Deadline(self.settings.deadline)

    async def read(
        self, deadline: Deadline, task: Callable[..., Answer], *arguments: Any
    ) -> Answer:
        """Run a task of the intake beside the event loop.

        Raises:
            Failure: the task's own, or the deadline passed.
        """
        loop = asyncio.get_running_loop()
        async with deadline.kept():
            return await loop.run_in_executor(self.readers, partial(task, *arguments))

    async def tag(
        self, ready: Sequence[Ready | Failure], deadline: Deadline
    ) -> list[Prediction | Failure]:
        """The prediction of each post, or why there is none.

        Raises:
            Failure: too many posts wait, or the deadline passed.
        """
        posts = [one.post for one in ready if isinstance(one, Ready)]
        found = iter(await self.batcher.answers(self.predict, posts, deadline))
        answers = [one if isinstance(one, Failure) else next(found) for one in ready]
        for answer in answers:
            self.metrics.post(answer)
        return answers

    async def explain(self, ready: Ready, deadline: Deadline) -> dict[str, Any]:
        """A prediction, the attention that led to it, and what the text alone gives.

        Raises:
            Failure: the service is busy, late or failed.
        """
        post = ready.post
        look = Work("explain", lambda posts: [explain(self.tagger, posts[0], ready.relation)], 1)
        (found,) = await self.batcher.answers(look, [post], deadline)
        self.metrics.post(found if isinstance(found, Failure) else found.prediction)
        if isinstance(found, Failure):
            raise found
        text_only = None
        if found.prediction.image == "used":
            blind = post.with_(image=None, caption=None)
            (text_only,) = await self.batcher.answers(self.predict, [blind], deadline)
            if isinstance(text_only, Failure):
                raise text_only
        return explanation_json(found, text_only, ready.image_reason)

    def describe(self) -> dict[str, Any]:
        """The model, and what the service takes."""
        model, limits = self.tagger.model, self.settings
        entry = registered(model.options.system)
        return {
            "name": self.name,
            "version": rpbert.__version__,
            "system": model.options.system,
            "paper": entry.paper,
            "labels": sorted({tag[2:] for tag in model.vocabulary.tags if tag != "O"}),
            "reads_images": self.intake.reads_images,
            "weighs_images": isinstance(model.system, RpBert),
            "parameters": sum(p.numel() for p in model.system.parameters()),
            "limits": {
                "posts": limits.max_posts,
                "text_characters": limits.max_text,
                "body_bytes": limits.body_bytes,
                "image_bytes": limits.image_bytes,
                "image_pixels": limits.image_pixels,
            },
        }

    async def close(self) -> None:
        """Finish what was accepted."""
        await asyncio.to_thread(self.batcher.close)
        self.readers.shutdown()


def create_app(service: Service, keys: Keys) -> Guard:
    """The service as an ASGI application."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.batcher.start()
        yield
        await service.close()

    app = FastAPI(
        title="rpbert",
        version=rpbert.__version__,
        description="Named entities of social posts with images.",
        lifespan=lifespan,
        docs_url=None,  # FastAPI's own loads scripts from another host
        redoc_url=None,
    )
    guard = Guard(app, service.settings, keys, service.metrics, OPEN)
    _answer_failures(app)
    _answer_posts(app, service)
    _answer_questions(app, service, guard)
    _serve_page(app, service)
    return guard


def _answer_posts(app: FastAPI, service: Service) -> None:
    @app.post("/v1/predict", **openapi.PREDICT)
    async def predict(request: Request) -> Response:
        """Tag a post, or a list of posts: a list in, a list out, in its order.

        In a list a post that fails gets an `error` in place of its prediction, and the others
        are tagged.
        """
        deadline = service.begin()
        if _is_form(request):
            ready: Ready | list[Ready | Failure] = await _form(request, service, PostIn, deadline)
        else:
            body = await request.body()
            ready = await service.read(deadline, service.intake.posts, body, deadline)
        if isinstance(ready, list):
            answers = await service.tag(ready, deadline)
            pairs = enumerate(zip(answers, ready, strict=True))
            return JSONResponse([_in_list(a, r, i) for i, (a, r) in pairs])
        (answer,) = await service.tag([ready], deadline)
        if isinstance(answer, Failure):
            raise answer
        return JSONResponse(answer.to_dict())

    @app.post("/v1/explain", **openapi.EXPLAIN)
    async def explain(request: Request) -> Response:
        """Tag one post and show where on its image the words look; r may be set by hand."""
        deadline = service.begin()
        if _is_form(request):
            ready = await _form(request, service, ExplainIn, deadline)
        else:
            values = await service.read(deadline, service.intake.parsed, await request.body())
            ready = await service.read(deadline, service.intake.post, values, ExplainIn)
        return JSONResponse(await service.explain(ready, deadline))


def _in_list(answer: Prediction | Failure, ready: Ready | Failure, index: int) -> dict[str, Any]:
    if isinstance(answer, Prediction):
        return answer.to_dict()
    return {"id": ready.post.id if isinstance(ready, Ready) else str(index), **answer.to_dict()}


def _is_form(request: Request) -> bool:
    """Whether the body is a form; else it must be JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("application/json", "multipart/form-data"):
        raise Failure(415, "media_type", "expected application/json or multipart/form-data")
    return kind == "multipart/form-data"


async def _form(
    request: Request, service: Service, model: type[PostIn], deadline: Deadline
) -> Ready:
    async with request.form(
        max_files=1, max_fields=8, max_part_size=service.settings.body_bytes
    ) as form:
        fields, image = {}, None
        for key, value in form.multi_items():
            if key in fields or (key == "image" and image is not None):
                raise Failure(422, "invalid", "a field occurs twice")
            if not isinstance(value, UploadFile):
                fields[key] = value
            elif key != "image":
                raise Failure(422, "invalid", "a file other than image")
            elif value.filename or value.size:  # a form sends an empty one where none was chosen
                image = await value.read()
    return await service.read(deadline, service.intake.form, fields, image, model)


def _answer_questions(app: FastAPI, service: Service, guard: Guard) -> None:
    @app.get("/v1/model", **openapi.MODEL)
    async def model() -> Response:
        """The model that answers, and what the service takes."""
        return JSONResponse(service.describe())

    @app.get("/v1/examples", **openapi.EXAMPLES)
    async def examples() -> Response:
        """Posts to try."""
        return JSONResponse([one.to_dict(i) for i, one in enumerate(service.examples)])

    @app.get("/v1/examples/{number}/image", **openapi.EXAMPLE_IMAGE)
    async def example_image(number: int) -> Response:
        """The image of an example."""
        if not 0 <= number < len(service.examples) or service.examples[number].image is None:
            raise Failure(404, "not_found", "no image of an example")
        example = service.examples[number]
        return Response(example.image, media_type=example.media)

    @app.get("/healthz", **openapi.HEALTH)
    async def healthz() -> Response:
        """Whether the service should go on living."""
        alive = service.batcher.alive
        return JSONResponse({"status": "ok" if alive else "failed"}, 200 if alive else 500)

    @app.get("/readyz", **openapi.READY)
    async def readyz() -> Response:
        """Whether the service takes requests."""
        ready = service.batcher.alive and not guard.draining
        return JSONResponse({"status": "ready" if ready else "stopping"}, 200 if ready else 503)

    @app.get("/metrics", **openapi.METRICS)
    async def metrics() -> Response:
        """Counts for Prometheus."""
        return Response(service.metrics.render(), media_type="text/plain; version=0.0.4")


def _serve_page(app: FastAPI, service: Service) -> None:
    folder = files("rpbert.service") / "page"
    for path, (name, media) in PAGE.items():
        content = (folder / name).read_bytes()
        app.get(path, include_in_schema=False)(_file(content, media))

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(docs_page(app.openapi()))


def _file(content: bytes, media: str) -> Callable[[], Any]:
    async def file() -> Response:
        return Response(content, media_type=media, headers={"Cache-Control": "no-cache"})

    return file


def _answer_failures(app: FastAPI) -> None:
    """Whatever goes wrong is answered as JSON with a reason."""

    def answer(failure: Failure) -> Response:
        return JSONResponse(failure.to_dict(), failure.status, failure.headers)

    @app.exception_handler(Failure)
    async def failed(_: Request, failure: Failure) -> Response:
        return answer(failure)

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> Response:
        return answer(_of_http(error.status_code, str(error.detail), error.headers))

    @app.exception_handler(RequestValidationError)
    async def misread(_: Request, __: RequestValidationError) -> Response:
        return answer(Failure(404, "not_found", "there is nothing at this address"))

    @app.exception_handler(Exception)
    async def broken(_: Request, __: Exception) -> Response:
        return answer(internal())


def _of_http(status: int, detail: str, headers: Mapping[str, str] | None) -> Failure:
    codes = {400: "malformed", 404: "not_found", 405: "method"}
    return Failure(status, codes.get(status, "refused"), detail, headers)
