"""Models in the form of another engine: written by `export`, computed by `ExportedSystem`.
The folder is that of a model whose weights are those of its CRF alone, with the graphs beside it.
OpenVINO keeps what it compiled in a folder of its own beside that."""

from __future__ import annotations

import logging
import math
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rpbert.backends.graphs import OUTPUTS, POSTS, graphs, inputs_of, kinds_of
from rpbert.config.run import Backend, Precision
from rpbert.errors import InputError, reason_of
from rpbert.evidence.base import SeeingEvidence
from rpbert.models.saved import GRAPHS, TaggingModel
from rpbert.models.tagger import System, TaggerOutput
from rpbert.modules.crf import LinearChainCRF
from rpbert.types import Batch, EvidenceInput, Post

Graph: TypeAlias = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
"""Computes the outputs of a graph by name; inputs that it does not read are left aside."""
OUTSIDE_ENCODER = r"(?!system\.encoder\.)"  # names of nodes; attention has no module of its own
TOLERANCE = 1e-2
"""How far an emission may be from PyTorch's: deep networks of random weights come to 1e-3."""


def export(
    model: TaggingModel,
    to: Backend,
    folder: Path,
    posts: Sequence[Post],
    scaling: Sequence[Post] = (),
) -> dict[str, float]:
    """Write a model for an engine; returns how far each output is from PyTorch's on some posts.
    With posts for `scaling`, those by whose values int8 is scaled, it is quantized for OpenVINO.
    Raises InputError: the engine is not installed, the model has what graphs cannot hold, it
    computes something else, or the folder holds other things than a model."""
    for name in ("onnxscript", ENGINES[to]):
        _package(name, to)
    if (folder / "model.json").exists() and not any((folder / name).exists() for name in GRAPHS):
        raise InputError(folder, "a model, whose weights would be lost", "another folder")
    shutil.rmtree(_compiled(folder), ignore_errors=True)
    write = partial(_write_int8, model, scaling) if scaling else partial(_write_graphs, model, to)
    model.save(folder, write)
    engine = ExportedSystem(TaggingModel.load(folder, to), to, "fp32", "cpu")
    with torch.inference_mode():
        batch = model.collator()(posts)
        found, plain = engine(batch), model.system.cpu().eval()(batch)
    differences = {}
    for name in OUTPUTS:
        ours, theirs = getattr(plain, name), getattr(found, name)
        if ours is not None:
            real = batch.word_mask if name == "emissions" else ...
            differences[name] = float((ours - theirs)[real].abs().max())
    if not max(differences.values()) < (math.inf if scaling else TOLERANCE):
        raise InputError(folder, f"{differences} from PyTorch", f"less than {TOLERANCE}")
    return differences


def _write_graphs(model: TaggingModel, to: Backend, folder: Path) -> None:
    for name, program in graphs(model):
        path = folder / f"{name}.onnx"
        program.save(path)
        if to == "openvino":
            openvino = _package("openvino", to)
            found = openvino.convert_model(path)
            openvino.save_model(found, path.with_suffix(".xml"), compress_to_fp16=False)
            for used in folder.glob(f"{path.name}*"):
                used.unlink()


def _write_int8(model: TaggingModel, posts: Sequence[Post], folder: Path) -> None:
    """Write graphs for OpenVINO with image networks and text encoder in int8: biLSTM, gate,
    classifier and output layers stay in float."""
    openvino, nncf = (_package(name, "openvino") for name in ("openvino", "nncf"))
    nncf.set_log_level(logging.ERROR)
    given: dict[str, list[dict[str, Tensor]]] = defaultdict(list)
    with TemporaryDirectory() as parent, torch.inference_mode(), redirect_stdout(sys.stderr):
        plain = Path(parent, "plain")  # what is compiled goes beside it
        plain.mkdir()
        _write_graphs(model, "openvino", plain)
        system = ExportedSystem(replace(model, graphs=plain), "openvino", "fp32", "cpu")
        for batch in map(model.collator(), ([post] for post in posts)):  # alone: nothing is padded
            given[POSTS].append(system.inputs(batch))
            for name, found in zip(kinds_of(model), batch.evidence, strict=True):
                given[name] += [{"pixels": found.values}] if len(found.values) else []
        for path in plain.glob("*.xml"):
            graph, inputs = openvino.Core().read_model(path), given[path.stem]
            names = [node.get_any_name() for node in graph.inputs]
            norms = any(op.get_type_name() == "MVN" for op in graph.get_ops())
            kind = nncf.ModelType.TRANSFORMER if norms else None
            outside = [OUTSIDE_ENCODER] if path.stem == POSTS else []
            scope = nncf.IgnoredScope(patterns=outside, types=["Gather"], validate=False)
            seen = nncf.Dataset([{k: of[k].numpy() for k in names} for of in inputs])
            if inputs:
                args = {"model_type": kind, "ignored_scope": scope, "subset_size": len(inputs)}
                graph = nncf.quantize(graph, seen, **args)
            openvino.save_model(graph, folder / path.name, compress_to_fp16=False)


def _compiled(folder: Path) -> Path:
    """Where OpenVINO keeps what it compiled: not in the folder, whose files the manifest lists."""
    return folder.with_name(f".{folder.name}.compiled")


class ExportedSystem(System):
    """A system whose graphs another engine computes. Raises InputError: it is not installed, or
    cannot compute on the device or in the precision."""

    def __init__(
        self, model: TaggingModel, backend: Backend, precision: Precision, device: str
    ) -> None:
        super().__init__()
        if model.graphs is None:
            raise InputError("backend", f"{backend} for a model in memory", "an exported folder")
        self._crf, self.model = model.system.crf if model.system.tags_words else None, model
        load = partial(LOADERS[backend], model.graphs, precision, device)
        self.posts = load(POSTS)
        seeing = [k for k, kind in kinds_of(model).items() if isinstance(kind, SeeingEvidence)]
        self.images = {name: load(name) for name in seeing}

    @property
    def crf(self) -> LinearChainCRF:
        """The CRF of the system."""
        assert self._crf is not None
        return self._crf

    def forward(self, batch: Batch) -> TaggerOutput:
        """Tag a batch."""
        outputs = self.posts(self.inputs(batch))
        return TaggerOutput(losses=None, **{name: outputs.get(name) for name in OUTPUTS})

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """What the graph of posts reads of a batch."""
        pairs = zip(kinds_of(self.model), batch.evidence, strict=True)
        encoded = tuple(self._encoded(name, found) for name, found in pairs)
        return inputs_of(self.model, replace(batch, evidence=encoded))

    def _encoded(self, name: str, found: EvidenceInput) -> EvidenceInput:
        """Evidence with visual tokens in place of pixels; no network runs where there are none."""
        if name not in self.images:
            return found
        if not len(found.values):
            width = kinds_of(self.model)[name].width
            tokens = {"values": torch.zeros(0, 1, width), "boxes": torch.zeros(0, 1, 4)}
            tokens["mask"] = found.mask
        else:
            tokens = self.images[name]({"pixels": found.values})
        return EvidenceInput(**tokens, of_post=found.of_post)


def _openvino(folder: Path, precision: Precision, device: str, name: str) -> Graph:
    """A graph compiled by OpenVINO for the CPU."""
    openvino = _package("openvino", "openvino")
    if device != "cpu":
        raise InputError("backend", f"openvino on {device}", "the cpu, or onnx")
    chosen = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",  # one batch at a time, by all threads
        "CACHE_DIR": str(_compiled(folder)),
    }
    compiled = openvino.Core().compile_model(folder / f"{name}.xml", "CPU", chosen)
    names = [node.get_any_name() for node in compiled.inputs]
    outputs = [node.get_any_name() for node in compiled.outputs]
    request = compiled.create_infer_request()

    def compute(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        request.infer({name: given[name].numpy() for name in names}, share_inputs=True)
        return {name: torch.from_numpy(request.get_tensor(name).data.copy()) for name in outputs}

    return compute


def _onnx(folder: Path, precision: Precision, device: str, name: str) -> Graph:
    """A graph computed by ONNX Runtime."""
    runtime = _package("onnxruntime", "onnx")
    if precision != "fp32":
        raise InputError("precision", f"{precision} by onnx", "fp32, or openvino or torch")
    provider = "CPUExecutionProvider" if device == "cpu" else "CUDAExecutionProvider"
    if provider not in runtime.get_available_providers():
        raise InputError("backend", f"onnx without {provider}", "onnxruntime-gpu, or the cpu")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(folder / f"{name}.onnx", options, providers=[provider])
    names = [node.name for node in session.get_inputs()]
    outputs = [node.name for node in session.get_outputs()]

    def compute(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        arrays: list[NDArray[Any]] = session.run(None, {n: given[n].cpu().numpy() for n in names})
        return dict(zip(outputs, map(torch.from_numpy, map(np.asarray, arrays)), strict=True))

    return compute


LOADERS: dict[Backend, Callable[[Path, Precision, str, str], Graph]] = {
    "openvino": _openvino,
    "onnx": _onnx,
}
ENGINES = {"openvino": "openvino", "onnx": "onnxruntime"}  # the package that computes


def _package(module: str, extra: str) -> Any:
    """A package of an extra. Raises InputError: it is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        hint = f"pip install 'rpbert[{extra}]'"
        raise InputError(
            f"backend {extra}", reason_of(error), f"the package {module}", hint
        ) from None
