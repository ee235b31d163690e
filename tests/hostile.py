"""Folders and files made to run code or to lead elsewhere, and a watch over what they achieve."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertModel, ResNetConfig, ResNetModel

from rpbert.config.run import load_run
from rpbert.data.readers import open_data
from rpbert.data.vocabulary import learn_wordpieces
from rpbert.models.saved import TaggingModel
from rpbert.storage.manifest import MANIFEST
from rpbert.training.checkpoint import Checkpoint, Checkpoints, Place
from tests.conftest import EVIDENCE, RESNET, made_posts, tiny

SHAPE = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
}
EVIL = "import pathlib; pathlib.Path({!r}).touch()\nclass Evil: pass\n"


@dataclass
class Watch:
    """What happened while it watched: files opened, names that pickles asked for, commands."""

    opened: list[str] = field(default_factory=list)
    unpickled: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)


_WATCHES: list[Watch] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    for watch in _WATCHES:
        if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            watch.opened.append(os.path.realpath(os.fsdecode(arguments[0])))
        elif event == "pickle.find_class":
            watch.unpickled.append(".".join(map(str, arguments)))
        elif event in ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn"):
            watch.commands.append(str(arguments))


@contextmanager
def watched() -> Iterator[Watch]:
    """Watch all that Python does meanwhile."""
    if _hook not in _INSTALLED:
        sys.addaudithook(_hook)  # for good: Python takes none away
        _INSTALLED.append(_hook)
    watch = Watch()
    _WATCHES.append(watch)
    try:
        yield watch
    finally:
        _WATCHES.remove(watch)


_INSTALLED: list[Any] = []


class _Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.canary}",)


@dataclass(frozen=True)
class Scene:
    """Where a case plays.

    Attributes:
        folder: its own.
        canary: a file that code would make if it ran.
        secret: a file outside all that is given, which nothing may open.
    """

    folder: Path
    canary: Path
    secret: Path

    def pickle(self) -> bytes:
        """A pickle that makes the canary."""
        return pickle.dumps(_Bomb(self.canary))

    def torch_pickle(self, path: Path) -> None:
        """The same as PyTorch writes it."""
        torch.save({"weights": _Bomb(self.canary)}, path)

    def code(self, path: Path) -> None:
        """A module that makes the canary."""
        path.write_text(EVIL.format(str(self.canary)))


def sealed(folder: Path, **entries: dict[str, Any]) -> None:
    """Write a manifest that holds, for whatever is in a folder, and `entries` beside."""
    files = {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in folder.rglob("*")
        if path.is_file() and path.name != MANIFEST
    }
    listed = json.dumps({**files, **entries}, indent=1, sort_keys=True)
    digest = hashlib.sha256(listed.encode()).hexdigest()
    (folder / MANIFEST).write_text(f'{{"files": {listed},\n"sha256": "{digest}"}}\n')


def changed(path: Path, **keys: Any) -> None:
    """Change keys of a JSON file."""
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**content, **keys}))


def bert(at: Scene) -> Path:
    """A published BERT."""
    folder = at.folder / "bert"
    tokenizer = learn_wordpieces((post.words for post in made_posts()), 200)
    BertModel(BertConfig(vocab_size=len(tokenizer), **SHAPE)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def train_on(folder: Path) -> None:
    tiny("bert", encoder={"pretrained": str(folder)})


def saved(at: Scene) -> Path:
    """A saved model."""
    folder = at.folder / "model"
    tiny("bert").save(folder)
    return folder


def load(folder: Path) -> None:
    TaggingModel.load(folder)


def options(folder: Path, **given: Any) -> None:
    """Change the options of a saved model, and seal it again."""
    path = folder / "model.json"
    content = json.loads(path.read_text())
    content["options"] = {**content["options"], **given}
    path.write_text(json.dumps(content))
    sealed(folder)


Case = Callable[[Scene], None]
REFUSED: dict[str, Case] = {}
"""Cases that have to end in the one line of an `InputError`."""
HARMLESS: dict[str, Case] = {}
"""Cases in which what is hostile is simply not read."""


def refused(case: Case) -> Case:
    REFUSED[case.__name__.replace("_", " ")] = case
    return case


def harmless(case: Case) -> Case:
    HARMLESS[case.__name__.replace("_", " ")] = case
    return case


@refused
def pickled_weights_of_an_encoder(at: Scene) -> None:
    folder = bert(at)
    (folder / "model.safetensors").unlink()
    at.torch_pickle(folder / "pytorch_model.bin")
    train_on(folder)


@refused
def a_plain_pickle_named_weights(at: Scene) -> None:
    folder = bert(at)
    (folder / "model.safetensors").write_bytes(at.pickle())
    train_on(folder)


@refused
def pickled_weights_in_shards(at: Scene) -> None:
    folder = bert(at)
    (folder / "model.safetensors").unlink()
    at.torch_pickle(folder / "a.bin")
    index = {"metadata": {}, "weight_map": {"embeddings.word_embeddings.weight": "a.bin"}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    train_on(folder)


@harmless
def a_pickle_beside_safetensors(at: Scene) -> None:
    folder = bert(at)
    at.torch_pickle(folder / "pytorch_model.bin")
    (folder / "vocab.pkl").write_bytes(at.pickle())
    (folder / "optimizer.pt").write_bytes(at.pickle())
    train_on(folder)


@refused
def shards_outside_the_folder(at: Scene) -> None:
    folder = bert(at)
    names = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").replace(at.secret)
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(names, "../../secret")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    train_on(folder)


@refused
def a_model_of_its_own_code(at: Scene) -> None:
    folder = bert(at)
    at.code(folder / "evil.py")
    mapped = {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"}
    changed(folder / "config.json", model_type="evil", auto_map=mapped)
    train_on(folder)


@harmless
def a_known_model_with_code_beside(at: Scene) -> None:
    folder = bert(at)
    at.code(folder / "evil.py")
    mapped = {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"}
    changed(folder / "config.json", auto_map=mapped, trust_remote_code=True)
    train_on(folder)


@refused
def a_tokenizer_of_its_own_code(at: Scene) -> None:
    folder = bert(at)
    at.code(folder / "evil.py")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    mapped = {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}
    config = {"tokenizer_class": "Evil", "auto_map": mapped, "trust_remote_code": True}
    changed(folder / "tokenizer_config.json", **config)
    train_on(folder)


@harmless
def a_known_tokenizer_with_code_beside(at: Scene) -> None:
    folder = bert(at)
    at.code(folder / "evil.py")
    mapped = {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}
    changed(folder / "tokenizer_config.json", auto_map=mapped, trust_remote_code=True)
    train_on(folder)


@harmless
def an_adapter_from_elsewhere(at: Scene) -> None:
    folder = bert(at)
    adapter = {"peft_type": "LORA", "base_model_name_or_path": str(at.secret)}
    changed(folder / "adapter_config.json", **adapter)
    (folder / "adapter_model.bin").write_bytes(at.pickle())
    train_on(folder)


@harmless
def attention_by_a_kernel_of_a_hub(at: Scene) -> None:
    folder = bert(at)
    changed(
        folder / "config.json",
        attn_implementation="stranger/kernel",
        _attn_implementation="stranger/kernel",
        _attn_implementation_internal="stranger/kernel",
    )
    train_on(folder)


@refused
def an_image_network_of_its_own_code(at: Scene) -> None:
    folder = at.folder / "resnet"
    ResNetModel(ResNetConfig(**RESNET)).save_pretrained(folder)
    at.code(folder / "evil.py")
    changed(folder / "config.json", model_type="evil", auto_map={"AutoConfig": "evil.Evil"})
    tiny("rpbert", evidence={"blocks": {"pretrained": str(folder), "image_size": 32}})


@refused
def a_detector_of_its_own_code(at: Scene) -> None:
    folder = at.folder / "detector"
    folder.mkdir()
    at.code(folder / "evil.py")
    changed(folder / "config.json", model_type="evil", auto_map={"AutoConfig": "evil.Evil"})
    tiny("vilbert", evidence={"regions": {"pretrained": str(folder), "image_size": 32}})


@refused
def a_shape_that_names_code(at: Scene) -> None:
    tiny("bert", encoder={"shape": {**SHAPE, "auto_map": {"AutoModel": "evil.Evil"}}})


@refused
def a_shape_that_names_a_kernel(at: Scene) -> None:
    tiny("bert", encoder={"shape": {**SHAPE, "_attn_implementation": "stranger/kernel"}})


@refused
def word_vectors_that_are_a_pickle(at: Scene) -> None:
    (at.folder / "words.vec").write_bytes(at.pickle())
    tiny("bilstm_crf", tagger={"word_vectors": str(at.folder / "words.vec")})


@refused
def zipped_word_vectors_that_are_a_pickle(at: Scene) -> None:
    (at.folder / "words.vec.gz").write_bytes(gzip.compress(at.pickle()))
    tiny("bilstm_crf", tagger={"word_vectors": str(at.folder / "words.vec.gz")})


@refused
def a_saved_model_whose_weights_are_a_pickle(at: Scene) -> None:
    folder = saved(at)
    at.torch_pickle(folder / "model.safetensors")
    sealed(folder)
    load(folder)


@refused
def a_saved_model_whose_encoder_is_elsewhere(at: Scene) -> None:
    folder = saved(at)
    options(folder, encoder={"pretrained": str(bert(at))})
    load(folder)


@refused
def a_saved_model_whose_word_vectors_are_elsewhere(at: Scene) -> None:
    folder = saved(at)
    options(folder, tagger={"word_vectors": str(at.secret)})
    load(folder)


@refused
def a_saved_model_whose_image_network_is_elsewhere(at: Scene) -> None:
    folder = at.folder / "model"
    tiny("rpbert").save(folder)
    options(folder, evidence={"blocks": {"pretrained": str(at.secret), "image_size": 32}})
    load(folder)


def _detector(at: Scene, **fields: Any) -> None:
    folder = at.folder / "model"
    tiny("vilbert", evidence=EVIDENCE["regions"]).save(folder)
    shape = {**EVIDENCE["regions"]["regions"]["shape"], **fields}
    options(folder, evidence={"regions": {"shape": shape, "image_size": 32, "most": 3}})
    load(folder)


@refused
def a_saved_model_whose_detector_has_a_kernel_of_a_hub(at: Scene) -> None:
    _detector(at, attn_implementation="stranger/kernel")


@refused
def a_saved_model_whose_detector_has_a_backbone_elsewhere(at: Scene) -> None:
    _detector(at, backbone=str(at.secret), backbone_config=None, use_pretrained_backbone=True)


@harmless
def a_saved_tokenizer_with_code_beside(at: Scene) -> None:
    folder = saved(at)
    at.code(folder / "tokenizer" / "evil.py")
    mapped = {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}
    changed(folder / "tokenizer" / "tokenizer_config.json", auto_map=mapped)
    sealed(folder)
    load(folder)


@refused
def a_saved_tokenizer_of_its_own_code(at: Scene) -> None:
    folder = saved(at)
    at.code(folder / "tokenizer" / "evil.py")
    (folder / "tokenizer" / "tokenizer.json").unlink()
    config = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(config))
    sealed(folder)
    load(folder)


@refused
def a_pickle_put_into_the_tokenizer_of_a_saved_model(at: Scene) -> None:
    folder = saved(at)
    (folder / "tokenizer" / "vocab.pkl").write_bytes(at.pickle())
    load(folder)


@refused
def a_manifest_that_climbs(at: Scene) -> None:
    folder = saved(at)
    entry = {"bytes": 6, "sha256": hashlib.sha256(b"secret").hexdigest()}
    sealed(folder, **{"../../secret": entry})
    load(folder)


@refused
def a_manifest_with_an_absolute_name(at: Scene) -> None:
    folder = saved(at)
    entry = {"bytes": 6, "sha256": hashlib.sha256(b"secret").hexdigest()}
    sealed(folder, **{str(at.secret): entry})
    load(folder)


@refused
def a_link_in_a_saved_model(at: Scene) -> None:
    folder = saved(at)
    (folder / "model.safetensors").replace(at.secret)
    (folder / "model.safetensors").symlink_to("../../secret")
    load(folder)


@refused
def a_checkpoint_that_is_a_pickle(at: Scene) -> None:
    kept = Checkpoints(at.folder)
    kept.save(Checkpoint(Place(1), {"system": {"a": torch.zeros(1)}}, {}), 2)
    at.torch_pickle(at.folder / "epoch-0001" / "system.safetensors")
    sealed(at.folder / "epoch-0001")
    kept.newest(print)


@refused
def a_checkpoint_whose_manifest_climbs(at: Scene) -> None:
    kept = Checkpoints(at.folder)
    kept.save(Checkpoint(Place(1), {"system": {"a": torch.zeros(1)}}, {}), 2)
    entry = {"bytes": 6, "sha256": hashlib.sha256(b"secret").hexdigest()}
    sealed(at.folder / "epoch-0001", **{"../../secret": entry})
    kept.newest(print)


def read(path: Path) -> None:
    list(open_data(path).read("train"))


@refused
def an_image_id_that_climbs(at: Scene) -> None:
    (at.folder / "images").mkdir()
    (at.folder / "train.txt").write_text("IMGID:../../secret\nAda\tB-PER\n\n")
    read(at.folder)


def _row(at: Scene, image: str) -> None:
    file = at.folder / "train.jsonl"
    file.write_text(json.dumps({"id": "1", "text": "Ada", "image": image}) + "\n")
    read(file)


@refused
def an_image_that_climbs(at: Scene) -> None:
    _row(at, "../secret")


@refused
def an_image_that_climbs_as_windows_does(at: Scene) -> None:
    _row(at, "images\\..\\..\\secret")


@refused
def an_absolute_image(at: Scene) -> None:
    _row(at, str(at.secret))


@refused
def an_image_of_the_network(at: Scene) -> None:
    _row(at, "http://169.254.169.254/latest/meta-data")


@refused
def settings_with_code(at: Scene) -> None:
    file = at.folder / "run.yaml"
    file.write_text(f"model: !!python/object/apply:os.system ['touch {at.canary}']\n")
    load_run(file)


@refused
def an_override_with_code(at: Scene) -> None:
    file = at.folder / "run.yaml"
    file.write_text("model: {system: bilstm_crf}\ndata: {path: x}\n")
    load_run(file, [f"model.gate=!!python/object/apply:os.system ['touch {at.canary}']"])


@refused
def regions_that_are_a_pickle(at: Scene) -> None:
    at.torch_pickle(at.folder / "regions.safetensors")
    (at.folder / "train.jsonl").write_text(json.dumps({"id": "1", "text": "Ada"}) + "\n")
    read(at.folder)
