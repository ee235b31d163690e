"""From the bytes a client sent to posts; no path or address in them is opened or fetched.
Images are decoded here, before posts wait: a waiting post then takes little memory whatever the
size of its file, and the model's thread is left to the model."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any, NoReturn

from PIL import Image
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, FormParser, parse_options_header

from rpbert.config.reading import parse
from rpbert.data.images import claim, load_image
from rpbert.errors import InputError
from rpbert.inference import Tagger
from rpbert.service.limits import MEBI, ServiceSettings
from rpbert.service.schema import ExplainIn, Failure, PostIn, invalid, too_large
from rpbert.types import TEXTS, Post

URL_SAFE = str.maketrans("-_", "+/")  # digits of the other alphabet of base64
SMALLEST_IMAGE = 24  # bytes; no file of a format that is read is smaller
OTHER_VALUES = 1000  # of a post beside its texts and tokens: keys, an id full of commas
USUAL_SCANS = 10  # of a progressive JPEG; with more, it may have fewer pixels


class Form(dict[str, Any]):
    """The fields of a form: texts, and the content of a file as `image`."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A post to be tagged."""

    post: Post
    threshold: float
    relation: float | None  # r that the client set, None for the model's own


class Intake:
    """Makes posts of requests, within the limits of a service; all raise `Failure`."""

    def __init__(self, tagger: Tagger, settings: ServiceSettings) -> None:
        self.settings = settings
        self._as_post = tagger.as_post
        self._preprocessing = tagger.decoder.collator.evidence.preprocessing
        self.reads_images = self._preprocessing is not None

    def sent(self, content_type: str, body: bytes) -> Any:
        """The JSON value of a request, or its `Form`."""
        kind, options = parse_options_header(content_type)
        if options.get(b"charset", b"utf-8").lower() not in (b"utf-8", b"utf8"):
            raise Failure(415, "charset", "expected UTF-8")
        if kind == b"multipart/form-data":
            return _form(body, options.get(b"boundary"))
        if kind != b"application/json":
            raise Failure(415, "media_type", "expected application/json or multipart/form-data")
        # Nothing else runs while JSON is read, and an empty list of two bytes takes seventy: so
        # what parts values is counted first, be it of a text or not.
        found = sum(map(body.count, (b",", b"[", b"{")))
        most = self.settings.max_posts * (3 * self.settings.max_text + OTHER_VALUES)
        if found > most:
            raise too_large("body", f"{found} values", most)
        try:
            return json.loads(body.decode("utf-8-sig"), parse_constant=_no_number)
        except (ValueError, RecursionError):  # also of UTF-8 and numbers with thousands of digits
            raise Failure(400, "no_json", "the body is no JSON") from None

    def post_or_failure(self, values: Any, index: int) -> Ready | Failure:
        """The post that was sent; `index` is its id where it has none."""
        try:
            return self.post(values, PostIn, index)
        except Failure as failure:
            return failure

    def post(self, values: Any, model: type[PostIn], index: int = 0) -> Ready:
        """The same as a `model`."""
        file = values.pop("image", None) if isinstance(values, Form) else None
        given = self._validated(values, model)
        image = self._decoded(given.image) if given.image else file  # "" is none, as in files
        known = given.model_dump(include={"id", "text", "tokens", *TEXTS}, exclude_none=True)
        try:
            post = self._as_post(known, index)
        except InputError as error:
            raise invalid(f"found {error.found}; expected {error.expected}") from None
        relation = given.relation if isinstance(given, ExplainIn) else None
        return Ready(post.with_(image=self._picture(image)), given.threshold, relation)

    def _validated(self, values: Any, model: type[PostIn]) -> PostIn:
        """Sizes first: each of a million values may be a separate error."""
        if not isinstance(values, dict):
            raise invalid("found no object; expected a post with text, tokens or both")
        length = max(_length(values.get(key)) for key in ("text", "tokens", *TEXTS))
        if length > self.settings.max_text:
            raise too_large("text", f"{length} characters", self.settings.max_text)
        most = len(model.model_fields)
        if len(values) > most:
            raise invalid(f"found {len(values)} keys; expected {most} at most")
        try:  # the numbers of a form are texts
            return parse(model, values, "post", strict=not isinstance(values, Form))
        except InputError as error:
            raise invalid(str(error)) from None

    def _decoded(self, image: str) -> bytes:
        self._check_size(len(image) * 3 // 4 - 2)
        digits = "".join(image.split()).translate(URL_SAFE)
        try:
            content = base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
        except (binascii.Error, ValueError):
            content = b""
        if len(content) < SMALLEST_IMAGE:
            hint = "; leave out what stands before the comma" if image.startswith("data:") else ""
            raise invalid(f"image: found no base64 of an image file{hint}")
        return content

    def _picture(self, content: bytes | None) -> Image.Image | bytes | None:
        """The image at the model's size; as it is where unreadable, for the answer says why."""
        self._check_size(len(content or b""))
        if content is None or self._preprocessing is None:  # the model does not look at it
            return None
        width, height, scans = claim(content) or (0, 0, 0)
        if width * height * max(1, scans / USUAL_SCANS) > self.settings.max_pixels * 1e6:
            most = f"{self.settings.max_pixels:g} million pixels"
            raise too_large("image", f"{width} × {height} pixels in {scans} scans", most)
        loaded = load_image(content, self._preprocessing.size, self._preprocessing.resampling)
        return content if loaded.pixels is None else Image.fromarray(loaded.pixels)

    def _check_size(self, length: int) -> None:
        if length > int(self.settings.max_image * MEBI):
            most = f"{self.settings.max_image:g} MiB"
            raise too_large("image", f"{length / MEBI:.1f} MiB", most)


def _form(body: bytes, boundary: bytes | None) -> Form:
    form = Form()

    def add(part: Field | File) -> None:
        name = (part.field_name or b"").decode()
        if name not in ExplainIn.model_fields or name in form:  # no more can be held then
            raise invalid(f"the field {name!a:.40} is unknown or occurs twice")
        if isinstance(part, File) != (name == "image"):
            raise invalid("expected a file as image, and text in every other field")
        if isinstance(part, Field):
            form[name] = (part.value or b"").decode()
        elif part.file_name or part.size:  # a form sends an empty one where none is chosen
            part.file_object.seek(0)
            form[name] = part.file_object.read()

    in_memory = {"MAX_MEMORY_FILE_SIZE": len(body)}
    try:
        parser = FormParser("multipart/form-data", add, add, boundary=boundary, config=in_memory)
        parser.write(body)
        parser.finalize()
    except FormParserError:
        raise Failure(400, "malformed", "the body is no form") from None
    except UnicodeDecodeError:
        raise invalid("a field that is not UTF-8") from None
    return form


def _length(value: Any) -> int:
    """Characters of a text or of tokens; 0 of other values."""
    if isinstance(value, list):
        return len(value) + sum(len(token) for token in value if isinstance(token, str))
    return len(value) if isinstance(value, str) else 0


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)
