"""A system as graphs of ONNX: one for each network that looks at images, one for all the rest.
Images have a graph of their own because a batch has more or fewer of them than posts, or none.
Sizes of a batch are free. The names of inputs are the fields of `Batch`, and those of
`EvidenceInput` behind the name of their kind, such as ``blocks.values``."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rpbert.errors import InputError, reason_of
from rpbert.evidence.base import Evidence, SeeingEvidence
from rpbert.models.saved import TaggingModel
from rpbert.models.tagger import TaggerOutput
from rpbert.modules.embeddings import Lstm
from rpbert.types import Batch, EvidenceInput, VisualTokens

if TYPE_CHECKING:
    from torch.onnx import ONNXProgram

POSTS = "posts"
"""The graph that reads posts; those of images have the names of their kinds."""
TEXT = ("subwords", "subword_mask", "post_of_row", "first_row", "word_of_subword")
WORDS = ("word_mask", "forms", "form_vectors", "form_characters")
EVIDENCE = ("values", "mask", "boxes", "of_post")
TOKENS = ("values", "mask", "boxes")  # what a graph of images gives
OUTPUTS = ("emissions", "relation_score", "source_scores")


def kinds_of(model: TaggingModel) -> dict[str, Evidence]:
    """The encoder of each kind of evidence, by its name."""
    settings, evidence = model.options.evidence, model.system.evidence
    if settings is None or evidence is None:
        return {}
    return dict(zip(settings.kinds, evidence.kinds(), strict=True))


def inputs_of(model: TaggingModel, batch: Batch) -> dict[str, Tensor]:
    """What the graph of posts reads of a batch whose images are encoded. Nothing is empty: engines
    read one row of padding where there is no evidence, word or character."""
    names = WORDS if model.system.encoder is None else TEXT + WORDS
    found = {name: getattr(batch, name) for name in names}
    for kind, evidence in zip(kinds_of(model), batch.evidence, strict=True):
        parts = {name: getattr(evidence, name) for name in EVIDENCE}
        found |= {f"{kind}.{name}": part for name, part in parts.items() if part is not None}
    return {name: _not_empty(tensor) for name, tensor in found.items()}


def _not_empty(tensor: Tensor) -> Tensor:
    lacking = [(0, int(size == 0)) for size in reversed(tensor.shape)]
    return F.pad(tensor, [*chain(*lacking)]) if tensor.numel() == 0 else tensor


def graphs(model: TaggingModel) -> Iterator[tuple[str, ONNXProgram]]:
    """Every graph of a model with its name. Raises InputError: it has what a graph cannot hold."""
    if model.system.reads_relation:
        reads = f"{model.options.system}, whose gate reads labels"
        raise InputError("export", reads, "a system that reads posts alone")
    evidence: list[EvidenceInput] = []
    for name, kind in kinds_of(model).items():
        # Five tokens of each of two images, which three posts show.
        values, boxes = torch.zeros(2, 5, kind.width), torch.zeros(2, 5, 4)
        mask, of_post = torch.ones(2, 5, dtype=torch.bool), torch.zeros(3, 2, dtype=torch.long)
        found = EvidenceInput(values, mask, boxes, of_post)
        if isinstance(kind, SeeingEvidence):
            pixels = torch.zeros(2, 3, *[kind.preprocessing.size] * 2)
            yield name, _program(model, ImageGraph(kind).eval(), {"pixels": pixels}, TOKENS)
        elif kind.is_text:
            found = EvidenceInput(mask.long(), mask, None, of_post)
        evidence.append(found)
    given = inputs_of(model, _example(tuple(evidence)))
    graph = PostGraph(model, given).eval()
    with torch.no_grad():
        output = graph.output(*given.values())
    names = [name for name in OUTPUTS if getattr(output, name) is not None]
    yield POSTS, _program(model, graph, given, names)


def _example(evidence: tuple[EvidenceInput, ...]) -> Batch:
    """Three posts in four rows, no size of which is that of another, or 1."""
    ones, zeros = torch.ones, torch.zeros
    return Batch(
        posts=(),
        subwords=ones(4, 7, dtype=torch.long),
        subword_mask=ones(4, 7, dtype=torch.bool),
        post_of_row=torch.tensor([0, 0, 1, 2]),
        first_row=torch.tensor([0, 2, 3]),
        word_of_subword=zeros(4, 7, dtype=torch.long),
        word_mask=ones(3, 6, dtype=torch.bool),
        forms=zeros(3, 6, dtype=torch.long),
        form_vectors=zeros(8, dtype=torch.long),
        form_characters=ones(8, 9, dtype=torch.long),
        evidence=evidence,
        image_status=(),
    )


def _program(
    model: TaggingModel, graph: nn.Module, given: Mapping[str, Tensor], outputs: Sequence[str]
) -> ONNXProgram:
    """A graph of ONNX of a module; the first two sizes of each input are free, of pixels one."""
    free = torch.export.Dim.DYNAMIC
    axes = [1 if isinstance(graph, ImageGraph) else min(t.ndim, 2) for t in given.values()]
    shapes = tuple(dict.fromkeys(range(count), free) for count in axes)
    try:
        # What is said of operators that are looked for and not needed helps nobody.
        with torch.no_grad(), warnings.catch_warnings(action="ignore"):
            for name in ("torch.onnx", "onnx_ir"):
                logging.getLogger(name).setLevel(logging.ERROR)
            exported = torch.export.export(
                graph, tuple(given.values()), dynamic_shapes=(shapes,), strict=False
            )
            names: dict[str, Any] = {"input_names": [*given], "output_names": [*outputs]}
            program = torch.onnx.export(exported, dynamo=True, verbose=False, **names)
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        found = f"{model.options.system} ({reason_of(cause)})"
        raise InputError("export", found, "operations that ONNX has") from error
    assert program is not None
    for node in program.model.graph:  # by the module that it comes from
        *modules, _ = node.metadata_props.get("pkg.torch.onnx.name_scopes", "").split("', '")
        node.name = "/".join([*modules[-1:], str(node.name)])
    return program


class ImageGraph(nn.Module):
    """Pixels to visual tokens. Shape: (I, 3, height, width) → (I, V, d_v), (I, V), (I, V, 4)."""

    def __init__(self, kind: Evidence) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Encode the images."""
        (pixels,) = given
        mask = pixels.new_ones(pixels.shape[0], 1, dtype=torch.bool)
        found = EvidenceInput(pixels, mask, None, of_post=mask)
        return tuple(part.contiguous() for part in self.kind.encode(found)[:3])


class PostGraph(nn.Module):
    """Inputs of `inputs_of` to those `OUTPUTS` that the system gives."""

    def __init__(self, model: TaggingModel, given: Mapping[str, Tensor]) -> None:
        super().__init__()
        system = model.system
        shared = {id(tensor): tensor for tensor in chain(system.parameters(), system.buffers())}
        self.system = copy.deepcopy(system, shared).eval()
        self.names, self.kinds = [*given], [*kinds_of(model)]
        for kind in self.system.evidence.kinds() if self.system.evidence else ():
            if isinstance(kind, SeeingEvidence):
                kind.encode = _encoded  # type: ignore[method-assign]
        for parent in list(self.system.modules()):
            for name, child in parent.named_children():
                if isinstance(child, Lstm):
                    setattr(parent, name, GraphLstm(child))

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Tag the posts."""
        output = self.output(*given)
        return tuple(v for name in OUTPUTS if (v := getattr(output, name)) is not None)

    def output(self, *given: Tensor) -> TaggerOutput:
        """What the system computes."""
        named = dict(zip(self.names, given, strict=True))
        evidence = tuple(
            EvidenceInput(*(named.get(f"{kind}.{name}") for name in EVIDENCE))  # type: ignore[arg-type]
            for kind in self.kinds
        )
        none = given[0].new_zeros(0, 0)
        fields = {name: named.get(name, none) for name in TEXT + WORDS}
        found: TaggerOutput = self.system(
            Batch(posts=(), evidence=evidence, image_status=(), **fields)
        )
        return found


def _encoded(found: EvidenceInput) -> VisualTokens:
    assert found.boxes is not None
    return VisualTokens(found.values, found.mask, found.boxes)


class GraphLstm(nn.Module):
    """An `Lstm` as operators of ONNX, one for each layer and direction: OpenVINO's CPU does not
    read the lengths of rows, so that they are reversed before and after."""

    def __init__(self, lstm: Lstm) -> None:
        super().__init__()
        self.hidden, self.ways = lstm.hidden_size, 1 + lstm.bidirectional
        self.runs = nn.ModuleList()
        for weights in lstm.all_weights:
            inputs, states, *biases = (_gates(weight.detach())[None] for weight in weights)
            run = nn.Module()
            for name, value in zip("wrb", (inputs, states, torch.cat(biases, 1)), strict=True):
                run.register_buffer(name, value)
            self.runs.append(run)

    def read(self, rows: Tensor, mask: Tensor) -> Tensor:
        """See `Lstm.read`; only for a graph."""
        lengths, read, found = mask.sum(1).clamp(min=1), rows.transpose(0, 1), []
        for number, run in enumerate(self.runs):
            backwards = number % self.ways == 1
            given = _reversed(read, lengths) if backwards else read
            shape = (rows.shape[1], 1, rows.shape[0], self.hidden)
            states = torch.onnx.ops.symbolic(
                "LSTM",
                (given, *map(run.get_buffer, "wrb")),
                {"hidden_size": self.hidden},
                dtype=rows.dtype,
                shape=shape,
            ).squeeze(1)
            found.append(_reversed(states, lengths) if backwards else states)
            if len(found) == self.ways:
                read, found = torch.cat(found, 2), []
        return read.transpose(0, 1) * mask[:, :, None]


def _reversed(rows: Tensor, lengths: Tensor) -> Tensor:
    """Each row from its end. Shape: (L, S, D), (S,) → (L, S, D)."""
    return torch.onnx.ops.symbolic(
        "ReverseSequence", (rows, lengths), dtype=rows.dtype, shape=rows.shape
    )


def _gates(weight: Tensor) -> Tensor:
    """Gates in ONNX's order: input, output, forget, cell; PyTorch has output last."""
    read, forget, cell, output = weight.chunk(4)
    return torch.cat([read, output, forget, cell])
