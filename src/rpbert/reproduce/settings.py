"""What all rows of a table share, and the settings of one row's run on given data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, model_validator

from rpbert.config.model import EncoderSettings, Settings, TaggerSettings
from rpbert.config.reading import config_file, merged, parse, parse_with_overrides, read_yaml
from rpbert.config.run import PresetSettings, RunSettings, TrainingSettings
from rpbert.errors import InputError
from rpbert.evidence import EvidenceSources
from rpbert.models import SYSTEMS
from rpbert.reproduce.rows import Row
from rpbert.types import Post

PAPER: dict[str, Any] = yaml.safe_load(
    (files("rpbert.reproduce") / "paper.yaml").read_text("utf-8")
)


class SharedParts(Settings):
    """The parts that rows are made of; each row takes those that its system has."""

    encoder: EncoderSettings | None = None
    large: EncoderSettings | None = None
    """The encoder of the row RpBERT-Large."""
    evidence: EvidenceSources = EvidenceSources()
    """Each row takes, of the kinds that the data has, the one its system takes first."""
    tagger: TaggerSettings = TaggerSettings()


class SharedSettings(PresetSettings):
    """A file of settings for ``rpbert reproduce``: that of a run without system and data."""

    model: SharedParts = SharedParts()
    systems: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """What single systems have otherwise, such as ``uniter: {encoder: {pretrained: …}}``, with
    their own ``training`` in place of keys of the shared one."""
    training: TrainingSettings = TrainingSettings()

    @model_validator(mode="after")
    def _known_systems(self) -> SharedSettings:
        if unknown := sorted(set(self.systems) - set(SYSTEMS)):
            raise ValueError(f"{unknown[0]}, which is no system", f"some of {', '.join(SYSTEMS)}")
        for name, own in self.systems.items():
            if not isinstance(own.get("training", {}), dict):
                raise ValueError(f"{own['training']!a:.20} as training of {name}", "settings")
        return self


def load_shared(name: str | Path | None, overrides: Sequence[str] = ()) -> SharedSettings:
    """Read the settings that all rows share, by file or name; without one, ``paper.yaml``.
    Raises InputError: the file is missing, or a key or value is not accepted."""
    given = read_yaml(config_file(name)) if name else dict(PAPER)
    return parse_with_overrides(SharedSettings, given, overrides, name or "the paper's settings")


class CannotRun(Exception):
    """Why a row cannot run on some data; the message says it in a few words."""


def run_settings(
    row: Row,
    shared: SharedSettings,
    data: Mapping[str, Any],
    train: Sequence[Post],
    changes: Mapping[str, Any],
) -> RunSettings:
    """The run of a row; the evidence of the `train` posts decides which kind it takes. Raises
    CannotRun: encoder or evidence cannot be had; InputError: settings tell what rows tell."""
    entry = SYSTEMS[row.system]
    fields = entry.system.Options.model_fields
    own = {**shared.systems.get(row.system, {})}
    for key in sorted(own.keys() & row.options.keys()):
        both = isinstance(own[key], dict) and isinstance(row.options[key], dict)
        if both and not own[key].keys() & row.options[key].keys():
            continue  # other keys of one block
        where = f"systems.{row.system}.{key}"
        raise InputError(where, str(own[key]), "nothing", "the rows of a table say it themselves")
    model: dict[str, Any] = {"system": row.system, **row.options}
    # Not every system has words or a biLSTM: it takes the keys that it reads.
    read = getattr(fields["tagger"].annotation, "model_fields", {})
    model["tagger"] = shared.model.tagger.model_dump(
        mode="json", exclude_unset=True, include=set(read)
    )
    if fields["encoder"].is_required() and "encoder" not in own:
        encoder = shared.model.large if row.large else shared.model.encoder
        if encoder is None:
            name = "large" if row.large else "encoder"
            raise CannotRun(f"no model.{name} in the settings")
        model["encoder"] = encoder.model_dump(mode="json")
    if entry.evidence and "evidence" not in own:
        model["evidence"] = _evidence(entry.evidence, shared, train)
    training = merged(shared.training.model_dump(mode="json"), own.pop("training", {}))
    source = {"relation_source": row.relation_source} if row.relation_source else {}
    blocks = {
        "preset": shared.preset,
        "model": merged(model, own),
        "data": {**data, **source},
        "training": {**training, **changes},
    }
    return parse(RunSettings, blocks, f"systems.{row.system}")


def _evidence(
    taken: Sequence[str], shared: SharedSettings, train: Sequence[Post]
) -> dict[str, Any]:
    """Of the kinds that the training posts have, the one that the system takes first."""
    there = shared.model.evidence.kinds
    offered = [kind for kind in taken if kind in there]
    if not offered:
        settings = ", ".join(there) or "none"
        raise CannotRun(f"takes {' or '.join(taken)} as evidence, the settings offer {settings}")
    for kind in offered:
        if any(getattr(post.images[0], there[kind].made_from) for post in train):
            return {kind: there[kind].model_dump(mode="json")}
    raise CannotRun(f"no training post has what {' or '.join(offered)} are made from")
