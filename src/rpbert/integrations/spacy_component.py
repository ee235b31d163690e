"""A component of spaCy pipelines (extra ``spacy``), found by the name ``rpbert``.

```python
nlp = spacy.blank("en")
nlp.add_pipe("rpbert", config={"model": "runs/example/model"})
doc = nlp.make_doc("Nice image of Kevin Love at the Finals")
doc._.image = "photo.jpg"
nlp(doc).ents, doc._.image_relation
```

Source: https://spacy.io/usage/processing-pipelines, "Custom components" and "Extension attributes".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.util import filter_spans

from rpbert.inference import Tagger
from rpbert.types import Prediction

EXTENSIONS = ("image", "caption", "image_relation", "image_status")  # of a `Doc`


@Language.factory(  # type: ignore[untyped-decorator]
    "rpbert",
    assigns=["doc.ents", "token.ent_iob", "token.ent_type"],
    default_config={"batch_size": 32},
)
def make(nlp: Language, name: str, model: str, batch_size: int) -> RpBertComponent:
    """Makes the component of ``add_pipe``; the model is RUN, RUN/model or a hub id."""
    return RpBertComponent(Tagger.from_pretrained(model), batch_size)


class RpBertComponent:
    """Sets ``doc.ents``, ``doc._.image_relation`` (r, Eq. 2) and ``doc._.image_status``.
    The image of a document is ``doc._.image``, or ``doc.user_data["image"]``: a path, bytes or a
    PIL image; a model that reads captions takes ``doc._.caption``. The model splits the text into
    its own words, as ``rpbert predict`` does; an entity that begins or ends inside a token grows to
    the token's edge, and of two that then overlap the longer one stays."""

    def __init__(self, tagger: Tagger, batch_size: int = 32) -> None:
        self.tagger = tagger
        self.batch_size = batch_size
        for name in EXTENSIONS:
            if not Doc.has_extension(name):
                Doc.set_extension(name, default=None)

    def __call__(self, doc: Doc) -> Doc:
        """Fill one document."""
        return next(self.pipe([doc]))

    def pipe(self, stream: Iterable[Doc], batch_size: int | None = None) -> Iterator[Doc]:
        """Fill any number of documents, a batch at a time, in their order."""
        documents = iter(stream)
        while batch := list(islice(documents, batch_size or self.batch_size)):
            found = self.tagger.predict_batch([_post(doc) for doc in batch], self.batch_size)
            for doc, prediction in zip(batch, found, strict=True):
                _fill(doc, prediction)
                yield doc


def _post(doc: Doc) -> dict[str, Any]:
    image = doc.user_data.get("image") if doc._.image is None else doc._.image
    return {"text": doc.text, "image": image, "caption": doc._.caption}


def _fill(doc: Doc, prediction: Prediction) -> None:
    spans: list[Span | None] = [
        doc.char_span(entity.start, entity.end, entity.label, alignment_mode="expand")
        for entity in prediction.entities
    ]
    doc.ents = filter_spans([span for span in spans if span is not None])
    doc._.image_relation = prediction.relation
    doc._.image_status = prediction.image
