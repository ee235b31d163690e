"""Multimodal named entity recognition in social posts with images (RpBERT), in PyTorch.

`InputError` is raised for whatever the user can fix. PyTorch is imported when `Tagger` is first
used, not before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rpbert.errors import InputError
from rpbert.types import Entity, Post, Prediction

if TYPE_CHECKING:
    from rpbert.inference import Tagger

__version__ = "0.1.0"
__all__ = ["Entity", "InputError", "Post", "Prediction", "Tagger", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Tagger":
        from rpbert.inference import Tagger

        return Tagger
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
