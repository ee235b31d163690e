"""Folders and files made to run code or to lead elsewhere, and a watch over what they achieve."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import ResNetConfig, ResNetModel

from rpbert.config.run import load_run
from rpbert.data.readers import open_data
from rpbert.models.saved import TaggingModel
from rpbert.storage.manifest import MANIFEST
from rpbert.training.checkpoint import Checkpoint, Checkpoints, Place
from tests.conftest import ENCODER, EVIDENCE, RESNET, tiny
from tests.families import published as family
from tests.storage.test_manifest import crafted, entry

TOKENIZER_CODE = {"auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
MODEL_CODE = {"auto_map": {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"}}
KERNEL = "stranger/kernel"
KERNELS = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal")
COMMANDS = ("pickle.find_class", "os.system", "subprocess.Popen", "os.exec", "os.posix_spawn")
WATCHES: dict[str, list[str]] = {}
"""By secret: what ran, was unpickled or opened the secret while its case was played."""


@cache
def watch() -> None:
    """Have Python report to WATCHES; for good, as it takes no hook away."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        for secret, seen in WATCHES.items():
            if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
                if os.path.realpath(os.fsdecode(arguments[0])) == secret:
                    seen.append(secret)
            elif event in COMMANDS:
                seen.append(f"{event} {arguments}")

    sys.addaudithook(hook)


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

    def torch_pickle(self, path: Path, *gone: Path) -> None:
        """The same as PyTorch writes it, in place of a file and others."""
        for file in (path, *gone):
            file.unlink(missing_ok=True)
        torch.save({"weights": _Bomb(self.canary)}, path)

    def code(self, folder: Path, config: str, **keys: Any) -> None:
        """A module that makes the canary, and keys of a JSON file that may name it."""
        folder.mkdir(exist_ok=True)
        (folder / "evil.py").write_text(f"open({str(self.canary)!r}, 'w')\nclass Evil: pass\n")
        changed(folder / config, **keys)


Case = Callable[[Scene], Any]
Change = Callable[[Scene, Path], Any]


def changed(path: Path, **keys: Any) -> None:
    """Set keys of a JSON file."""
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**content, **keys}))


def sealed(folder: Path) -> None:
    """Write a manifest that holds, for whatever is in a folder."""
    paths = [p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST]
    crafted(folder, {p.relative_to(folder).as_posix(): entry(p.read_bytes()) for p in paths})


def published(change: Change, at: Scene) -> None:
    """A published BERT is changed, and a system is built on it."""
    folder = shutil.copytree(family("bert"), at.folder / "bert")
    change(at, folder)
    tiny("bert", encoder={"pretrained": str(folder)})


def saved(change: Change, at: Scene, system: str = "bert", **evidence: Any) -> None:
    """A saved model is changed, sealed again and loaded."""
    folder = at.folder / "model"
    tiny(system, **evidence).save(folder)
    change(at, folder)
    sealed(folder)
    TaggingModel.load(folder)


def options(folder: Path, **given: Any) -> None:
    """Change the options of a saved model."""
    content = json.loads((folder / "model.json").read_text())
    changed(folder / "model.json", options={**content["options"], **given})


def vocabulary(at: Scene, folder: Path, **given: Any) -> None:
    """Change what a saved model remembers of its training posts."""
    content = json.loads((folder / "model.json").read_text())
    changed(folder / "model.json", vocabulary={**content["vocabulary"], **given})


def shape(at: Scene, folder: Path, field: str, size: int) -> None:
    """Change the shape of a saved encoder."""
    encoder = json.loads((folder / "model.json").read_text())["options"]["encoder"]
    options(folder, encoder={**encoder, "shape": {**encoder["shape"], field: size}})


def tokens_beyond(at: Scene, folder: Path, id: int) -> None:
    path = folder / "tokenizer" / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["vocab"]["zz"] = id
    path.write_text(json.dumps(content))


def tokenizer_class(at: Scene, folder: Path, name: str) -> None:
    (folder / "tokenizer" / "tokenizer.json").unlink()
    changed(folder / "tokenizer" / "tokenizer_config.json", tokenizer_class=name)


def pickled_shards(at: Scene, folder: Path) -> None:
    at.torch_pickle(folder / "a.bin", folder / "model.safetensors")
    weights = {"embeddings.word_embeddings.weight": "a.bin"}
    changed(folder / "pytorch_model.bin.index.json", weight_map=weights)


def shards_outside(at: Scene, folder: Path) -> None:
    weights = dict.fromkeys(load_file(folder / "model.safetensors"), "../../secret")
    (folder / "model.safetensors").replace(at.secret)
    changed(folder / "model.safetensors.index.json", metadata={"total_size": 1}, weight_map=weights)


def pickles_beside(at: Scene, folder: Path) -> None:
    at.torch_pickle(folder / "pytorch_model.bin")
    (folder / "adapter_model.bin").write_bytes(at.pickle())
    adapter = {"peft_type": "LORA", "base_model_name_or_path": str(at.secret)}
    at.code(folder, "adapter_config.json", **adapter)


def own_tokenizer(at: Scene, folder: Path) -> None:
    for file in folder.glob("tokenizer*.json"):
        file.unlink()
    config = {"tokenizer_class": "Evil", "trust_remote_code": True, **TOKENIZER_CODE}
    at.code(folder, "tokenizer_config.json", **config)


def backbone(at: Scene, folder: Path) -> None:
    settings = EVIDENCE["regions"]["regions"]
    fields = {"backbone": str(at.secret), "backbone_config": None, "use_pretrained_backbone": True}
    options(folder, evidence={"regions": {**settings, "shape": {**settings["shape"], **fields}}})


def network(at: Scene) -> None:
    folder = at.folder / "network"
    ResNetModel(ResNetConfig(**RESNET)).save_pretrained(folder)
    at.code(folder, "config.json", model_type="evil", **MODEL_CODE)
    tiny("rpbert", evidence={"blocks": {"pretrained": str(folder), "image_size": 32}})


def vectors(at: Scene) -> None:
    (at.folder / "words.vec.gz").write_bytes(gzip.compress(at.pickle()))
    tiny("bilstm_crf", tagger={"word_vectors": str(at.folder / "words.vec.gz")})


def checkpoint(at: Scene) -> None:
    kept, folder = Checkpoints(at.folder), at.folder / "epoch-0001"
    kept.save(Checkpoint(Place(1), {"system": {"a": torch.zeros(1)}}, {}), 2)
    at.torch_pickle(folder / "system.safetensors")
    sealed(folder)
    kept.newest(print)


def row(at: Scene, image: str | None) -> None:
    (at.folder / "train.jsonl").write_text(json.dumps({"id": "1", "text": "Ada", "image": image}))
    list(open_data(at.folder).read("train"))


def linked_image(at: Scene, name: str | None) -> None:
    """An image that a link leads to, or to its folder; by the name of a row, or found by its id."""
    link = at.folder / "images" if name else at.folder / "images" / "1.jpg"
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(at.secret.parent if name == "images/secret" else at.secret)
    if name:
        row(at, name)
    (at.folder / "train.txt").write_text("IMGID:1\nAda\tO\n")
    list(open_data(at.folder).read("train"))


def regions(at: Scene) -> None:
    at.torch_pickle(at.folder / "regions.safetensors")
    row(at, None)


def settings(at: Scene, override: bool) -> None:
    file, code = at.folder / "run.yaml", f"!!python/object/apply:os.system ['touch {at.canary}']"
    file.write_text("model: {system: bert}\ndata: {path: x}\n" if override else f"model: {code}\n")
    load_run(file, [f"model.gate={code}"] if override else [])


PUBLISHED: dict[str, Change] = {
    "pickled weights": lambda at, to: at.torch_pickle(
        to / "pytorch_model.bin", to / "model.safetensors"
    ),
    "a plain pickle named weights": lambda at, to: (to / "model.safetensors").write_bytes(
        at.pickle()
    ),
    "pickled weights in shards": pickled_shards,
    "shards outside the folder": shards_outside,
    "a model of its own code": lambda at, to: at.code(
        to, "config.json", model_type="evil", **MODEL_CODE
    ),
    "a tokenizer of its own code": own_tokenizer,
}
BESIDE: dict[str, Change] = {
    "pickles and an adapter beside": pickles_beside,
    "code beside a known model": lambda at, to: at.code(
        to, "config.json", trust_remote_code=True, **MODEL_CODE
    ),
    "code beside a known tokenizer": lambda at, to: at.code(
        to, "tokenizer_config.json", trust_remote_code=True, **TOKENIZER_CODE
    ),
    "attention by a kernel of a hub": lambda at, to: at.code(
        to, "config.json", **dict.fromkeys(KERNELS, KERNEL)
    ),
}
SAVED: dict[str, Change] = {
    "a saved pickle": lambda at, to: at.torch_pickle(to / "model.safetensors"),
    "a saved tokenizer of its own code": lambda at, to: own_tokenizer(at, to / "tokenizer"),
    "a saved encoder elsewhere": lambda at, to: options(to, encoder={"pretrained": str(at.secret)}),
    "saved word vectors elsewhere": lambda at, to: options(
        to, tagger={"word_vectors": str(at.secret)}
    ),
}
TAGS: dict[str, list[Any]] = {
    "tags that are no strings": ["O", 1, 2],
    "tags without O": ["B-PER", "I-PER"],
    "tags of half a scheme": ["O", "B-PER"],
    "the same tags twice": ["O", *["B-PER", "I-PER"] * 2],
    "no tags": [],
}
SIZES: dict[str, int] = {
    "hidden_size": 10**9,
    "num_hidden_layers": 10**9,
    "num_attention_heads": 0,
    "intermediate_size": 9_999_999,  # which no weights have
    "max_position_embeddings": 10**12,
    "vocab_size": 9_000_000,
}
CLASSES = ("BertModel", "Wav2Vec2CTCTokenizer", "BertJapaneseTokenizer", "AutoTokenizer", "x.Evil")
SAVED |= {name: partial(vocabulary, tags=tags) for name, tags in TAGS.items()}
SAVED |= {
    f"{field} of {size}": partial(shape, field=field, size=size) for field, size in SIZES.items()
}
SAVED |= {f"a tokenizer of {name}": partial(tokenizer_class, name=name) for name in CLASSES}
SAVED |= {
    "unknown marks": partial(vocabulary, marks="evil"),
    "words that are no strings": partial(vocabulary, words=[1]),
    "no notes": lambda at, to: changed(to / "model.json", notes=None),
    "a temperature of nothing": lambda at, to: changed(to / "model.json", calibration={"spans": 0}),
    "token ids beyond the table": partial(tokens_beyond, id=10**9),
    "a token id behind the table": partial(tokens_beyond, id=5000),
    "a list for a model": lambda at, to: (to / "model.json").write_text("[]"),
    "a deep model": lambda at, to: (to / "model.json").write_text("[" * 10**5),
}
REFUSED: dict[str, Case] = {
    **{name: partial(published, change) for name, change in PUBLISHED.items()},
    **{name: partial(saved, change) for name, change in SAVED.items()},
    "a detector with a backbone": partial(
        saved, backbone, system="vilbert", evidence=EVIDENCE["regions"]
    ),
    "an image network of its own code": network,
    "a shape that names a kernel": lambda at: tiny(
        "bert", encoder={"shape": {**ENCODER["shape"], "_attn_implementation": KERNEL}}
    ),
    "zipped word vectors": vectors,
    "a checkpoint that is a pickle": checkpoint,
    "an image that climbs": lambda at: row(at, "../secret"),
    "an image that climbs as Windows does": lambda at: row(at, "images\\..\\..\\secret"),
    "an absolute image": lambda at: row(at, str(at.secret)),
    "an image of the network": lambda at: row(at, "http://169.254.169.254/latest/meta-data"),
    "an image that is a link": partial(linked_image, name="images"),
    "an image in a folder that is a link": partial(linked_image, name="images/secret"),
    "an image of a folder that is a link": partial(linked_image, name=None),
    "settings with code": lambda at: settings(at, override=False),
    "an override with code": lambda at: settings(at, override=True),
    "regions that are a pickle": regions,
}
"""Cases that have to end in the one line of an `InputError`."""
HARMLESS: dict[str, Case] = {
    **{name: partial(published, change) for name, change in BESIDE.items()},
    "a tokenizer's file elsewhere": partial(
        saved,
        lambda at, to: changed(
            to / "tokenizer" / "tokenizer_config.json",
            **dict.fromkeys(("vocab_file", "tokenizer_file", "merges_file"), str(at.secret)),
        ),
    ),
}
"""Cases in which what is hostile is simply not read."""
