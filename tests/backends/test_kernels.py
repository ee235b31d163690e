"""The backends against the systems they compute."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rpbert.backends import resolved, system_for
from rpbert.backends.kernels import Int8Encoder, KernelBlocks, onednn_available
from rpbert.config.run import Backend, Precision
from rpbert.errors import InputError
from rpbert.inference import Tagger
from rpbert.models.tagger import TaggerOutput
from rpbert.types import Post
from tests.conftest import EVIDENCE, RESNET, made_posts, tiny

WAYS: list[tuple[Backend, Precision, float]] = [("torch", "bf16", 0.05)]
if onednn_available():
    WAYS += [("kernels", "fp32", 1e-4), ("kernels", "bf16", 0.05), ("torch", "int8", 0.1)]
SYSTEMS: list[tuple[str, dict[str, Any]]] = [
    ("bilstm_crf", {}),
    ("lstm_cnn", {}),
    ("umt", {}),
    ("vilbert", {}),
    ("rpbert", {}),
    ("rpbert", {"evidence": EVIDENCE["global"]}),
    ("rpbert", {"evidence": EVIDENCE["captions"]}),
    ("rpbert", {"encoder": "deberta-v3"}),
]


def some_posts() -> list[Post]:
    """With an image, without, and with two, empty, and longer than the encoder."""
    posts = [*made_posts(), Post.from_words("empty", ())]
    posts[3] = posts[3].with_(images=(*posts[3].images, *posts[4].images))
    posts[2] = posts[2].with_(image=None)
    return [*posts, Post.from_words("long", ("a", "very", "long", "post") * 30)]


def answer(output: TaggerOutput, mask: Tensor) -> Any:
    """The emissions of the real words, or of a system that tags none the relation scores."""
    return output.relation_score if output.emissions is None else output.emissions[mask]


@pytest.mark.parametrize(("backend", "precision", "tolerance"), WAYS)
@pytest.mark.parametrize(("name", "options"), SYSTEMS)
def test_a_backend_computes_what_the_system_computes(
    name: str, options: dict[str, Any], backend: Backend, precision: Precision, tolerance: float
) -> None:
    model = tiny(name, **options)
    names, posts = list(model.system.state_dict()), some_posts()
    system = system_for(model.system, backend, precision, "cpu")
    with torch.inference_mode():
        batch = model.collator()(posts)
        mask, found = batch.word_mask, system(batch)
        plain = model.system(batch)
        singles = [model.collator()([post]) for post in posts]
        alone = torch.cat([answer(system(one), one.word_mask) for one in singles])
    assert answer(found, mask).dtype == torch.float32
    near: Any = {"atol": tolerance, "rtol": tolerance}
    torch.testing.assert_close(answer(found, mask), answer(plain, mask), **near)
    for name in ("relation_score", "source_scores"):
        if getattr(plain, name) is not None:
            torch.testing.assert_close(getattr(found, name), getattr(plain, name), **near)
    torch.testing.assert_close(alone, answer(found, mask), **near)
    assert list(model.system.state_dict()) == names


@pytest.mark.skipif(not onednn_available(), reason="this PyTorch has no oneDNN")
@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("act", ["relu", "gelu"])  # without rectifiers a network is left as it is
def test_the_heavy_parts_of_a_copy_are_rebuilt(precision: Precision, act: str) -> None:
    shape = {**RESNET, "hidden_act": act}
    model = tiny("rpbert", evidence={"blocks": {"shape": shape, "image_size": 32}})
    system = model.system.train()
    kinds = {type(part) for part in system_for(system, "kernels", precision, "cpu").modules()}
    assert (KernelBlocks in kinds) == (act == "relu")
    assert (Int8Encoder in kinds) == (precision == "int8")
    assert system.training
    assert not {type(part) for part in system.modules()} & {KernelBlocks, Int8Encoder}


def test_the_backend_and_precision_are_what_was_asked_for() -> None:
    model = tiny("rpbert")
    assert Tagger(model, "cpu").decoder.system is model.system  # torch in float32
    assert resolved("fp32", "cpu") == "fp32"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert resolved("auto", "cpu") == ("bf16" if native else "fp32")
    system = model.system
    with pytest.raises(InputError, match="fp16"):
        system_for(system, "torch", "fp16", "cpu")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="cuda"):
        system_for(system, "kernels", "fp32", "cuda")
