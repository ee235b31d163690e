"""What puts the images of a model's posts into words while they are read."""

from __future__ import annotations

from functools import partial

from rpbert.config.model import EvidenceKind, SystemSettings
from rpbert.errors import InputError
from rpbert.evidence.captioner import Captioner
from rpbert.evidence.describing import Describer, Remembered, TextFinder
from rpbert.storage.published import from_hub


def need_reader(options: SystemSettings, kind: EvidenceKind, given: str) -> None:
    """See that a model reads a kind of evidence that it was given something for.

    Args:
        given: the name of that, for the message.

    Raises:
        InputError: the model does not read that kind.
    """
    read = options.evidence.kinds if options.evidence else ()
    if kind not in read:
        found = f"a model that reads {' and '.join(read) or 'text alone'}"
        raise InputError(given, found, f"one that reads {kind}", f"leave out {given}")


def describers(
    options: SystemSettings, captioner: str | None, ocr: bool, device: str = "cpu"
) -> dict[EvidenceKind, Describer]:
    """What makes the texts of a kind of evidence for posts that come with an image alone.

    Args:
        options: of the model that reads them.
        captioner: hub name or folder of an image-to-text model, or None.
        ocr: whether text in images is looked for.
        device: where the captioner computes.

    Raises:
        InputError: the model does not read that kind, or the captioner cannot be loaded.
    """
    if captioner is not None:
        need_reader(options, "captions", "captioner")
    if ocr:
        need_reader(options, "ocr", "ocr")
    made: dict[EvidenceKind, Describer] = {}
    if captioner is not None:
        load = partial(Captioner.from_pretrained, captioner, device)
        made["captions"] = Remembered(from_hub("captioner", captioner, load))
    if ocr:
        made["ocr"] = Remembered(TextFinder())
    return made
