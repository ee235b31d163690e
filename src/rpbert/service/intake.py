"""From the bytes a client sent to posts; nothing it names is ever opened or fetched.

Images are decoded here, before posts wait: what waits then takes little memory whatever the size
of the files, and the model's thread is left to the model.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from PIL import Image
from pydantic import ValidationError

from rpbert.config.refusals import as_input_error
from rpbert.data.images import claim, load_image
from rpbert.errors import InputError
from rpbert.inference import Tagger
from rpbert.service.deadline import Deadline
from rpbert.service.failures import Failure, invalid, too_large
from rpbert.service.schema import ExplainIn, PostIn
from rpbert.service.settings import MEBI, ServiceSettings
from rpbert.types import Post

SMALLEST_IMAGE = 24  # bytes; no file of a format that is read is smaller
OTHER_VALUES = 1000  # of a post beside its text, tokens and caption: keys, an id full of commas
USUAL_SCANS = 10  # of a JPEG that comes in steps; with more it may be the smaller


@dataclass(frozen=True, slots=True)
class Ready:
    """A post to be tagged.

    Attributes:
        relation: r that the client set, None for the model's own.
        image_reason: why its image is unreadable, else empty.
    """

    post: Post
    relation: float | None = None
    image_reason: str = ""


class Intake:
    """Makes posts of requests, for one model.

    Args:
        tagger: its splitter cuts the words, its size of images is decoded to.
        settings: the limits.

    Attributes:
        reads_images: whether the model looks at images at all.
    """

    def __init__(self, tagger: Tagger, settings: ServiceSettings) -> None:
        self.settings = settings
        self._as_post = tagger.as_post
        evidence = tagger.decoder.collator.evidence
        self._preprocessing = evidence.preprocessing
        self.reads_images = self._preprocessing is not None

    def parsed(self, body: bytes) -> Any:
        """The JSON value of a body.

        Raises:
            Failure: there is none, or it holds more values than posts within the limits have.
        """
        # Nothing else runs while JSON is read, and an empty list of two bytes takes seventy: so
        # what parts values is counted first, be it of a text or not.
        limits = self.settings
        found = sum(map(body.count, (b",", b"[", b"{")))
        most = limits.max_posts * (3 * limits.max_text + OTHER_VALUES)
        if found > most:
            raise too_large("body", f"{found} values", f"{most}")
        try:
            return json.loads(body, parse_constant=_no_number)
        except (ValueError, RecursionError):  # also of UTF-8 and numbers with thousands of digits
            raise Failure(400, "no_json", "the body is no JSON") from None

    def posts(self, body: bytes, deadline: Deadline) -> Ready | list[Ready | Failure]:
        """The posts of a JSON body, alone or in a list; in a list each fails for itself.

        Raises:
            Failure: the body is no JSON, its only post is none, or the deadline passed.
        """
        content = self.parsed(body)
        if not isinstance(content, list):
            return self.post(content, PostIn)
        most = self.settings.max_posts
        if len(content) > most:
            raise too_large("posts", str(len(content)), f"{most} in a request")
        ready = []
        for index, values in enumerate(content):
            deadline.check()  # nobody else stops this thread
            ready.append(self._post_or_failure(values, index))
        return ready

    def post(self, values: Any, model: type[PostIn], index: int = 0) -> Ready:
        """The post of one JSON value.

        Raises:
            Failure: it is none, or beyond a limit.
        """
        if not isinstance(values, dict):
            raise invalid("found no object; expected a post with text, tokens or both")
        self._check_text(values)
        given = _validated(values, model)
        image = None if given.image is None else self._decoded(given.image)
        return self._ready(given, image, index)

    def form(self, fields: Mapping[str, str], image: bytes | None, model: type[PostIn]) -> Ready:
        """The post of a form: fields of text, and the content of its image file.

        Raises:
            Failure: it is none, or beyond a limit.
        """
        values: dict[str, Any] = dict(fields)
        if "relation" in values:
            values["relation"] = _number(values["relation"])
        self._check_text(values)
        given = _validated(values, model)
        if given.image is not None:
            raise invalid("image: found a field of text; expected a file")
        return self._ready(given, image, 0)

    def _post_or_failure(self, values: Any, index: int) -> Ready | Failure:
        try:
            return self.post(values, PostIn, index)
        except Failure as failure:
            return failure

    def _ready(self, given: PostIn, image: bytes | None, index: int) -> Ready:
        known = {key: getattr(given, key) for key in ("id", "text", "tokens", "caption")}
        try:
            post = self._as_post({k: v for k, v in known.items() if v is not None}, index)
        except InputError as error:
            raise invalid(f"found {error.found}; expected {error.expected}") from None
        picture, reason = self._picture(image)
        relation = given.relation if isinstance(given, ExplainIn) else None
        return Ready(post.with_(image=picture), relation, reason)

    def _check_text(self, values: Mapping[str, Any]) -> None:
        """Before the values are looked at one by one, since each may be an error of its own."""
        given = (values.get("text"), values.get("caption"), values.get("tokens"))
        length = max(map(_length, given))
        if length > self.settings.max_text:
            raise too_large("text", f"{length} characters", f"{self.settings.max_text}")

    def _decoded(self, image: str) -> bytes:
        """The bytes of an image in base64."""
        if len(image) * 3 // 4 > self.settings.image_bytes + 2:
            self._refuse_image(len(image) * 3 // 4)
        try:
            content = base64.b64decode(image, validate=True)
        except (binascii.Error, ValueError):
            content = b""
        if len(content) < SMALLEST_IMAGE:
            hint = "; leave out what stands before the comma" if image.startswith("data:") else ""
            raise invalid(f"image: found no base64 of an image file{hint}")
        return content

    def _picture(self, content: bytes | None) -> tuple[Image.Image | bytes | None, str]:
        """The image as the model reads it, or what it takes for unreadable, and why it is."""
        if content is None:
            return None, ""
        if len(content) > self.settings.image_bytes:
            self._refuse_image(len(content))
        if self._preprocessing is None:  # the model does not look at it
            return None, ""
        width, height, scans = claim(content) or (0, 0, 0)
        if width * height * max(1, scans / USUAL_SCANS) > self.settings.image_pixels:
            most = f"{self.settings.max_pixels:g} million pixels"
            raise too_large("image", f"{width} × {height} pixels in {scans} scans", most)
        loaded = load_image(content, self._preprocessing.size, self._preprocessing.resampling)
        # Of the model's own size, so that it is taken pixel for pixel.
        picture = b"" if loaded.pixels is None else Image.fromarray(loaded.pixels)
        return picture, loaded.reason

    def _refuse_image(self, length: int) -> NoReturn:
        raise too_large("image", f"{length / MEBI:.1f} MiB", f"{self.settings.max_image:g} MiB")


def _length(value: Any) -> int:
    """Characters of a text or of tokens; 0 of what is neither."""
    if isinstance(value, list):
        return len(value) + sum(len(token) for token in value if isinstance(token, str))
    return len(value) if isinstance(value, str) else 0


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise invalid("relation: found no number; expected one between 0 and 1") from None


def _validated(values: dict[str, Any], model: type[PostIn]) -> PostIn:
    most = len(model.model_fields)
    if len(values) > most:  # each of them would be an error, and there is room for a million
        raise invalid(f"found {len(values)} keys; expected {most} at most")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise invalid(str(as_input_error(model, error, "post"))) from None
