"""What a system sees of an image: every kind of evidence by name, and a model's own choice.
A kind has its settings, its reader and its encoder; its line in `KINDS` is all that the rest of
the package needs of it, but for systems that list the kinds they take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Self

from pydantic import create_model, model_validator

from rpbert.config.model import Kinds
from rpbert.data.images import load_regions
from rpbert.evidence.base import Evidence, KindSettings, TextTable
from rpbert.evidence.blocks import BlockSettings, GlobalSettings
from rpbert.evidence.regions import RegionSettings
from rpbert.evidence.texts import CaptionSettings, KnowledgeSettings, OcrSettings
from rpbert.types import Post, StoredRegions

KINDS: dict[str, type[KindSettings]] = {
    "blocks": BlockSettings,
    "global": GlobalSettings,
    "regions": RegionSettings,
    "captions": CaptionSettings,
    "ocr": OcrSettings,
    "knowledge": KnowledgeSettings,
}
"""By name, in the order in which a model combines them."""

_fields: dict[str, Any] = {kind: (settings | None, None) for kind, settings in KINDS.items()}
if TYPE_CHECKING:
    EvidenceSources = Kinds
else:
    EvidenceSources = create_model("EvidenceSources", __base__=Kinds, **_fields)


class EvidenceSettings(EvidenceSources):
    """What a system sees of an image: one kind, or several where the system combines them."""

    @model_validator(mode="after")
    def _some_kind(self) -> Self:
        if not self.kinds:
            raise ValueError("no kind", f"one of {', '.join(KINDS)}")
        return self

    @property
    def kind(self) -> str:
        """Which kind it is, the first of several."""
        return next(iter(self.kinds))

    def with_width(self, posts: Iterable[Post]) -> Self:
        """With the size of the features that posts have in their file."""
        every = (image.regions for post in posts for image in post.images)
        found = next((regions for regions in every if regions is not None), None)
        if found is None:
            return self
        width = (load_regions(found) if isinstance(found, StoredRegions) else found).features.shape[
            1
        ]
        return self.model_copy(update={k: s.with_width(width) for k, s in self.kinds.items()})

    def build(self, table: Callable[[], TextTable]) -> dict[str, Evidence]:
        """The encoder of each kind, as of `KindSettings.build`."""
        return {kind: s.build(f"model.evidence.{kind}", table) for kind, s in self.kinds.items()}

    def resolved(self, evidence: Evidence) -> Self:
        """With shapes in place of names, so that loading needs no hub."""
        kinds = zip(self.model_dump().items(), evidence.kinds(), strict=True)
        return self.model_validate(
            {kind: {**given, **encoder.saved_settings()} for (kind, given), encoder in kinds}
        )

    def texts(self, posts: Iterable[Post]) -> Iterator[str]:
        """The texts that a model reads beside the posts' own."""
        made_from = [settings.made_from for settings in self.kinds.values() if settings.is_text]
        for image in (image for post in posts for image in post.images):
            yield from filter(None, (getattr(image, name) for name in made_from))
