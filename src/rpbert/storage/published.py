"""Published weights, from a hub or a folder: the right architecture, whole, and never a pickle."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from rpbert.errors import InputError, reason_of
from rpbert.storage.writing import stays_below

if TYPE_CHECKING:
    from transformers import BertConfig, PreTrainedConfig, PreTrainedModel


Built = TypeVar("Built")

BERT_FIELDS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "max_position_embeddings",
    "type_vocab_size",
    "initializer_range",
    "layer_norm_eps",
)
"""The fields of transformers' BertConfig that shape an encoder; its relatives share them."""


def bert_shape(config: Any) -> dict[str, Any]:
    """The shape of a BERT, or of the part of a relative that is one, as BertConfig's fields."""
    return {field: getattr(config, field) for field in BERT_FIELDS if hasattr(config, field)}


def bert_config(config: PreTrainedConfig) -> BertConfig:
    """A BERT of the size of an encoder of any family, for layers beside it."""
    from transformers import BertConfig

    own = bert_shape(config)
    activation = getattr(config, "hidden_activation", "gelu")  # what ModernBERT calls it
    return BertConfig(**{"hidden_act": activation, "hidden_dropout_prob": 0.1, **own})


def published_config(source: str | Path) -> PreTrainedConfig:
    """The configuration of published weights; an OSError where there is none, see `from_hub`."""
    from transformers import AutoConfig

    config: PreTrainedConfig = AutoConfig.from_pretrained(source, trust_remote_code=False)
    return config


def load_published(
    network: type[PreTrainedModel], source: str | Path, expected: str, **fields: Any
) -> PreTrainedModel:
    """A network of transformers with published weights, in float32. `fields` are its arguments.
    Raises OSError: there is no such model, see `from_hub`. Raises InputError: it is of another type
    than the network's ``config_class``, its weights are not safetensors (pickled weights can run
    code and are never loaded), or some are missing; `expected` is what the message asks for."""
    _refuse_shards_outside(Path(source))
    config = published_config(source)
    # A configuration may ask for attention from a repository of compiled code.
    config._attn_implementation = None
    # A model of text and images holds the vision model as a separate configuration.
    config = getattr(config, network.config_class.base_config_key or "", config)
    if config.model_type != network.config_class.model_type:
        raise InputError(source, f"a model of type {config.model_type}", expected)
    model, loading = network.from_pretrained(
        source,
        config=config,
        use_safetensors=True,
        trust_remote_code=False,
        dtype=torch.float32,
        output_loading_info=True,
        **fields,
    )
    # Otherwise weights that the file lacks would silently be drawn at random.
    if missing := sorted(loading["missing_keys"]):
        raise InputError(source, f"no weights for {missing[0]} and so on", expected)
    return model


def shape_of(config: Any, unlisted: Collection[str] = ()) -> dict[str, Any]:
    """The fields of a transformers configuration that differ from its defaults and shape the
    network. `unlisted` fields are known to the configuration, though its defaults do not list
    them."""
    known = {*type(config)().to_dict(), *unlisted}
    apart = {"architectures", "dtype", "torch_dtype", "transformers_version", "model_type"}
    fields: dict[str, Any] = config.to_diff_dict()
    kept = (key for key in fields if key in known and key not in apart and key[0] != "_")
    named = config.model_type not in ("bert", "resnet")  # the defaults of a shape
    family = {"model_type": config.model_type} if named else {}
    return {**family, **{key: fields[key] for key in kept}}


MODEL_FILES = ["*.json", "*.safetensors", "*.txt", "*.codes", "README.md"]

# Fields by which a configuration names weights or code of elsewhere.
_ELSEWHERE = ("attn_implementation", "experts_implementation", "auto_map", "backbone")


def refuse_elsewhere(shape: Mapping[str, Any], where: str) -> None:
    """Raise an InputError for a shape that names something to be fetched, at any depth."""
    for name, value in shape.items():
        if isinstance(value, Mapping):
            refuse_elsewhere(value, where)
        elif value is not None and name.strip("_").removesuffix("_internal") in _ELSEWHERE:
            raise InputError(where, f"{name} {value!a:.60}", "a shape that names nothing elsewhere")


def _refuse_shards_outside(folder: Path) -> None:
    """Refuse a folder whose index leads to files outside; a hub's client does so by itself."""
    for index in folder.glob("*.index.json"):
        try:
            shards = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
            outside = [shard for shard in shards if not stays_below(shard)]
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise InputError(index, f"no index ({error!r:.80})", "names of shards") from error
        if outside:
            raise InputError(index, f"the shard {outside[0]!a:.60}", "files within the folder")


def from_hub(key: str, name: str, load: Callable[[], Built]) -> Built:
    """Load published weights without progress bars; what fails is an InputError of `key`."""
    try:
        with _quiet():
            return load()
    except InputError as error:
        where = f"{key}: {error.where}"
        raise InputError(where, error.found, error.expected, error.hint) from None
    except Exception as error:  # libraries raise anything of files and classes they do not know
        kind = "a folder without usable weights" if Path(name).is_dir() else "nothing to load"
        expected = "a folder with config.json and model.safetensors, or a hub id"
        hint = "without internet access give a folder"
        raise InputError(key, f"{name}: {kind} ({reason_of(error)})", expected, hint) from error


def checked(key: str, make: Callable[[], Built]) -> Built:
    """Make a network of a user's shape; what the library refuses is an InputError of `key`."""
    from huggingface_hub.errors import StrictDataclassError

    refused = (TypeError, ValueError, RuntimeError, ArithmeticError, LookupError)
    try:
        return make()
    except InputError:
        raise
    except (*refused, StrictDataclassError) as error:
        raise InputError(key, reason_of(error), "fields that make a network") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the bars, reports and retries of transformers and the hub."""
    from huggingface_hub.utils import logging as hub
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    hub_verbosity = hub.get_verbosity()
    logging.set_verbosity_error()
    hub.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        hub.set_verbosity(hub_verbosity)
        if bars:
            logging.enable_progress_bar()


def saved_folder(name: str | Path) -> Path | None:
    """The model folder of RUN or RUN/model; None for anything else, such as published weights."""
    places = (Path(name), Path(name) / "model")
    return next((folder for folder in places if (folder / "model.json").is_file()), None)


def model_folder(name: str | Path) -> Path:
    """The folder of a model: RUN, RUN/model, or that of a hub id, which is fetched.
    Raises InputError: there is no such folder, and no model of that hub id."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    folder = saved_folder(name) or Path(name)
    if folder.exists():
        return folder
    try:
        return Path(snapshot_download(str(name), allow_patterns=MODEL_FILES))
    except (OSError, HFValidationError) as error:
        found = f"no such folder, and no model of that hub id ({reason_of(error)})"
        raise InputError(name, found, "RUN or a hub id") from error
