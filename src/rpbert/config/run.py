"""Settings of a run, read from YAML: what is wrong with them is one line that says how to fix it.

A run is one YAML file of three blocks, ``model``, ``data`` and ``training``, above them optionally
``preset``. The file is saved beside every model, complete with the defaults that were in force.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeAlias, TypeVar, get_args

import yaml
from pydantic import Field, ValidationError, model_validator

from rpbert.config.data import DataSettings, MismatchSource, RelationSources
from rpbert.config.model import (
    BiLstmSettings,
    BlockSettings,
    CaptionSettings,
    DecodingSettings,
    EncoderSettings,
    EvidenceKind,
    EvidenceSettings,
    EvidenceSources,
    GlobalSettings,
    ImageSettings,
    OcrSettings,
    ReaderSettings,
    RegionSettings,
    Settings,
    SourceSettings,
    SystemSettings,
    TaggerSettings,
    TextEncoderSettings,
)
from rpbert.config.refusals import as_input_error, first_fault, key_of
from rpbert.config.yaml_file import parse_yaml, read_yaml
from rpbert.errors import InputError
from rpbert.storage.writing import written_whole

__all__ = [
    "PRESETS",
    "AverageSettings",
    "BiLstmSettings",
    "BlockSettings",
    "CaptionSettings",
    "DataSettings",
    "DecodingSettings",
    "EncoderSettings",
    "EvidenceKind",
    "EvidenceSettings",
    "EvidenceSources",
    "GlobalSettings",
    "ImageSettings",
    "MismatchSource",
    "OcrSettings",
    "Rates",
    "ReaderSettings",
    "RegionSettings",
    "RelationSources",
    "RunSettings",
    "Settings",
    "SourceSettings",
    "SystemSettings",
    "TaggerSettings",
    "TextEncoderSettings",
    "TrainingSettings",
    "anchor_model",
    "fill_preset",
    "load_run",
    "merged",
    "override",
    "parse",
    "write_yaml",
]

Precision: TypeAlias = Literal["auto", "fp32", "bf16", "int8"]
"""Of the heavy parts in inference; ``auto`` is bf16 where the device multiplies it, else fp32."""

PRECISIONS: tuple[Precision, ...] = get_args(Precision)

Backend: TypeAlias = Literal["torch", "kernels"]
"""What computes the model: the modules of `rpbert.models`, or kernels for a CPU."""

BACKENDS: tuple[Backend, ...] = get_args(Backend)

AnySettings = TypeVar("AnySettings", bound=Settings)


class Rates(Settings):
    """Learning rates of one task, one for each group of parameters of Algorithm 1."""

    head: float = Field(ge=0)
    """θ_FCs in Task#1; embeddings, θ_biLSTM and θ_CRF in Task#2."""
    encoder: float = Field(ge=0)
    """θ_RpBERT without W^v."""
    projection: float = Field(ge=0)
    """W^v, which maps image blocks into the encoder, and what else a published encoder has not."""
    visual: float = Field(ge=0)
    """θ_ResNet; 0 freezes it."""


class AverageSettings(Settings):
    """A mean of the weights along training, which is scored and saved in their place."""

    ema: float | None = Field(None, gt=0, lt=1)
    """Share that the mean keeps at each step, such as 0.999; less at the first ones."""
    epochs: int | None = Field(None, ge=2)
    """The plain mean of the weights after each of so many last epochs."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.ema is None) == (self.epochs is None):
            raise ValueError("both or neither", "exactly one of ema and epochs")
        return self


class TrainingSettings(Settings):
    """Algorithm 1 and its optimisers. The defaults are the `paper` preset (Table 2)."""

    former: ClassVar[Mapping[str, Any]] = {"layer_decay": 1.0}

    seed: int = 0
    epochs: int = Field(25, ge=1)
    batch_size: int = Field(8, ge=1)
    relation: Rates = Rates(head=1e-4, encoder=1e-6, projection=1e-6, visual=1e-6)
    """Rates of Task#1."""
    tagging: Rates = Rates(head=1e-4, encoder=1e-6, projection=1e-6, visual=1e-6)
    """Rates of Task#2."""
    relation_weight: float = Field(1.0, gt=0)
    """Of Task#1's loss. Other than 1 needs `moments: shared`: Adam with moments of its own divides
    a constant factor out again, and then the rates of `relation` are what counts."""
    schedule: Literal["blocks", "interleaved"] = "blocks"
    """``blocks`` is Algorithm 1: all of Task#1, then all of Task#2; else they take turns."""
    optimizer: Literal["adam", "adamw"] = "adam"
    """``adamw`` decays weights by 0.01; ``adam`` is Kingma and Ba's with default settings."""
    moments: Literal["task", "shared"] = "task"
    """Adam's two moments of what both tasks update: a pair for each task, or one pair that follows
    the gradients of both, which takes 8 bytes a parameter less (1.3 GiB for BERT-base and
    ResNet-152)."""
    warmup: float = Field(0.0, ge=0, lt=1)
    """Share of a task's steps over which its rates rise from 0."""
    decay: Literal["constant", "linear", "cosine"] = "constant"
    """After warm-up: constant rates, or linear or cosine decay to 0."""
    clip_norm: float | None = Field(None, gt=0)
    """Largest norm of a step's gradient; None: no clipping."""
    average: AverageSettings | None = None
    """``{ema: 0.999}`` or ``{epochs: 3}``: score and save a mean of the weights; None: the last."""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """``bf16`` computes the heavy parts in bfloat16, ``auto`` does so where the device can."""
    device: Literal["auto", "cpu"] = "auto"
    evaluation_batch_size: int = Field(32, ge=1)
    keep_checkpoints: int = Field(2, ge=1)
    """How many of the last checkpoints stay in RUN/checkpoints, beside that of the best epoch."""
    checkpoint_minutes: float = Field(15.0, gt=0)
    """A checkpoint is written after every epoch, and within one this long after the last."""
    checkpoint_steps: int | None = Field(None, ge=1)
    """Within an epoch also after each multiple of this many steps."""
    tensorboard: bool = False
    """Also write TensorBoard events to RUN/tensorboard (extra ``track``)."""

    @model_validator(mode="after")
    def _weight_counts(self) -> Self:
        if self.relation_weight != 1 and self.moments != "shared":
            found = f"relation_weight {self.relation_weight:g} and moments for each task"
            raise ValueError(found, "moments: shared, or other rates in training.relation")
        return self


PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "tuned": {
        "epochs": 5,
        "batch_size": 16,
        "schedule": "interleaved",
        "relation": {"head": 1e-3, "encoder": 5e-5, "projection": 1e-3, "visual": 1e-5},
        "tagging": {"head": 2e-3, "encoder": 1e-4, "projection": 1e-3, "visual": 1e-5},
        "optimizer": "adamw",
        "warmup": 0.1,
        "decay": "linear",
        "clip_norm": 1.0,
    },
}
"""`paper`: Table 2 and Algorithm 1 as printed. `tuned`: the tasks take turns, warm-up, decay and
higher rates; fewer epochs."""


class RunSettings(Settings):
    """A whole run: what ``rpbert train`` reads and writes back to RUN/config.yaml."""

    preset: Literal["paper", "tuned"] = "paper"
    """Where `training` leaves a key out, the preset's value counts."""
    model: dict[str, Any]
    """Settings of one system; which keys it has, the system says (`rpbert.models`)."""
    data: DataSettings
    training: TrainingSettings = TrainingSettings()
    licence: str | None = None
    """Of the trained weights, for the model card, such as ``mit``; None: not stated."""

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, given: Any) -> Any:
        return fill_preset(given)


def fill_preset(given: Any) -> Any:
    """Settings with a ``training`` block, filled from their preset."""
    name = given.get("preset", "paper") if isinstance(given, dict) else None
    if isinstance(name, str) and name in PRESETS:
        training = given.get("training") or {}
        if isinstance(training, dict):
            given = {**given, "training": merged(PRESETS[name], training)}
    return given


def load_run(path: Path, overrides: Sequence[str] = ()) -> RunSettings:
    """Read a run from YAML, with ``block.key=value`` overrides.

    Paths in the file are relative to the folder of the file, paths in overrides to the working
    folder.

    Raises:
        InputError: the file is missing, is no YAML mapping, or a key or value is not accepted.
    """
    given = read_yaml(path)
    for block, key in (("data", "path"), ("data", "relations")):
        _anchor(given, block, key, path.parent)
    data = given.get("data")
    if isinstance(data, dict) and isinstance(data.get("relation_source"), dict):
        _anchor(data["relation_source"], "soft", "path", path.parent)
    data = given.get("data")
    name = data.get("captioner") if isinstance(data, dict) else None
    if isinstance(name, str) and (path.parent / name).is_dir():  # else it is a hub id
        _anchor(given, "data", "captioner", path.parent)
    model = given.get("model")
    if isinstance(model, dict):
        anchor_model(model, path.parent)
    for line in overrides:
        override(given, line)
    typed = {line.partition("=")[0] for line in overrides}
    return parse(RunSettings, given, path, typed)


def parse(
    kind: type[AnySettings],
    given: Mapping[str, Any],
    where: object,
    typed: Collection[str] = (),
) -> AnySettings:
    """Validate `given` as settings of `kind`; the first fault becomes one clear line.

    Args:
        where: named in the message, unless the fault is with one of the keys `typed` or within it.

    Raises:
        InputError: a key or value is not accepted.
    """
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        fault = first_fault(error)
        key, unknown = key_of(kind, fault), fault["type"] == "extra_forbidden"
        within = any(f"{key}.".startswith(f"{name}.") for name in typed)  # it, or a block around it
        if within or (unknown and any(name.startswith(f"{key}.") for name in typed)):
            where = "command line"
        raise as_input_error(kind, error, where) from None


def write_yaml(settings: Settings, path: Path) -> None:
    """Write settings with every default spelt out."""
    content = settings.model_dump(mode="json")
    with written_whole(path) as file:
        yaml.safe_dump(content, file, sort_keys=False, allow_unicode=True)


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of `base`, those of `over` counting where both have one; key by key."""
    result = dict(base)
    for key, value in over.items():
        nested = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if nested else value
    return result


def anchor_model(model: dict[str, Any], folder: Path) -> None:
    """Make the paths in a ``model`` block, which are relative to `folder`, absolute."""
    _anchor(model, "tagger", "word_vectors", folder)
    evidence = model.get("evidence")
    kinds: dict[str, Any] = evidence if isinstance(evidence, dict) else {}
    parts: list[tuple[dict[str, Any], str]] = [(kinds, kind) for kind in kinds]
    for holder, part in [(model, "encoder"), (model, "large"), *parts]:
        inner = holder.get(part)
        name = inner.get("pretrained") if isinstance(inner, dict) else None
        # A hub id, unless a folder of that name is there.
        if isinstance(name, str) and (folder / name).is_dir():
            _anchor(holder, part, "pretrained", folder)


def _anchor(given: dict[str, Any], block: str, key: str, folder: Path) -> None:
    inner = given.get(block)
    if isinstance(inner, dict) and isinstance(inner.get(key), str):
        inner[key] = os.path.abspath(folder / inner[key])  # noqa: PTH100


def override(given: dict[str, Any], line: str) -> None:
    """Set one key, as ``block.key=value``.

    Raises:
        InputError: it is not of that form.
    """
    name, equals, value = line.partition("=")
    if not equals or not name:
        raise InputError(repr(line), "no `=`", "key=value, such as training.epochs=3")
    *parents, last = name.split(".")
    target = given
    for parent in parents:
        target = target.setdefault(parent, {})
        if not isinstance(target, dict):
            raise InputError(repr(line), f"{parent} is a value", "a block of settings")
    target[last] = parse_yaml(value, repr(line))
