"""`rpbert demo`: the main job on made data."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from rpbert.cli.common import Json, console, print_json
from rpbert.cli.serve import Host, Port, needs_extra
from rpbert.cli.serve import run as run_service
from rpbert.service.limits import ServiceSettings


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
        needs_extra()
        from rpbert.service.limits import Keys
        from rpbert.service.server import listen

        keys = Keys.read(None)
        listen(host, port).close()  # an address that is taken is better heard of before training
    from rpbert.cli.show import print_demo
    from rpbert.inference import Tagger
    from rpbert.synthetic.demo import demo as run
    from rpbert.synthetic.demo import finished

    earlier = finished(output, seed) if serve else None
    if earlier is None:
        result = run(output, seed, say=lambda line: print(line, file=sys.stderr, flush=True))
        if as_json:
            print_json(result.to_dict())
        else:
            print_demo(result, console())
    else:
        again = shlex.join(["rpbert", "demo", "--output", str(output), "--seed", str(seed)])
        said = f"the demo of seed {seed} is there, in {output}; `{again}` makes it anew"
        print(said, file=sys.stderr)
        if as_json:
            print_json(earlier)
    if serve:
        tagger = Tagger.from_pretrained(output / "rpbert")
        run_service(tagger, "the demo's rpbert", host, port, ServiceSettings(), keys)
