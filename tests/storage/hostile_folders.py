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
from functools import cache, partial
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
from tests.conftest import ENCODER, EVIDENCE, RESNET, made_posts, tiny

EVIL = "import pathlib; pathlib.Path({!r}).touch()\nclass Evil: pass\n"
ENTRY = {"bytes": 6, "sha256": hashlib.sha256(b"secret").hexdigest()}
TOKENIZER_CODE = {"auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
MODEL_CODE = {"auto_map": {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"}}
KERNEL = "stranger/kernel"


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


@cache
def _install() -> None:
    sys.addaudithook(_hook)  # for good: Python takes none away


@contextmanager
def watched() -> Iterator[Watch]:
    """Watch all that Python does meanwhile."""
    _install()
    watch = Watch()
    _WATCHES.append(watch)
    try:
        yield watch
    finally:
        _WATCHES.remove(watch)


@dataclass(frozen=True)
class _Bomb:
    """Touches a file when it is unpickled."""

    canary: Path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.canary}",)


@dataclass(frozen=True)
class Scene:
    """The folder of a case, a canary that code would make, and a secret that nothing may open."""

    folder: Path
    canary: Path
    secret: Path

    def pickle(self) -> bytes:
        """A pickle that makes the canary."""
        return pickle.dumps(_Bomb(self.canary))

    def torch_pickle(self, path: Path) -> None:
        """The same as PyTorch writes it, in place of a file."""
        path.unlink(missing_ok=True)
        torch.save({"weights": _Bomb(self.canary)}, path)

    def code(self, folder: Path, config: str, **keys: Any) -> None:
        """A module that makes the canary, and keys of a JSON file that may name it."""
        folder.mkdir(exist_ok=True)
        (folder / "evil.py").write_text(EVIL.format(str(self.canary)))
        path = folder / config
        content = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**content, **keys}))


Case = Callable[[Scene], Any]
REFUSED: dict[str, Case] = {}
"""Cases that have to end in the one line of an `InputError`."""
HARMLESS: dict[str, Case] = {}
"""Cases in which what is hostile is simply not read."""
Change = Callable[[Scene, Path], Any]


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


def bert(at: Scene) -> Path:
    """A published BERT."""
    folder = at.folder / "bert"
    tokenizer = learn_wordpieces((post.words for post in made_posts()), 200)
    config = BertConfig(vocab_size=len(tokenizer), **ENCODER["shape"])
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def published(name: str, cases: dict[str, Case]) -> Callable[[Change], None]:
    """A case: a published BERT that is changed, and that a system is built on."""

    def play(change: Change, at: Scene) -> None:
        folder = bert(at)
        change(at, folder)
        tiny("bert", encoder={"pretrained": str(folder)})

    return lambda change: cases.update({name: partial(play, change)})


def saved(
    name: str, cases: dict[str, Case], system: str = "bert", **evidence: Any
) -> Callable[[Change], None]:
    """A case: a saved model that is changed, sealed again unless it returns True, and loaded."""

    def play(change: Change, at: Scene) -> None:
        folder = at.folder / "model"
        tiny(system, **evidence).save(folder)
        if not change(at, folder):
            sealed(folder)
        TaggingModel.load(folder)

    return lambda change: cases.update({name: partial(play, change)})


def options(folder: Path, **given: Any) -> None:
    """Change the options of a saved model."""
    path = folder / "model.json"
    content = json.loads(path.read_text())
    content["options"] = {**content["options"], **given}
    path.write_text(json.dumps(content))


def shards(folder: Path, file: str, weights: dict[str, str]) -> None:
    index = {"metadata": {"total_size": 1}, "weight_map": weights}
    (folder / f"{file}.index.json").write_text(json.dumps(index))


@published("pickled weights of an encoder", REFUSED)
def _(at: Scene, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    at.torch_pickle(folder / "pytorch_model.bin")


@published("a plain pickle named weights", REFUSED)
def _(at: Scene, folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(at.pickle())


@published("pickled weights in shards", REFUSED)
def _(at: Scene, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    at.torch_pickle(folder / "a.bin")
    shards(folder, "pytorch_model.bin", {"embeddings.word_embeddings.weight": "a.bin"})


@published("shards outside the folder", REFUSED)
def _(at: Scene, folder: Path) -> None:
    weights = dict.fromkeys(load_file(folder / "model.safetensors"), "../../secret")
    (folder / "model.safetensors").replace(at.secret)
    shards(folder, "model.safetensors", weights)


@published("a pickle beside safetensors", HARMLESS)
def _(at: Scene, folder: Path) -> None:
    at.torch_pickle(folder / "pytorch_model.bin")
    (folder / "vocab.pkl").write_bytes(at.pickle())
    (folder / "optimizer.pt").write_bytes(at.pickle())


@published("a model of its own code", REFUSED)
def _(at: Scene, folder: Path) -> None:
    at.code(folder, "config.json", model_type="evil", **MODEL_CODE)


@published("a known model with code beside", HARMLESS)
def _(at: Scene, folder: Path) -> None:
    at.code(folder, "config.json", trust_remote_code=True, **MODEL_CODE)


def _own_tokenizer(at: Scene, folder: Path) -> None:
    for file in folder.glob("tokenizer*.json"):
        file.unlink()
    config = {"tokenizer_class": "Evil", "trust_remote_code": True, **TOKENIZER_CODE}
    at.code(folder, "tokenizer_config.json", **config)


@published("a known tokenizer with code beside", HARMLESS)
def _(at: Scene, folder: Path) -> None:
    at.code(folder, "tokenizer_config.json", trust_remote_code=True, **TOKENIZER_CODE)


@published("an adapter from elsewhere", HARMLESS)
def _(at: Scene, folder: Path) -> None:
    adapter = {"peft_type": "LORA", "base_model_name_or_path": str(at.secret)}
    at.code(folder, "adapter_config.json", **adapter)
    (folder / "adapter_model.bin").write_bytes(at.pickle())


@published("attention by a kernel of a hub", HARMLESS)
def _(at: Scene, folder: Path) -> None:
    names = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal")
    at.code(folder, "config.json", **dict.fromkeys(names, KERNEL))


@saved("a saved model whose weights are a pickle", REFUSED)
def _(at: Scene, folder: Path) -> None:
    at.torch_pickle(folder / "model.safetensors")


ELSEWHERE: dict[str, Callable[[Scene], dict[str, Any]]] = {
    "encoder is": lambda at: {"encoder": {"pretrained": str(bert(at))}},
    "word vectors are": lambda at: {"tagger": {"word_vectors": str(at.secret)}},
    "image network is": lambda at: {
        "evidence": {"blocks": {"pretrained": str(at.secret), "image_size": 32}}
    },
}


def _elsewhere(given: Callable[[Scene], dict[str, Any]], at: Scene, folder: Path) -> None:
    options(folder, **given(at))


for name, given in ELSEWHERE.items():
    change = partial(_elsewhere, given)
    saved(f"a saved model whose {name} elsewhere", REFUSED, "rpbert")(change)


def _detector(folder: Path, **fields: Any) -> None:
    settings = EVIDENCE["regions"]["regions"]
    shape = {**settings["shape"], **fields}
    options(folder, evidence={"regions": {**settings, "shape": shape}})


def _backbone(at: Scene, folder: Path) -> None:
    _detector(folder, backbone=str(at.secret), backbone_config=None, use_pretrained_backbone=True)


published("a tokenizer of its own code", REFUSED)(_own_tokenizer)
saved("a saved tokenizer of its own code", REFUSED)(
    lambda at, folder: _own_tokenizer(at, folder / "tokenizer")
)
saved("a detector with a kernel", REFUSED, "vilbert", evidence=EVIDENCE["regions"])(
    lambda at, folder: _detector(folder, attn_implementation=KERNEL)
)
saved("a detector with a backbone", REFUSED, "vilbert", evidence=EVIDENCE["regions"])(_backbone)


def _manifest(entry: str, at: Scene, folder: Path) -> bool:
    sealed(folder, **{entry.format(at.secret): ENTRY})
    return True


saved("a manifest that climbs", REFUSED)(partial(_manifest, "../../secret"))
saved("a manifest with an absolute name", REFUSED)(partial(_manifest, "{}"))


@saved("a saved tokenizer with code beside", HARMLESS)
def _(at: Scene, folder: Path) -> None:
    at.code(folder / "tokenizer", "tokenizer_config.json", **TOKENIZER_CODE)


@saved("a pickle put into the tokenizer of a saved model", REFUSED)
def _(at: Scene, folder: Path) -> bool:
    (folder / "tokenizer" / "vocab.pkl").write_bytes(at.pickle())
    return True


@saved("a link in a saved model", REFUSED)
def _(at: Scene, folder: Path) -> bool:
    (folder / "model.safetensors").replace(at.secret)
    (folder / "model.safetensors").symlink_to("../../secret")
    return True


def _network(at: Scene, system: str, kind: str, shape: bool) -> None:
    """An image network or detector of its own code."""
    folder = at.folder / "network"
    if shape:
        ResNetModel(ResNetConfig(**RESNET)).save_pretrained(folder)
    at.code(folder, "config.json", model_type="evil", **MODEL_CODE)
    tiny(system, evidence={kind: {"pretrained": str(folder), "image_size": 32}})


def _vectors(at: Scene, name: str, content: bytes) -> None:
    (at.folder / name).write_bytes(content)
    tiny("bilstm_crf", tagger={"word_vectors": str(at.folder / name)})


def _checkpoint(at: Scene, climb: bool) -> None:
    kept, folder = Checkpoints(at.folder), at.folder / "epoch-0001"
    kept.save(Checkpoint(Place(1), {"system": {"a": torch.zeros(1)}}, {}), 2)
    if not climb:
        at.torch_pickle(folder / "system.safetensors")
    sealed(folder, **({"../../secret": ENTRY} if climb else {}))
    kept.newest(print)


def _read(at: Scene, name: str, content: str, regions: bool = False) -> None:
    (at.folder / "images").mkdir()
    (at.folder / name).write_text(content)
    if regions:
        at.torch_pickle(at.folder / "regions.safetensors")
    list(open_data(at.folder).read("train"))


def _row(at: Scene, image: str | None, regions: bool = False) -> None:
    _read(at, "train.jsonl", json.dumps({"id": "1", "text": "Ada", "image": image}), regions)


def _settings(at: Scene, override: bool) -> None:
    file, code = at.folder / "run.yaml", f"!!python/object/apply:os.system ['touch {at.canary}']"
    file.write_text("model: {system: bert}\ndata: {path: x}\n" if override else f"model: {code}\n")
    load_run(file, [f"model.gate={code}"] if override else [])


def _shape(at: Scene, **fields: Any) -> None:
    tiny("bert", encoder={"shape": {**ENCODER["shape"], **fields}})


REFUSED |= {
    "an image network of its own code": lambda at: _network(at, "rpbert", "blocks", True),
    "a detector of its own code": lambda at: _network(at, "vilbert", "regions", False),
    "a shape that names code": lambda at: _shape(at, auto_map={"AutoModel": "evil.Evil"}),
    "a shape that names a kernel": lambda at: _shape(at, _attn_implementation=KERNEL),
    "word vectors that are a pickle": lambda at: _vectors(at, "words.vec", at.pickle()),
    "zipped word vectors that are a pickle": lambda at: _vectors(
        at, "words.vec.gz", gzip.compress(at.pickle())
    ),
    "a checkpoint that is a pickle": lambda at: _checkpoint(at, climb=False),
    "a checkpoint whose manifest climbs": lambda at: _checkpoint(at, climb=True),
    "an image id that climbs": lambda at: _read(at, "train.txt", "IMGID:../../secret\nAda\tO\n\n"),
    "an image that climbs": lambda at: _row(at, "../secret"),
    "an image that climbs as Windows does": lambda at: _row(at, "images\\..\\..\\secret"),
    "an absolute image": lambda at: _row(at, str(at.secret)),
    "an image of the network": lambda at: _row(at, "http://169.254.169.254/latest/meta-data"),
    "settings with code": lambda at: _settings(at, override=False),
    "an override with code": lambda at: _settings(at, override=True),
    "regions that are a pickle": lambda at: _row(at, None, regions=True),
}
