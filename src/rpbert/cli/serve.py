"""`rpbert serve`: a model over HTTP, with a page; `rpbert demo`: one made on the spot."""

from __future__ import annotations

import inspect
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rpbert.cli import common
from rpbert.config.reading import parse
from rpbert.errors import InputError
from rpbert.service.limits import ServiceSettings, option_name, read_keys

if TYPE_CHECKING:
    from rpbert.inference import Tagger

Host = Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 is all of them.")]
Port = Annotated[int, typer.Option(help="Port to listen at; 0 takes any that is free.")]


def serve(
    model: common.ModelPath,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    precision: common.Precision = "fp32",
    backend: common.Backend = "torch",
    **options: Any,
) -> None:
    """Serve a model over HTTP, with a page to look at it."""
    given = {option_name(name): value for name, value in options.items()}
    settings = parse(ServiceSettings, given, "rpbert serve")
    keys = read_keys(settings.keys)  # before the model, which takes longer
    _needs_extra()
    from rpbert.inference import Tagger

    tagger = Tagger.from_pretrained(model, precision=precision, backend=backend)
    name = model  # a hub id, or the name of a run, but no path
    if Path(model).exists():
        folder = Path(model).resolve()
        name = folder.parent.name if folder.name == "model" else folder.name
    _run(tagger, name, settings, keys, host, port)


def demo(
    output: common.Output = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="Decides data and training.")] = 0,
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve its model, made if needed.")
    ] = False,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    as_json: common.Json = False,
) -> None:
    """The main job on made data in a few minutes, its result as a table."""
    keys = frozenset[bytes]()
    if serve:
        _needs_extra()
        from rpbert.service.server import listen

        keys = read_keys(None)
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
        _run(tagger, "the demo's rpbert", ServiceSettings(), keys, host, port)


def _needs_extra() -> None:
    """Say how to install what serving needs, before anything is loaded or trained."""
    for module in ("fastapi", "prometheus_client", "python_multipart", "uvicorn"):
        if not find_spec(module):
            raise InputError("serving", f"no {module}", "the extra", "pip install 'rpbert[serve]'")


def _run(
    tagger: Tagger,
    name: str,
    settings: ServiceSettings,
    keys: frozenset[bytes],
    host: str,
    port: int,
) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    from rpbert.data.words import SPLITTERS
    from rpbert.service.app import Service, create_app
    from rpbert.service.pages import made_examples, read_examples
    from rpbert.service.server import address, listen, run

    splitter, file = SPLITTERS[tagger.model.vocabulary.marks], settings.examples
    examples = read_examples(file, splitter) if file else made_examples()
    guard = create_app(Service(tagger, name, settings, examples), keys)
    guard.names.add(host.lower())
    listener = listen(host, port)
    locked = "" if keys else "; no API keys, open to all who reach it"
    common.progress(f"{address(listener)} (Ctrl-C stops{locked})")
    run(guard, listener)


def _with_options(command: Any) -> inspect.Signature:
    """The command's parameters, with an option for each field of the settings."""
    signature = inspect.signature(command, eval_str=True)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    for name, field in ServiceSettings.model_fields.items():
        kind: Any = field.annotation
        option = Annotated[kind, typer.Option(help=field.description)]
        given = {"default": field.default, "annotation": option}
        own.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, **given))
    return signature.replace(parameters=own)


serve.__signature__ = _with_options(serve)  # type: ignore[attr-defined]
