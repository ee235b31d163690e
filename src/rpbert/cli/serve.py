"""`rpbert serve`: a model over HTTP, with a page; `rpbert demo`: one made on the spot."""

from __future__ import annotations

import inspect
import shlex
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rpbert.cli.common import Backend, Json, ModelPath, Precision, print_json, progress
from rpbert.errors import InputError
from rpbert.service.limits import ServiceSettings

if TYPE_CHECKING:
    from rpbert.inference import Tagger
    from rpbert.service.limits import Keys

Host = Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 is all of them.")]
Port = Annotated[int, typer.Option(help="Port to listen at; 0 takes any that is free.")]


def serve(
    model: ModelPath,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    keys: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="API keys, one a line; else RPBERT_API_KEYS, else none."),
    ] = None,
    examples: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Posts of the page, .jsonl or .parquet.")
    ] = None,
    precision: Precision = "fp32",
    backend: Backend = "torch",
    **limits: Any,
) -> None:
    """Serve a model over HTTP, with a page to look at it."""
    settings = ServiceSettings(**limits)
    _needs_extra()
    from rpbert.inference import Tagger
    from rpbert.service.limits import Keys

    opened = Keys.read(keys)  # before the model, which takes longer
    tagger = Tagger.from_pretrained(model, precision=precision, backend=backend)
    _run(tagger, _name(model), host, port, settings, opened, examples)


def demo(
    output: Annotated[
        Path, typer.Option("--output", metavar="DIR", help="Where data and models go.")
    ] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="Decides data and training.")] = 0,
    serve: Annotated[
        bool,
        typer.Option("--serve", help="Serve its model with the page; made first if there is none."),
    ] = False,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    as_json: Json = False,
) -> None:
    """The main job on made data in a few minutes, its result as a table."""
    if serve:
        _needs_extra()
        from rpbert.service.limits import Keys
        from rpbert.service.server import listen

        keys = Keys.read(None)
        listen(host, port).close()  # an address that is taken is better heard of before training
    from rpbert.inference import Tagger
    from rpbert.synthetic import demo as library

    earlier = library.finished(output, seed) if serve else None
    if earlier is None:
        result = library.demo(output, seed, say=progress)
        earlier = result.to_dict()
        if not as_json:
            from rpbert.cli.show import print_demo

            print_demo(result)
    else:
        again = shlex.join(["rpbert", "demo", "--output", str(output), "--seed", str(seed)])
        progress(f"the demo of seed {seed} is there, in {output}; `{again}` makes it anew")
    if as_json:
        print_json(earlier)
    if serve:
        tagger = Tagger.from_pretrained(output / "rpbert")
        _run(tagger, "the demo's rpbert", host, port, ServiceSettings(), keys)


def _needs_extra() -> None:
    """Say how to install what serving needs, before anything is loaded or trained."""
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        found = f"no {error.name}"
        raise InputError("serving", found, "the extra", "pip install 'rpbert[serve]'") from None


def _run(
    tagger: Tagger,
    name: str,
    host: str,
    port: int,
    settings: ServiceSettings,
    keys: Keys,
    examples: Path | None = None,
) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    from rpbert.data.words import SPLITTERS
    from rpbert.service.app import Service, create_app
    from rpbert.service.pages import made_examples, read_examples
    from rpbert.service.server import address, listen, run

    shown = made_examples()
    if examples is not None:
        shown = read_examples(examples, SPLITTERS[tagger.model.vocabulary.marks])
    guard = create_app(Service(tagger, name, settings, shown), keys)
    listener = listen(host, port)
    locked = "" if keys else "; no API keys, open to all who reach it"
    progress(f"{address(listener)} (Ctrl-C stops{locked})")
    run(guard, listener)


def _name(model: str) -> str:
    """What clients are told of the model: its hub id or the name of its run, no path."""
    folder = Path(model)
    if not folder.exists():
        return model
    folder = folder.resolve()
    return folder.parent.name if folder.name == "model" else folder.name


def _with_limits(parameters: inspect.Signature) -> inspect.Signature:
    """The command's parameters, with an option for each field of the settings."""
    own = [p for p in parameters.parameters.values() if p.kind is not p.VAR_KEYWORD]
    for one in fields(ServiceSettings):
        kind: Any = int if one.type == "int" else float
        option = Annotated[kind, typer.Option(help=one.metadata["help"])]
        own.append(
            inspect.Parameter(
                one.name, inspect.Parameter.KEYWORD_ONLY, default=one.default, annotation=option
            )
        )
    return parameters.replace(parameters=own)


serve.__signature__ = _with_limits(inspect.signature(serve, eval_str=True))  # type: ignore[attr-defined]
