"""From posts to predictions: the `Tagger` people use, and decoding for training and evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import torch
from torch import Tensor

from rpbert.backends import device_for, system_for
from rpbert.config.run import Backend, Precision
from rpbert.data.collate import Collator, ahead, by_length, windows
from rpbert.data.labels import strict_spans
from rpbert.data.reading import quoted
from rpbert.data.tables import post_of_values
from rpbert.data.words import SPLITTERS, MarksWatch, WordSplitter
from rpbert.errors import InputError
from rpbert.models.saved import TaggingModel
from rpbert.models.tagger import System, TaggerOutput
from rpbert.modules.crf import SpanQuery, TagConstraint, iob2_constraint
from rpbert.storage.published import model_folder
from rpbert.types import TEXTS, Batch, Entity, ImageStatus, Post, PostImage, Prediction, SourceScore

if TYPE_CHECKING:
    import pandas as pd
    from PIL.Image import Image

    PostLike: TypeAlias = "Post | str | Mapping[str, Any]"
    ImageLike: TypeAlias = "str | Path | bytes | Image | None"


Tags: TypeAlias = tuple[str, ...]
_READ = {"id", "text", "tokens", *TEXTS}  # keys of a mapping, beside `image`


@dataclass(frozen=True, slots=True)
class Decoded:
    """The best tags of a post, the score of each span they hold, r (also of each source)."""

    tags: Tags
    scores: tuple[float, ...]
    relation: float | None
    image: ImageStatus
    sources: tuple[SourceScore, ...] = ()

    def known(self, post: Post) -> list[tuple[float, float]]:
        """The known relation of each image of the post that was used, and its r."""
        pairs = []
        for index, image in enumerate(post.images):
            scores = [source.relation for source in self.sources if source.image == index]
            if image.relation is not None and scores:
                pairs.append((image.relation, max(scores)))
        return pairs


class Decoder:
    """Runs a model without gradients and reads tags, span scores and r from its output.
    A `system` computes in place of the model's own; its mode is restored after each batch."""

    def __init__(
        self,
        model: TaggingModel,
        collator: Collator,
        device: torch.device | str = "cpu",
        system: System | None = None,
    ) -> None:
        self.model, self.system = model, system or model.system
        self.collator, self.device = collator, device
        self.constraint: TagConstraint | None = None
        if model.system.tags_words:
            self.constraint = iob2_constraint(model.vocabulary.tags)
        self.marks = MarksWatch(SPLITTERS[model.vocabulary.marks].name)
        self.calibration = model.calibration

    def decode(self, posts: Sequence[Post], batch_size: int = 32) -> list[Decoded]:
        """Decode posts in batches of similar length; the answers keep the order of `posts`."""
        groups = by_length(self.collator.lengths(posts), batch_size)
        read = (self.collator([posts[i] for i in group]) for group in groups)
        packed = ahead(read) if len(groups) > 1 else read
        decoded: dict[int, Decoded] = {}
        for group, batch in zip(groups, packed, strict=True):
            decoded |= zip(group, self.decode_batch(batch), strict=True)
        return [decoded[i] for i in range(len(posts))]

    def decode_batch(self, batch: Batch) -> list[Decoded]:
        """Decode one batch; warns where posts are not split as those of the training data."""
        self.marks.see(batch.posts)
        was_training = self.system.training
        self.system.eval()
        with torch.inference_mode():
            batch = batch.to(self.device)
            decoded = self.read(batch, self.system(batch))
        self.system.train(was_training)
        return decoded

    def read(self, batch: Batch, output: TaggerOutput) -> list[Decoded]:
        """A system's output, post by post."""
        tags: list[Tags] = [("O",) * len(post.words) for post in batch.posts]
        scores: list[list[float]] = [[] for _ in tags]
        for found in (output.emissions, output.relation_score):
            if found is not None and not found.isfinite().all():
                raise InputError(
                    "model", "scores that are no numbers", "a model that is trained anew"
                )
        if output.emissions is not None:
            tags, scores = self._tags(output.emissions, batch.word_mask)
        relation: list[float | None] = [None] * len(batch)
        if output.relation_score is not None and self.model.relation_is_learnt:
            relation = output.relation_score.tolist()
        fields = (tags, map(tuple, scores), relation, batch.image_status)
        return list(map(Decoded, *fields, self._sources(batch, output)))

    def _sources(self, batch: Batch, output: TaggerOutput) -> list[tuple[SourceScore, ...]]:
        """r of each source of each post, of what could be used."""
        settings = self.model.options.evidence
        if output.relation_score is None or not self.model.relation_is_learnt or settings is None:
            return [()] * len(batch)
        if output.source_scores is None:  # a system that looks at all images together
            names = [(settings.kind, 0)]
            used, scores = batch.has_evidence[:, None], output.relation_score[:, None]
        else:
            of_posts = [part.of_post for part in batch.evidence]  # (B, M) each
            pairs = zip(settings.kinds, of_posts, strict=True)
            names = [(kind, i) for kind, of_post in pairs for i in range(of_post.shape[1])]
            used, scores = torch.cat(of_posts, dim=1) >= 0, output.source_scores
        return [
            tuple(SourceScore(*n, r) for n, is_used, r in zip(names, *row, strict=True) if is_used)
            for row in zip(used.tolist(), scores.tolist(), strict=True)
        ]

    def _tags(self, emissions: Tensor, mask: Tensor) -> tuple[list[Tags], list[list[float]]]:
        """The best tags of each post, and the probability of each span they hold."""
        crf, names = self.system.crf, self.model.vocabulary.tags
        paths = crf.decode(emissions, mask, self.constraint)
        tags = [tuple(names[tag] for tag in path) for path in paths]
        scores: list[list[float]] = [[] for _ in tags]
        if queries := self.queries(tags):
            temperature = self.calibration.spans
            marginals = crf.span_marginals(emissions, mask, queries, self.constraint, temperature)
            for query, score in zip(queries, marginals.clamp(0, 1).tolist(), strict=True):
                scores[query.post].append(score)
        return tags, scores

    def queries(self, tags: Sequence[Tags]) -> list[SpanQuery]:
        """The spans that the tags of a batch hold, in their order."""
        rows = self.model.vocabulary.tag_rows
        return [
            SpanQuery(i, first, tuple(rows[t] for t in sequence[first:end]), rows[f"I-{label}"])
            for i, sequence in enumerate(tags)
            for label, first, end in strict_spans(sequence)
        ]


class Tagger:
    """Names of persons, places, organisations and things in social posts with images.
    ``Tagger.from_pretrained("runs/example/model").predict("Kevin Love at the Finals")``"""

    def __init__(
        self,
        model: TaggingModel,
        device: str | None = None,
        precision: Precision = "fp32",
        backend: Backend = "torch",
    ) -> None:
        self.model = model
        self.device = device_for(backend, device)
        self._arguments = (model, self.device, precision, backend)
        system = system_for(model, backend, precision, self.device)
        read_on = self.device if backend == "torch" else "cpu"
        # A stream of posts hardly shows an image again: none is kept.
        self.decoder = Decoder(model, model.collator(images_kept=0), read_on, system)
        self.splitter: WordSplitter = SPLITTERS[model.vocabulary.marks]

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        """What a copy, also in another process, is made of; its threads and memories are new."""
        return type(self), self._arguments

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        device: str | None = None,
        precision: Precision = "fp32",
        backend: Backend = "torch",
    ) -> Self:
        """Load a model that ``rpbert train`` wrote (RUN or RUN/model), or one by its hub id.
        The device is a GPU if there is one, unless named. ``bf16`` may be faster, with scores that
        differ from the second or third digit on. The backends ``openvino`` and ``onnx`` read what
        ``rpbert export`` wrote. Raises InputError: there is no whole, unchanged model."""
        chosen = device_for(backend, device)
        return cls(TaggingModel.load(model_folder(name), backend), chosen, precision, backend)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model to a folder that `from_pretrained` reads."""
        self.model.save(Path(folder))

    def push_to_hub(self, name: str, private: bool = False) -> str:
        """Upload the model and its card under a hub id such as ``you/name``; returns the URL."""
        from huggingface_hub import HfApi

        api = HfApi()
        url = api.create_repo(name, private=private, exist_ok=True)
        with TemporaryDirectory() as folder:
            self.model.save(Path(folder) / "model")
            api.upload_folder(repo_id=name, folder_path=Path(folder) / "model")
        return str(url)

    def predict(
        self,
        text: str,
        image: ImageLike | Sequence[ImageLike] = None,
        caption: str | Sequence[str | None] | None = None,
        threshold: float = 0.0,
        knowledge: str | None = None,
    ) -> Prediction:
        """Tag one post: its text, its image or images, and a caption for each and what is known of
        the post, if the model reads them. Entities with a score below `threshold` are left out."""
        post = {"id": "0", "text": text, "image": image, "caption": caption, "knowledge": knowledge}
        return self.predict_batch([post], threshold=threshold)[0]

    def predict_batch(
        self, posts: Sequence[PostLike], batch_size: int = 32, threshold: float = 0.0
    ) -> list[Prediction]:
        """Tag posts, each a `Post`, a text, or a mapping as in a JSON lines file; same order."""
        _check_call(posts, batch_size)
        read = [self.as_post(post, index) for index, post in enumerate(posts)]
        found = map(prediction_of, read, self.decoder.decode(read, batch_size))
        return [prediction.above(threshold) for prediction in found]

    def predict_stream(
        self, posts: Iterable[PostLike], batch_size: int = 32, threshold: float = 0.0
    ) -> Iterator[Prediction]:
        """Tag any number of posts in constant memory, in their order; an error of `posts` is raised
        behind the predictions of those before it."""
        _check_call(posts, batch_size)
        numbered = (self.as_post(post, index) for index, post in enumerate(posts))
        for window in windows(numbered, batch_size):
            yield from self.predict_batch(window, batch_size, threshold)

    def predict_frame(
        self, frame: pd.DataFrame, prefix: str = "", batch_size: int = 32
    ) -> pd.DataFrame:
        """Tag the rows of a pandas frame; see `rpbert.data.frames.predict_frame`."""
        from rpbert.data.frames import predict_frame

        return predict_frame(self, frame, prefix, batch_size)

    def as_post(self, given: PostLike, index: int = 0) -> Post:
        """A `Post`, a text or a mapping as a post, its words split as those of the training data;
        the index names it in messages, and is its id where it has none.
        Raises InputError: it is none of these, or a mapping without a text."""
        if isinstance(given, Post):
            return given
        if isinstance(given, str):
            given = {"text": given}
        if not isinstance(given, Mapping):
            raise InputError(f"posts:{index}", type(given).__name__, "a Post, a text or a mapping")
        values = {"id": str(index), **{k: given[k] for k in _READ & given.keys()}}
        for key in ("tokens", *TEXTS):
            if isinstance(values.get(key), tuple):
                values[key] = list(values[key])
        post = post_of_values(values, Path("posts"), index, self.splitter)
        sources = given.get("image")
        if not isinstance(sources, list | tuple):
            sources = [sources]
        images = [
            replace(known or PostImage(), image=_image(of, f"posts:{index}"))
            for known, of in zip_longest(post.images, sources)
        ]
        return post.with_(images=tuple(images))


def prediction_of(post: Post, decoded: Decoded) -> Prediction:
    """Tags as the entities of a text."""
    entities = []
    found = strict_spans(decoded.tags)
    for (label, first, end), score in zip(found, decoded.scores, strict=True):
        start, stop = post.spans[first][0], post.spans[end - 1][1]
        entities.append(Entity(post.text[start:stop], label, start, stop, score))
    sources = decoded.sources if len(decoded.sources) > 1 else ()
    image, reason = decoded.image, getattr(decoded.image, "reason", "")
    return Prediction(post.id, post.text, entities, decoded.relation, image, reason, sources)


def _image(given: ImageLike, where: str) -> Path | bytes | Image | None:
    if isinstance(given, str) and "://" in given:
        hint = "addresses are not fetched: save the image, and give its file"
        raise InputError(where, f"the image {quoted(given)}", "the path of a file", hint)
    return Path(given) if isinstance(given, str) else given


def _check_call(posts: object, batch_size: int) -> None:
    if isinstance(posts, str | bytes | Mapping | Post):
        raise InputError("posts", f"one {type(posts).__name__}", "a list of posts")
    if batch_size < 1:
        raise InputError("batch_size", str(batch_size), "at least 1")
