"""The evidence of a model beside its weights: what reads it, and its settings as they are saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import nn

from rpbert.config.model import (
    CaptionSettings,
    EvidenceKind,
    EvidenceSettings,
    GlobalSettings,
    OcrSettings,
    RegionSettings,
    SourceSettings,
    SystemSettings,
)
from rpbert.data.collate import EvidenceReader
from rpbert.data.images import load_regions
from rpbert.evidence.describing import Describer
from rpbert.evidence.encoders import (
    CaptionPieces,
    CombinedEvidence,
    DetectedRegions,
    ImageBlocks,
    ImageVector,
    StoredRegionFeatures,
)
from rpbert.evidence.readers import (
    CaptionReader,
    CombinedReader,
    ImageReader,
    ImageStore,
    NoEvidence,
    RegionReader,
)
from rpbert.evidence.resnet import ResNetBlocks
from rpbert.evidence.vision import VisionBlocks
from rpbert.modules.families import UNLISTED
from rpbert.types import Post, StoredRegions


@dataclass(frozen=True)
class TextIds:
    """A text as ids: of the pieces of the text encoder, or of words."""

    pieces: Callable[[str], Sequence[int]]
    words: Callable[[str], Sequence[int]]


def evidence_reader(
    evidence: nn.Module | None,
    settings: EvidenceSettings | None,
    ids: TextIds,
    images_kept: int,
    describers: Mapping[EvidenceKind, Describer],
) -> EvidenceReader:
    """Reads what the evidence of a system is made from.

    Args:
        images_kept: bytes of decoded images that are kept for when they come again.
        describers: what makes the texts of a kind for images that come without.
    """
    if settings is None or evidence is None:
        return NoEvidence()
    share = images_kept // len(settings.kinds)
    readers = [
        _reader_of(part, settings.kinds[kind], ids, share, describers.get(kind))
        for kind, part in _kinds(settings, evidence)
    ]
    return readers[0] if len(readers) == 1 else CombinedReader(readers)


def _reader_of(
    evidence: nn.Module,
    source: SourceSettings,
    ids: TextIds,
    images_kept: int,
    describe: Describer | None,
) -> EvidenceReader:
    """Reads evidence of one kind."""
    if isinstance(source, CaptionSettings | OcrSettings):
        encode = ids.pieces if isinstance(evidence, CaptionPieces) else ids.words
        kind: Literal["caption", "image_text"] = "caption"
        if isinstance(source, OcrSettings):
            kind = "image_text"
        return CaptionReader(encode, source.longest, kind, describe)
    match evidence:
        case ImageBlocks() | ImageVector() | DetectedRegions():
            return ImageReader(ImageStore(evidence.preprocessing, images_kept))
        case StoredRegionFeatures(width=width):
            return RegionReader(width)
        case _:
            raise TypeError(f"nothing reads {type(evidence).__name__}")


def resolved_evidence(settings: EvidenceSettings, evidence: nn.Module | None) -> EvidenceSettings:
    """The settings with shapes in place of names, so that loading needs no hub."""
    for kind, part in _kinds(settings, evidence):
        config = _network_config(part)
        if config is not None:
            own = {"pretrained": None, "shape": shape_of(config), **_preprocessing(part)}
            settings = settings.with_source(kind, **own)
    return settings


def with_width(options: SystemSettings, train: Sequence[Post]) -> SystemSettings:
    """The settings with the size of the features that the training posts have in their file."""
    settings = options.evidence
    every = (image.regions for post in train for image in post.images)
    found = next((regions for regions in every if regions is not None), None)
    if settings is None or found is None:
        return options
    regions = load_regions(found) if isinstance(found, StoredRegions) else found
    for kind, source in settings.kinds.items():
        if not isinstance(source, GlobalSettings | RegionSettings):
            continue
        if (source.pretrained, source.shape, source.width) == (None, None, None):
            settings = settings.with_source(kind, width=regions.features.shape[1])
    return options.model_copy(update={"evidence": settings})


def shape_of(config: Any) -> dict[str, Any]:
    """The fields of a transformers configuration that differ from its defaults.

    Published files also carry fields that the configuration does not know, and where they come
    from; neither shapes the network.
    """
    known = {*type(config)().to_dict(), *UNLISTED.get(config.model_type, ())}
    apart = {"architectures", "dtype", "torch_dtype", "transformers_version", "model_type"}
    fields: dict[str, Any] = config.to_diff_dict()
    kept = (key for key in fields if key in known and key not in apart and key[0] != "_")
    named = config.model_type not in ("bert", "resnet")  # which go without saying
    family = {"model_type": config.model_type} if named else {}
    return {**family, **{key: fields[key] for key in kept}}


def _kinds(
    settings: EvidenceSettings, evidence: nn.Module | None
) -> Iterator[tuple[EvidenceKind, nn.Module]]:
    """Each kind of evidence with what makes it."""
    for kind in settings.kinds:
        if isinstance(evidence, CombinedEvidence):
            yield kind, evidence.parts[kind]
        elif evidence is not None:
            yield kind, evidence


def _network_config(evidence: nn.Module) -> Any:
    """The configuration of the network of transformers that makes the evidence, if one does."""
    match evidence:
        case (
            ImageBlocks(network=ResNetBlocks(resnet=network))
            | ImageVector(network=ResNetBlocks(resnet=network))
            | ImageBlocks(network=VisionBlocks(network=network))
            | ImageVector(network=VisionBlocks(network=network))
        ):
            return network.config
        case DetectedRegions(detector=detector):
            return detector.network.config
        case _:
            return None


def _preprocessing(evidence: nn.Module) -> dict[str, Any]:
    """How images were prepared, where that is not in the shape of the network."""
    if not isinstance(evidence, ImageBlocks | ImageVector):
        return {}
    fields = asdict(evidence.preprocessing)
    return {"image_size": fields.pop("size"), **fields}
