"""`rpbert serve`: a model over HTTP, with a page; `rpbert demo`: one made on the spot."""

from __future__ import annotations

import inspect
import shlex
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rpbert.cli import common
from rpbert.errors import InputError
from rpbert.service.limits import ServiceSettings

if TYPE_CHECKING:
    from rpbert.inference import Tagger
    from rpbert.service.guard import Guard
    from rpbert.service.limits import Keys

Host = Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 is all of them.")]
Port = Annotated[int, typer.Option(help="Port to listen at; 0 takes any that is free.")]


def serve(
    model: common.ModelPath,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    keys: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="API keys, one a line; else RPBERT_API_KEYS, else none."),
    ] = None,
    examples: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Posts of the page, .jsonl or .parquet.")
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A host to answer for, whose pages may ask; *.NAME too."),
    ] = None,
    precision: common.Precision = "fp32",
    backend: common.Backend = "torch",
    **limits: Any,
) -> None:
    """Serve a model over HTTP, with a page to look at it."""
    settings = ServiceSettings(**limits)
    _needs_extra()
    from rpbert.inference import Tagger
    from rpbert.service.limits import Keys

    opened = Keys.read(keys)  # before the model, which takes longer
    tagger = Tagger.from_pretrained(model, precision=precision, backend=backend)
    guard = _guard(tagger, _name(model), settings, opened, examples, *allow_host or ())
    _run(guard, host, port)


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
    as_json: common.Json = False,
) -> None:
    """The main job on made data in a few minutes, its result as a table."""
    if serve:
        _needs_extra()
        from rpbert.service.limits import Keys
        from rpbert.service.server import listen

        keys = Keys.read(None)
        listen(host, port).close()  # an address that is taken is better heard of before training
    from rpbert.cli.show import print_demo
    from rpbert.inference import Tagger
    from rpbert.synthetic import demo as library

    if serve and (found := library.finished(output, seed)):
        again = shlex.join(["rpbert", "demo", "--output", str(output), "--seed", str(seed)])
        common.progress(f"the demo of seed {seed} is there, in {output}; `{again}` makes it anew")
        common.print_result(found, as_json, lambda _: None)
    else:
        common.print_result(library.demo(output, seed, say=common.progress), as_json, print_demo)
    if serve:
        tagger = Tagger.from_pretrained(output / "rpbert")
        guard = _guard(tagger, "the demo's rpbert", ServiceSettings(), keys, None)
        _run(guard, host, port)


def _needs_extra() -> None:
    """Say how to install what serving needs, before anything is loaded or trained."""
    for module in ("fastapi", "prometheus_client", "python_multipart", "uvicorn"):
        if not find_spec(module):
            raise InputError("serving", f"no {module}", "the extra", "pip install 'rpbert[serve]'")


def _guard(
    tagger: Tagger,
    name: str,
    settings: ServiceSettings,
    keys: Keys,
    examples: Path | None,
    *hosts: str,
) -> Guard:
    from rpbert.data.words import SPLITTERS
    from rpbert.service.app import Service, create_app
    from rpbert.service.pages import made_examples, read_examples

    split = SPLITTERS[tagger.model.vocabulary.marks]
    shown = made_examples() if examples is None else read_examples(examples, split)
    return create_app(Service(tagger, name, settings, shown), keys, *hosts)


def _run(guard: Guard, host: str, port: int) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    from rpbert.service.server import address, listen, run

    listener = listen(host, port)
    guard.names.add(host.lower())
    locked = "" if guard.keys else "; no API keys, open to all who reach it"
    common.progress(f"{address(listener)} (Ctrl-C stops{locked})")
    run(guard, listener)


def _name(model: str) -> str:
    """What clients see as the model's name: its hub id or the name of its run, no path."""
    if not Path(model).exists():
        return model
    folder = Path(model).resolve()
    return folder.parent.name if folder.name == "model" else folder.name


def _with_limits(command: Any) -> inspect.Signature:
    """The command's parameters, with an option for each field of the settings."""
    signature = inspect.signature(command, eval_str=True)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    for one in fields(ServiceSettings):
        kind: Any = int if one.type == "int" else float
        option = Annotated[kind, typer.Option(help=one.metadata["help"])]
        given = {"default": one.default, "annotation": option}
        own.append(inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, **given))
    return signature.replace(parameters=own)


serve.__signature__ = _with_limits(serve)  # type: ignore[attr-defined]
