"""The service: what is answered at which path."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeAlias, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from prometheus_client import generate_latest
from starlette.exceptions import HTTPException

import rpbert
from rpbert.analysis import explain
from rpbert.inference import Tagger
from rpbert.models import registered
from rpbert.models.rpbert import RpBert
from rpbert.service import schema
from rpbert.service.batching import Batcher, Work
from rpbert.service.guard import Guard, Metrics
from rpbert.service.intake import Intake, Ready
from rpbert.service.limits import ServiceSettings
from rpbert.service.pages import FOLDER, PAGE, Example
from rpbert.service.schema import Failure, internal, too_large
from rpbert.types import TEXTS, Prediction

Answer = TypeVar("Answer")
Listed: TypeAlias = Prediction | schema.FailureOut
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

    async def predict(self, request: Request) -> Listed | list[Listed]:
        """Tag a post, or a list of posts in its order; in it, a post that fails gets an `error`."""
        async with asyncio.timeout(self.settings.deadline):
            sent = await self._sent(request)
            values = sent if isinstance(sent, list) else [sent]
            if len(values) > self.settings.max_posts:
                raise too_large("posts", str(len(values)), self.settings.max_posts)
            read = self.intake.post_or_failure
            ready = [await self._beside(read, value, i) for i, value in enumerate(values)]
            posts = [one.post for one in ready if isinstance(one, Ready)]
            tagged = iter(await self.batcher.answers(self.work, posts))
            answers: list[Listed] = []
            for i, one in enumerate(ready):
                found = one if isinstance(one, Failure) else next(tagged)
                self.metrics.post(found)
                if isinstance(one, Ready) and isinstance(found, Prediction):
                    answers.append(found.above(one.threshold))
                elif isinstance(sent, list):
                    id = one.post.id if isinstance(one, Ready) else str(i)
                    answers.append(schema.FailureOut(error=found.error, id=id))
                else:
                    raise found
            return answers if isinstance(sent, list) else answers[0]

    async def explain(self, request: Request) -> schema.ExplanationOut:
        """Tag one post and show where on its image the words look; r may be set by hand."""
        async with asyncio.timeout(self.settings.deadline):
            sent = await self._sent(request)
            ready = await self._beside(self.intake.post, sent, schema.ExplainIn)
            look = Work("explain", lambda p: [explain(self.tagger, p[0], ready.relation)], 1)
            (found,) = await self.batcher.answers(look, [ready.post])
            self.metrics.post(found if isinstance(found, Failure) else found.prediction)
            text_only = attention = None
            if _raised(found).prediction.image == "used":
                blind = ready.post.with_(image=None, **dict.fromkeys(TEXTS))
                (text_only,) = await self.batcher.answers(self.work, [blind])
                text_only = _raised(text_only).above(ready.threshold)
            if found.attention is not None and found.boxes is not None:
                weights = {"all": found.attention.sum(0), "words": found.attention}
                attention = schema.AttentionOut(**weights, boxes=found.boxes)
            spans = zip(found.post.words, found.post.spans, strict=True)
            return schema.ExplanationOut(
                prediction=found.prediction.above(ready.threshold),
                text_only=text_only,
                words=[schema.WordOut(text=word, start=at, end=end) for word, (at, end) in spans],
                attention=attention,
                s_tv=found.s_tv,
                s_tv_per_word=found.s_tv_per_word,
                image_reason=found.prediction.image_reason,
            )

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

    async def example_image(self, number: str) -> Response:
        """The image of an example."""
        numbered = {str(i): one for i, one in enumerate(self.examples) if one.image}
        if number not in numbered:
            raise Failure(404, "not_found", "no image of an example")
        return Response(numbered[number].image, media_type=numbered[number].media)

    async def healthz(self) -> JSONResponse:
        """Whether the service should be kept running."""
        alive = self.batcher.alive()
        return JSONResponse({"status": "ok" if alive else "failed"}, 200 if alive else 500)

    async def readyz(self, request: Request) -> JSONResponse:
        """Whether the service takes requests."""
        ready = self.batcher.alive() and not request.app.state.draining
        return JSONResponse({"status": "ready" if ready else "stopping"}, 200 if ready else 503)

    async def _sent(self, request: Request) -> Any:
        """What the client sent."""
        self.batcher.check()  # before anything is decoded
        kind = request.headers.get("content-type", "")
        return await self._beside(self.intake.sent, kind, await request.body())

    async def _beside(self, task: Callable[..., Answer], *arguments: Any) -> Answer:
        """Run a task of the intake beside the event loop."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.readers, task, *arguments)


def _raised(answer: Answer | Failure) -> Answer:
    if isinstance(answer, Failure):
        raise answer
    return answer


def create_app(service: Service, keys: frozenset[bytes] = frozenset()) -> Guard:
    """The service as an ASGI application that opens to `keys`, see `read_keys`."""
    app = FastAPI(
        title="rpbert",
        version=rpbert.__version__,
        description="Named entities of social posts with images.",
        lifespan=service.lifespan,
        docs_url=None,  # FastAPI's own loads scripts from another host
        redoc_url=None,
        exception_handlers=dict.fromkeys(KINDS, _answer_failure),
        responses={"default": {"model": schema.FailureOut}},
    )
    post, look = schema.request_body(schema.PostIn), schema.request_body(schema.ExplainIn)
    named: dict[str, Any] = {"response_model_exclude_defaults": True}  # `sources`, if there are any
    app.post("/v1/predict", openapi_extra=post, **named)(service.predict)
    app.post("/v1/explain", openapi_extra=look, **named)(service.explain)
    app.get("/v1/model")(service.model)
    app.get("/v1/examples")(service.list_examples)
    app.get("/v1/examples/{number}/image", response_class=Response)(service.example_image)
    app.get("/healthz")(service.healthz)
    app.get("/readyz")(service.readyz)
    app.get("/metrics", response_class=Response)(service.counts)
    for path, name in PAGE.items():
        app.get(path, include_in_schema=False)(partial(_file, name))
    return Guard(app, service.settings, keys, service.metrics)


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
