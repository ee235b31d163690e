"""`rpbert doctor`: versions, device, what extras give, and what cannot be reached."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

from rpbert.cli import common

EXTRAS = {  # what each gives; others are shown by a package
    "serve": "rpbert serve: the HTTP service and its page",
    "ray": "rpbert predict --engine ray",
    "spacy": "a spaCy component",
    "pandas": "tables and frames",
    "ocr": "text in images (--ocr)",
    "track": "training.track=[tensorboard]; W&B and MLflow by their own packages",
}
REACHED = {
    "encoders and image networks": os.environ.get("HF_ENDPOINT", "https://huggingface.co"),
    "rpbert data get": "https://raw.githubusercontent.com",
}
LIBRARIES = ("torch", "transformers", "accelerate", "huggingface_hub", "safetensors", "numpy")


def doctor(as_json: common.Json = False) -> None:
    """Show versions, device, extras, and what cannot be reached from here."""
    import torch

    from rpbert import __version__

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    own = {"rpbert": __version__, "python": platform.python_version()}
    found = {
        "versions": own | {name: _version(name) for name in LIBRARIES},
        "device": {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "gpu": gpu},
        "extras": _extras(),
        "reached": {name: _answer(address) for name, address in REACHED.items()},
    }
    common.print_result(found, as_json, _show)


def _show(found: dict[str, Any]) -> None:
    for block, lines in found.items():
        print(block)
        for name, value in lines.items():
            if block == "extras":
                lacks = ", ".join(value["missing"])
                state = f"no {lacks}: pip install 'rpbert[{name}]'" if lacks else "installed"
                value = f"{value['gives']}; {state}"
            print(f"  {name}: {value}")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _extras() -> dict[str, dict[str, Any]]:
    """What each extra but that for development gives, and which of its packages are missing."""
    from packaging.requirements import Requirement

    found: dict[str, dict[str, Any]] = {}
    for needed in map(Requirement, requires("rpbert") or ()):
        extra = str(needed.marker or "").partition("extra == ")[2].strip("'\" ")
        if extra not in ("", "dev"):
            one = found.setdefault(extra, {"gives": EXTRAS.get(extra, needed.name), "missing": []})
            one["missing"] += [needed.name] * (_version(needed.name) is None)
    return found


def _answer(address: str) -> str:
    import httpx

    try:
        httpx.head(address, timeout=5)
    except httpx.HTTPError as error:
        return f"{address} cannot be reached ({str(error) or type(error).__name__})"
    return f"{address} answers"
