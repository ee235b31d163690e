"""A system with all that using it takes: settings, vocabulary and tokenizer; saved and loaded.
A model folder holds ``model.json`` (settings, tags, vocabulary), ``model.safetensors`` (weights),
``tokenizer/`` and ``manifest.json`` (`rpbert.storage.manifest`), and a model card for people,
``README.md``. Nothing in it is a pickle, and nothing in it is executed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, field, replace
from functools import partial
from json import JSONDecodeError
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from pydantic import BaseModel, model_validator
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from rpbert.config.model import EncoderSettings, TaggerSettings
from rpbert.config.reading import parse
from rpbert.config.run import Backend
from rpbert.data.collate import Collator, TokenizerSubwords
from rpbert.data.labels import Lexicon, entity_lexicon
from rpbert.data.vocabulary import (
    UNKNOWN,
    Vocabulary,
    entity_types,
    frequent_characters,
    frequent_words,
    tag_set,
)
from rpbert.data.words import SPLITTERS, marks_style
from rpbert.errors import InputError, reason_of
from rpbert.evidence.base import EvidenceReader, Reading
from rpbert.models import build, parse_saved, registered
from rpbert.models.build import Builder, WordEmbeddings, load_tokenizer, tokenizer_for
from rpbert.models.tagger import System, SystemSettings
from rpbert.models.vision_language import VisionLanguageEncoder
from rpbert.modules.crf import LinearChainCRF
from rpbert.modules.embeddings import read_vectors
from rpbert.modules.encoder import TextImageEncoder
from rpbert.modules.families import UNLISTED
from rpbert.storage.manifest import CARD, MANIFEST, folder_written_whole, verify
from rpbert.storage.published import from_hub, saved_folder, shape_of
from rpbert.types import Calibration, Post

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FORMAT = 3
LAYERS, LARGEST = 1000, 10_000_000  # most layers of a network, and its largest size
GRAPHS: dict[str, Backend] = {"posts.onnx": "onnx", "posts.xml": "openvino"}
"""By the file of its graph of posts, the backend that a folder was exported for."""
_NO_MODEL = "give the RUN or RUN/model folder that `rpbert train` wrote"


@dataclass
class TaggingModel:
    """A system that can be trained, saved and used."""

    system: System
    options: SystemSettings  # from which the system was built
    vocabulary: Vocabulary
    tokenizer: PreTrainedTokenizerBase | None  # of the sub-word encoder
    entities: Lexicon  # of the training posts, to tell seen ones from unseen ones
    notes: dict[str, Any]  # kept with the weights, such as scores; JSON types
    card: str = ""  # what people should know of the model, in Markdown
    calibration: Calibration = field(default_factory=Calibration)  # fitted on the development split
    graphs: Path | None = None  # the folder of an exported model, whose system is a frame

    @classmethod
    def create(
        cls, options: SystemSettings, train: Sequence[Post], others: Sequence[Post] = ()
    ) -> TaggingModel:
        """A new model for the tags and words of some training posts.
        Of the words of `others` only vectors are taken, from the vector file. Raises InputError:
        the training posts hold no entity to learn, or a module cannot be built."""
        types = entity_types(train)
        if not types and registered(options.system).system.tags_words:
            raise InputError("training posts", "no entity in their tags", "tagged posts")
        if options.evidence is not None:
            known = options.evidence.with_width(train)
            options = options.model_copy(update={"evidence": known})
        texts = _with_texts(options, train)
        words, matrix = _word_table(options, texts, _with_texts(options, others))
        vocabulary = Vocabulary(
            tag_set(types), frequent_characters(train), words, marks_style(train)
        )
        tokenizer = tokenizer_for(options.encoder, texts)
        builder = Builder(options.tagger, vocabulary, len(tokenizer) if tokenizer else 0, matrix)
        system = build(options, builder)
        notes = {"initial_weights": system.initial_weights}
        return cls(system, options, vocabulary, tokenizer, _entities(train), notes)

    def grown(self, train: Sequence[Post]) -> TaggingModel:
        """This model with rows for what other training posts add: types, words, characters.
        They come after its own, whose weights are kept: until it is trained, posts are read as
        before. A new word or character starts as the unknown one, a new tag at random."""
        old, posts = self.vocabulary, _with_texts(self.options, train)
        types = [name for name in entity_types(train) if f"B-{name}" not in old.tags]
        words = () if not old.words else frequent_words(posts)
        vocabulary = replace(
            old,
            tags=(*old.tags, *tag_set(types)[1:]),
            characters=tuple(dict.fromkeys((*old.characters, *frequent_characters(train)))),
            words=tuple(dict.fromkeys((*old.words, *words))),
        )
        rows = len(self.tokenizer) if self.tokenizer else 0
        system = build(self.options, Builder(self.options.tagger, vocabulary, rows))
        new = system.state_dict()  # shares the memory of its parameters
        for name, kept in self.system.state_dict().items():
            if name.endswith("table.weight"):
                new[name][len(kept) :] = kept[UNKNOWN]
            new[name][tuple(map(slice, kept.shape))] = kept
        entities, calibration = self.entities | _entities(train), Calibration()
        return replace(
            self, system=system, vocabulary=vocabulary, entities=entities, calibration=calibration
        )

    @property
    def relation_is_learnt(self) -> bool:
        """Whether Task#1 taught r, or labels give it; else it is no relation, only a gate. True
        for models saved before this was noted."""
        return bool(self.notes.get("relation_is_learnt", True))

    def collator(self, images_kept: int = 2**30) -> Collator:
        """Packs posts for this model; keeps so many bytes of decoded images."""
        encoder, subwords, row = self.system.encoder, None, self.vocabulary.word_row
        if self.tokenizer is not None and encoder is not None:
            subwords = TokenizerSubwords(self.tokenizer, encoder.max_length)

        def words(text: str) -> list[int]:
            return [row(word) for word in _words_of(text)]

        reading = Reading(subwords, words, images_kept)
        evidence = EvidenceReader.of(self.system.evidence, reading)
        return Collator(self.vocabulary, subwords, evidence)

    def save(self, folder: Path, write_graphs: Callable[[Path], object] | None = None) -> None:
        """Write the model folder: all of it or, if anything fails, nothing.
        Graphs, if they are written, stand in place of all weights but the CRF's.
        A model that stood there before is replaced only once the new one is whole.
        Raises InputError: the folder holds other things than a model, which are never replaced."""
        folder = Path(os.path.abspath(folder))  # noqa: PTH100 - a name even for "."
        if folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).exists():
            raise InputError(folder, "other files", "a new folder, or that of an earlier model")
        with folder_written_whole(folder) as new:
            weights = _weights(self.system, of_crf=write_graphs is not None)
            weights = {k: v.detach().cpu().contiguous() for k, v in weights.items()}
            save_file(weights, new / "model.safetensors")
            if write_graphs is not None:
                write_graphs(new)
            if self.tokenizer is not None:
                self.tokenizer.save_pretrained(new / "tokenizer")
            (new / "model.json").write_text(self._description(), encoding="utf-8")
            if self.card:
                (new / CARD).write_text(self.card, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, backend: Backend = "torch") -> TaggingModel:
        """Read a model folder. Raises InputError: no model is there, or one for another backend, or
        a file of it is missing, changed or of a later format."""
        folder = saved_folder(folder) or folder
        _check_backend(folder, backend)
        verify(folder, ("model.json", "model.safetensors"), _NO_MODEL)
        described = _read_description(folder / "model.json")
        options, tokenizer = described["options"], None
        if options.encoder is not None:
            source = folder / "tokenizer"
            tokenizer = from_hub("tokenizer", str(folder), lambda: load_tokenizer(source))
        rows = max(tokenizer.get_vocab().values(), default=-1) + 1 if tokenizer else 0
        make = partial(Builder, options.tagger, described["vocabulary"], rows)
        weights, exported = folder / "model.safetensors", backend != "torch"
        frame = _frame(options, make(), weights, of_crf=exported)
        system = (frame if exported else build(options, make())).eval()
        system.load_state_dict(load_file(weights), strict=not exported, assign=exported)
        card = folder / CARD
        text = card.read_text("utf-8", errors="replace") if card.is_file() else ""
        graphs = folder if exported else None
        return cls(system=system, tokenizer=tokenizer, card=text, graphs=graphs, **described)

    def _description(self) -> str:
        content = {
            "format": FORMAT,
            "options": self._resolved().model_dump(mode="json"),
            "vocabulary": asdict(self.vocabulary),
            "entities": sorted(self.entities),
            "calibration": asdict(self.calibration),
            "notes": {**self.notes, "built_from": self.options.model_dump(mode="json")},
        }
        return json.dumps(content, ensure_ascii=False)

    def _resolved(self) -> SystemSettings:
        """The settings with shapes in place of names, so that loading needs no hub."""
        changes: dict[str, Any] = {}
        system, options = self.system, self.options
        embeddings, encoder = getattr(system, "embeddings", None), system.encoder
        if isinstance(embeddings, WordEmbeddings):
            table = {"word_vectors": None, "word_dimension": embeddings.vectors.width}
            changes["tagger"] = options.tagger.model_copy(update=table)
        if isinstance(encoder, TextImageEncoder):
            # A shape without it has a learnt vocabulary, where padding comes first.
            config = encoder.bert.config
            fields = shape_of(config, UNLISTED.get(config.model_type, ()))
            shape = {"pad_token_id": config.pad_token_id, **fields}
            assert options.encoder is not None
            named = {"pretrained": None, "shape": shape, "vocabulary": None}
            changes["encoder"] = options.encoder.model_copy(update=named)
        elif isinstance(encoder, VisionLanguageEncoder):
            changes["encoder"] = EncoderSettings(shape=encoder.shape)
        if options.evidence is not None and system.evidence is not None:
            changes["evidence"] = options.evidence.resolved(system.evidence)
        return options.model_copy(update=changes)


def _weights(system: System, *, of_crf: bool) -> dict[str, Tensor]:
    """Weights by name: all of them, or those of CRFs."""
    names = [n for n, m in system.named_modules() if isinstance(m, LinearChainCRF) or not of_crf]
    return {k: v for k, v in system.state_dict().items() if k.rpartition(".")[0] in names}


def _check_backend(folder: Path, backend: Backend) -> None:
    """Raise an InputError where a folder is there, but for another backend."""
    found = [name for name in GRAPHS if (folder / name).is_file()]
    there = GRAPHS[found[0]] if found else "torch"
    if there != backend and (folder / MANIFEST).is_file():
        made = f"`rpbert export MODEL --to {backend}` writes one"
        hint = made if backend != "torch" else f"give the backend {there} to predict or evaluate"
        raise InputError(folder, f"a model for {there}", f"one for {backend}", hint)


def _entities(train: Sequence[Post]) -> Lexicon:
    return entity_lexicon([post.words for post in train], [post.tags or () for post in train])


def _with_texts(options: SystemSettings, posts: Sequence[Post]) -> list[Post]:
    """The posts and the texts that a system reads beside them, as if these were posts."""
    texts = options.evidence.texts(posts) if options.evidence else ()
    return [*posts, *(Post.from_words("text", _words_of(text)) for text in texts)]


def _words_of(text: str) -> tuple[str, ...]:
    return SPLITTERS["joined"].words(text, SPLITTERS["joined"].split(text))


class _Saved(BaseModel):
    """What ``model.json`` holds. A whole manifest tells that nothing changed, not that its author
    means well."""

    options: dict[str, Any]
    vocabulary: Vocabulary
    entities: frozenset[str]
    notes: dict[str, Any]
    calibration: Calibration = Calibration()  # earlier models have none

    @model_validator(mode="after")
    def _can_be_used(self) -> Self:
        tags, marks = self.vocabulary.tags, self.vocabulary.marks
        if tags != tag_set([tag[2:] for tag in tags[1::2]]) or len({*tags}) < len(tags):
            raise ValueError(f"tags {tags!a:.60}", "O, then B- and I- of each type")
        if marks not in SPLITTERS:
            raise ValueError(f"marks {marks!a:.60}", " or ".join(SPLITTERS))
        if not all(0 < value < 1e6 for value in astuple(self.calibration)):
            raise ValueError(f"temperatures {self.calibration!a:.80}", "numbers above 0")
        for fault in _faults(self.options):
            raise ValueError(fault, "shapes of a network: a model is all in its folder")
        return self


def _read_description(path: Path) -> dict[str, Any]:
    """The attributes of a `TaggingModel` that ``model.json`` holds. Raises InputError: it is of
    another format, incomplete, or names something outside the folder."""
    try:
        content = json.loads(path.read_text("utf-8"))
        if content["format"] != FORMAT:
            hint = "update rpbert or train the model anew"
            raise InputError(path, f"format {content['format']!a:.40}", f"format {FORMAT}", hint)
    except (LookupError, TypeError, RecursionError, UnicodeError, JSONDecodeError) as error:
        raise InputError(path, f"no description ({error!r:.80})", "what was saved") from error
    saved = parse(_Saved, content, path)
    return {**dict(saved), "options": parse_saved(saved.options, path)}


def _faults(saved: Any, key: str = "") -> Iterator[str]:
    """Names of weights or vectors, and sizes of no network, in saved options. Layers are counted
    apart: each takes time even where nothing is allocated."""
    if isinstance(saved, dict):
        for name, value in saved.items():
            yield from _faults(value, name)
    elif isinstance(saved, list):
        if len(saved) > LAYERS:
            yield f"{key} of {len(saved):,} values"
        for value in saved:
            yield from _faults(value, key)
    elif key in ("pretrained", "word_vectors") and saved is not None:
        yield f"{key} {saved!a:.60} to load"
    elif isinstance(saved, int | float):
        counts = any(word in key for word in ("layer", "depth", "block", "stage", "expert"))
        if not abs(saved) <= (LAYERS if counts else LARGEST):
            yield f"{key} = {saved!a:.40}"


def _frame(options: SystemSettings, builder: Builder, weights: Path, *, of_crf: bool) -> System:
    """The network that options describe, which takes no memory, once compared with the head of its
    weights. Raises InputError: they differ, or the options make no network."""
    try:
        with torch.device("meta"):
            system = build(options, builder)
        tensors = _weights(system, of_crf=of_crf)
        with safe_open(weights, framework="pt") as file:
            found = {name: list(file.get_slice(name).get_shape()) for name in [*file.keys()]}
    except InputError:
        raise
    except Exception as error:  # libraries raise anything of a shape that makes no network
        raise InputError(weights, reason_of(error), "the weights model.json describes") from error
    described = {name: list(tensor.shape) for name, tensor in tensors.items()}
    for name in sorted(described.keys() | found.keys()):
        if found.get(name) != described.get(name):
            expected = f"{described.get(name)}, as model.json describes"
            raise InputError(weights, f"{name} of shape {found.get(name)}", expected)
    return system


def _word_table(
    options: SystemSettings, train: Sequence[Post], others: Sequence[Post]
) -> tuple[tuple[str, ...], np.ndarray | None]:
    """The words with their own row and, from a vector file, their initial vectors."""
    reader = options.tagger
    if not isinstance(reader, TaggerSettings):
        return (), None
    path = reader.word_vectors
    if path is None:
        return frequent_words(train), None
    forms = {word for posts in (train, others) for post in posts for word in post.words if word}
    forms |= {form.lower() for form in forms}
    vectors = read_vectors(path, forms, reader.kept_vectors)
    if not forms & vectors.keys():
        raise InputError(path, "none of the posts' words", "a .vec file of the posts' language")
    words = tuple(sorted(vectors))
    return words, np.stack([vectors[word] for word in words])
