"""The guide says what the service does."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from rpbert.service import openapi
from rpbert.service.settings import ServiceSettings, option_name

GUIDE = (Path(__file__).parents[2] / "docs" / "service.md").read_text("utf-8")


def test_every_option_stands_there_with_its_default() -> None:
    shown = dict(re.findall(r"^\| `(--[a-z-]+)` \| ([\d.]*) ?\|", GUIDE, re.MULTILINE))
    limits = {option_name(one.name): one.default for one in fields(ServiceSettings)}
    assert {key: float(value) for key, value in shown.items() if value} == limits
    assert set(shown) - set(limits) == {"--precision", "--backend", "--keys", "--examples"}


def test_every_path_and_error_stands_there() -> None:
    for path in openapi.PATHS - {"/v1/examples/{number}/image"}:
        assert path in GUIDE
    for status in openapi.REASONS:
        assert re.search(rf"\b{status}\b", GUIDE)
