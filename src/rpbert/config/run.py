"""Settings of a run: one YAML file of three blocks, ``model``, ``data`` and ``training``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias

import yaml
from pydantic import AliasChoices, BeforeValidator, Field, model_validator

from rpbert.config.model import AbsolutePath, Kinds, Settings
from rpbert.config.reading import config_file, merged, parse_with_overrides, read_yaml

Precision: TypeAlias = Literal["auto", "fp32", "bf16"]
"""Of the heavy parts in inference; ``auto`` is bf16 where the device multiplies it, else fp32."""

Backend: TypeAlias = Literal["torch", "openvino", "onnx"]
"""What computes the model: the modules of `rpbert.models`, or an engine it was exported for."""

Tracker: TypeAlias = Literal["tensorboard", "wandb", "mlflow"]
"""What Accelerate writes to; each needs the package of that name."""


class RelationSource(Settings):
    """A source of the relation between text and image, for Task#1."""

    weight: float = Field(1.0, gt=0)
    """How much a post of this source counts against those of the others."""


class LabelSource(RelationSource):
    """The relation that posts come with (TRC, ``relations.tsv``), as 0 or 1: 1 is above 0.5."""


class SoftSource(RelationSource):
    """A probability a post, of any model or person."""

    path: AbsolutePath | None = None
    """A file of lines id, tab, probability; None: the relation that posts come with, as it is."""


class MismatchSource(RelationSource):
    """Pairs made by exchanging images between posts: image-text matching (Chen et al. 2020, UNITER,
    section 3.2), with new pairs every epoch."""

    former: ClassVar[Mapping[str, Any]] = {"hardness": 1, "matched": 1.0}

    negatives: int = Field(1, ge=1)
    """Exchanged images a post; together they count as much as its own image does."""


class RelationSources(Kinds):
    """Kinds of relation supervision."""

    labels: LabelSource | None = None
    soft: SoftSource | None = None
    mismatch: MismatchSource | None = None


Scheme: TypeAlias = Literal["iob1", "iob2", "bioes", "bilou"]
"""How tags say where an entity begins and ends; BMES is read as BIOES is."""


class DataSettings(Settings):
    """Where the posts are."""

    former: ClassVar[Mapping[str, Any]] = {"captioner": None, "ocr": False}

    path: AbsolutePath
    """A data folder (or folder of JSON lines or Parquet) with train, dev and test splits."""
    relations: AbsolutePath | None = None
    """Task#1's posts (TRC or any data with relation labels); None: the labels in `path`."""
    relation_source: RelationSources | None = None
    """What Task#1 learns from: `labels`, `soft`, `mismatch`, several, or `none` (no Task#1). Not
    given: the labels if there are any, as probabilities where they are, else `mismatch`."""
    posts: int | None = Field(None, ge=1)
    """For a quick pass, most posts of each split: its first ones; None: all."""
    tag_column: int = -1
    """Of CoNLL files with more than two columns, that of the tag: from 1, or from the last, -1."""
    scheme: Scheme | None = None
    """Of the tags; None: what the data tells. They are read as IOB2."""
    lenient: bool = False
    """Leave faulty rows out and count them; else the first one ends the run."""

    @property
    def relations_read(self) -> Path | None:
        """`relations`, where a source learns from what posts came with."""
        sources = self.relation_source
        soft = sources.soft if sources else None
        asked = sources is None or sources.labels is not None or (soft and soft.path is None)
        return self.relations if asked else None


class Rates(Settings):
    """Learning rates of one task, one for each group of parameters of Algorithm 1."""

    head: float = Field(ge=0)
    """θ_FCs in Task#1; embeddings, θ_biLSTM and θ_CRF in Task#2."""
    encoder: float = Field(ge=0)
    """θ_RpBERT: the weights that were published, or all of it where none were."""
    projection: float = Field(ge=0)
    """W^v, and what else starts at random beside published weights: as of `head` in Table 2."""
    visual: float = Field(ge=0)
    """θ_ResNet; 0 freezes it."""


class AverageSettings(Settings):
    """A moving average of the weights, scored and saved in their place."""

    former: ClassVar[Mapping[str, Any]] = {"epochs": None}

    ema: float = Field(gt=0, lt=1)
    """Share that the mean keeps at each step, such as 0.999; less at the first ones."""


class TrainingSettings(Settings):
    """Algorithm 1 and its optimisers. The defaults are the `paper` preset (Table 2)."""

    former: ClassVar[Mapping[str, Any]] = {"layer_decay": 1.0}

    seed: int = Field(0, ge=0, lt=2**32)
    epochs: int = Field(25, ge=1)
    patience: int | None = Field(None, ge=1)
    """Training ends after so many epochs without a better development F1; None: never early."""
    batch_size: int = Field(8, ge=1)
    relation: Rates = Rates(head=1e-4, encoder=1e-6, projection=1e-4, visual=1e-6)
    """Rates of Task#1."""
    tagging: Rates = Rates(head=1e-4, encoder=1e-6, projection=1e-4, visual=1e-6)
    """Rates of Task#2."""
    relation_weight: float = Field(1.0, gt=0)
    """Of Task#1's loss; other than 1 needs `moments: shared`, else Adam divides it out again."""
    agreement: float | None = Field(None, ge=0)
    """Task#2 reads each post twice, with evidence and as text alone, and adds so many times the
    divergence of the second reading's tags from the first's; None: once, as in the paper."""
    evidence_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of posts that Task#2 reads without their evidence, drawn anew at each step."""
    schedule: Literal["blocks", "interleaved"] = "blocks"
    """``blocks`` is Algorithm 1: all of Task#1, then all of Task#2; else they take turns."""
    optimizer: Literal["adam", "adamw"] = "adam"
    """``adamw`` decays weights by 0.01; ``adam`` is Kingma and Ba's with default settings."""
    moments: Literal["task", "shared"] = "task"
    """Adam's two moments: a pair for each task, or one pair for both (8 bytes a parameter less)."""
    warmup: float = Field(0.0, ge=0, lt=1)
    """Share of a task's steps over which its rates rise from 0."""
    decay: Literal["constant", "linear", "cosine"] = "constant"
    """After warm-up: constant rates, or linear or cosine decay to 0."""
    clip_norm: float | None = Field(None, gt=0)
    """Largest norm of a step's gradient; None: no clipping."""
    average: AverageSettings | None = None
    """``{ema: 0.999}``: score and save the moving average of the weights; None: the last ones."""
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
    track: Annotated[
        list[Tracker], BeforeValidator(lambda on: ["tensorboard"] if on is True else on or [])
    ] = Field([], validation_alias=AliasChoices("track", "tensorboard"))
    """Where the figures of RUN/metrics.jsonl go as well; TensorBoard's are in RUN/tensorboard."""

    @model_validator(mode="after")
    def _weight_counts(self) -> Self:
        if self.relation_weight != 1 and self.moments != "shared":
            found = f"relation_weight {self.relation_weight:g} and moments for each task"
            raise ValueError(found, "moments: shared, or other rates in training.relation")
        return self


Preset: TypeAlias = Literal["paper", "tuned", "authors-2021", "authors-2022"]
PRESETS: dict[str, dict[str, dict[str, Any]]] = yaml.safe_load(
    Path(__file__).with_name("presets.yaml").read_text("utf-8")
)
"""`paper` is Table 2 and Algorithm 1 as printed; the others say what they are in the file."""


class PresetSettings(Settings):
    """Settings with a ``training`` block, filled from their preset, and so the model of RpBERT."""

    preset: Preset = "paper"
    """Gives the keys that `training` leaves out, and of RpBERT those that `model` does."""

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, given: Any) -> Any:
        name = given.get("preset", "paper") if isinstance(given, dict) else None
        for block, preset in (PRESETS.get(name, {}) if isinstance(name, str) else {}).items():
            own = given.get(block) or {}
            if isinstance(own, dict) and (block == "training" or own.get("system") == "rpbert"):
                given = {**given, block: merged(preset, own)}
        return given


class RunSettings(PresetSettings):
    """A whole run: what ``rpbert train`` reads and writes back to RUN/config.yaml."""

    start: str | None = None
    """RUN, RUN/model or hub id of a trained model to go on from; its settings are `model` then."""
    model: dict[str, Any] = Field(default_factory=dict)
    """Settings of one system; which keys it has, the system says (`rpbert.models`)."""
    data: DataSettings
    training: TrainingSettings = TrainingSettings()
    licence: str | None = None
    """Of the trained weights, for the model card, such as ``mit``; None: not stated."""

    @model_validator(mode="before")
    @classmethod
    def _fill_from_systems(cls, given: Any) -> Any:
        """A file for several systems has ``systems``: what each has of `model` and `training`."""
        if isinstance(given, dict) and isinstance(given.get("systems"), dict):
            model = given.get("model") or {}
            own = {**(given["systems"].get(model.get("system")) or {})}
            training = merged(own.pop("training", {}), given.get("training") or {})
            given = {**given, "model": merged(own, model), "training": training}
            del given["systems"]
        return given


def load_run(name: str | Path, overrides: Sequence[str] = ()) -> RunSettings:
    """Read a run from YAML by file or name (`config_file`), with ``block.key=value`` overrides.
    Paths in the file are relative to its folder, paths in overrides to the working folder. Raises
    InputError: as `read_yaml` and `parse` do."""
    path = config_file(name)
    return parse_with_overrides(RunSettings, read_yaml(path), overrides, path)
