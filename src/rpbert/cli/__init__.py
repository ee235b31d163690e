"""The command line: each command is a typed function that calls one library function.
Results go to standard output, progress to standard error. Whatever a user can fix ends with one
line on standard error and exit code 2."""

from __future__ import annotations

import io
import os
import sys
import warnings
from typing import Annotated, Any, NoReturn

import typer

from rpbert.cli import data, doctor, predict, serve, study, train
from rpbert.cli.common import STOPPED, stopped
from rpbert.errors import InputError

# Typer names only the leaf of its usage errors; all of them carry `format_message`.
UsageError: type[Exception] = typer.BadParameter.__bases__[0]

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
data_app = typer.Typer(help="Get, check or make data.", rich_markup_mode=None)


def _print_version(asked: bool) -> None:
    """Print the version."""
    if asked:
        from rpbert import __version__

        print(f"rpbert {__version__}")
        raise typer.Exit


VERSION = typer.Option(
    "--version", is_eager=True, callback=_print_version, help="Print the version."
)


@app.callback()
def options(version: Annotated[bool, VERSION] = False) -> None:
    """Named entities from social posts with images."""


app.command("systems")(train.systems)
app.add_typer(data_app, name="data")
data_app.command("check")(data.check)
data_app.command("make")(data.make)
data_app.command("describe")(data.describe)
data_app.command("list")(data.known)
data_app.command("get")(data.get)
app.command("train")(train.train)
app.command("evaluate")(train.evaluate)
app.command("predict")(predict.predict)
app.command("analyze")(study.analyze)
app.command("convert")(data.convert)
app.command("reproduce")(study.reproduce)
app.command("export")(study.export)
app.command("serve")(serve.serve)
app.command("demo")(serve.demo)
app.command("benchmark")(study.benchmark)
app.command("doctor")(doctor.doctor)


def main() -> NoReturn:
    """Run a command and exit.
    0 done, 2 the user can fix it, 3 done except for some posts (`rpbert.cli.predict`), 130
    stopped."""
    warnings.showwarning = _say
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: PTH123, SIM115  # it came closed
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # signs that a terminal lacks are escaped
            stream.reconfigure(errors="backslashreplace")
    try:
        arguments = sys.argv[1:]
        if arguments in ([], ["data"]):
            arguments.append("--help")
        # Ctrl-C comes back as a code or as an exception, as the version of Typer has it.
        code = app(arguments, prog_name="rpbert", standalone_mode=False)
        if code == STOPPED:
            raise KeyboardInterrupt
        sys.stdout.flush()
    except UsageError as error:
        command = getattr(getattr(error, "ctx", None), "command_path", "rpbert")
        _fail(f"{error.format_message()}  ({command} --help shows what there is)")  # type: ignore[attr-defined]
    except InputError as error:
        _fail(str(error))
    except (BrokenPipeError, SystemExit) as end:
        if isinstance(end, SystemExit) and not isinstance(end.__context__, BrokenPipeError):
            raise  # else Click exits with 1 where the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        _fail(f"{error.filename or 'system'}: {error.strerror or error}")
    except (KeyboardInterrupt, typer.Abort):
        stopped()
    sys.exit(code if isinstance(code, int) else 0)


def _say(
    message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    """Show a warning of this package as one line; those of libraries unchanged."""
    shown = f"rpbert: {message}\n"
    if not category.__module__.startswith("rpbert."):
        shown = warnings.formatwarning(message, category, filename, lineno, line)
    print(shown, end="", file=file or sys.stderr)


def _fail(line: str) -> NoReturn:
    print(f"rpbert: {' '.join(line.split())}", file=sys.stderr)
    sys.exit(2)
