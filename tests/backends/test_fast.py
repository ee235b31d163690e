"""Fast systems against the plain ones they are made of."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rpbert.backends import resolved
from rpbert.backends.fast import fast
from rpbert.backends.fast_bert import FastEncoder
from rpbert.backends.fast_images import FastBlocks
from rpbert.backends.packed import OneDnn
from rpbert.config.run import Precision
from rpbert.errors import InputError
from rpbert.inference import Tagger
from rpbert.models.tagger import TaggerOutput
from rpbert.storage.model_folder import TaggingModel
from rpbert.types import Post
from tests.conftest import VARIANTS, made_posts, named, tiny

Variant = tuple[str, dict[str, Any]]
variants = pytest.mark.parametrize("variant", VARIANTS, ids=named)
TOLERANCE: dict[Precision, float] = {"fp32": 1e-4, "bf16": 0.05, "int8": 0.1}
if not OneDnn.available():
    del TOLERANCE["int8"]


def some_posts() -> list[Post]:
    """With and without an image, empty, and longer than the encoder."""
    posts = [*made_posts(), Post.from_words("empty", ())]
    posts[2] = posts[2].with_(image=None)
    return [*posts, Post.from_words("long", ("a", "very", "long", "post") * 30)]


def said(output: TaggerOutput, mask: Tensor) -> Tensor:
    """The emissions of the real words, or of a system that tags none the relation scores."""
    if output.emissions is not None:
        return output.emissions[mask]
    assert output.relation_score is not None
    return output.relation_score


def answers(model: TaggingModel, system: nn.Module, posts: list[Post]) -> Tensor:
    with torch.inference_mode():
        batch = model.collator()(posts)
        return said(system(batch), batch.word_mask)


@variants
@pytest.mark.parametrize("precision", TOLERANCE)
def test_a_fast_system_says_what_the_plain_one_says(variant: Variant, precision: Precision) -> None:
    model = tiny(variant[0], **variant[1])
    quick, posts = fast(model.system, precision, "cpu"), some_posts()
    with torch.inference_mode():
        batch = model.collator()(posts)
        expected, found = model.system(batch), quick(batch)
    tolerance, mask = TOLERANCE[precision], batch.word_mask
    assert said(found, mask).dtype == torch.float32
    torch.testing.assert_close(
        said(found, mask), said(expected, mask), atol=tolerance, rtol=tolerance
    )
    if expected.relation_score is not None and variant[1].get("gate") != "straight_through":
        torch.testing.assert_close(
            found.relation_score, expected.relation_score, atol=tolerance, rtol=tolerance
        )


@variants
def test_in_float32_a_fast_prediction_does_not_depend_on_its_batch(variant: Variant) -> None:
    model = tiny(variant[0], **variant[1])
    quick, posts = fast(model.system, "fp32", "cpu"), some_posts()
    alone = torch.cat([answers(model, quick, [post]) for post in posts])
    torch.testing.assert_close(answers(model, quick, posts), alone, atol=1e-5, rtol=1e-5)


@variants
def test_making_a_system_fast_leaves_the_plain_one_as_it_was(variant: Variant) -> None:
    model = tiny(variant[0], **variant[1])
    posts = some_posts()
    names = list(model.system.state_dict())
    before = answers(model, model.system, posts)
    quick = fast(model.system.train(), "fp32", "cpu")
    assert model.system.training
    assert not any(module.training for module in quick.modules())
    assert list(model.system.state_dict()) == names
    assert torch.equal(answers(model, model.system.eval(), posts), before)
    kinds = {type(module) for module in model.system.modules()}
    assert not kinds & {FastEncoder, FastBlocks}


def test_the_heavy_parts_are_rebuilt() -> None:
    kinds = [type(module) for module in fast(tiny("rpbert").system, "fp32", "cpu").modules()]
    assert FastEncoder in kinds
    assert FastBlocks in kinds


def test_auto_is_what_the_processor_multiplies() -> None:
    assert resolved("fp32", "cpu") == "fp32"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert resolved("auto", "cpu") == ("bf16" if native else "fp32")


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(InputError, match="fp16"):
        Tagger(tiny("bert"), "cpu", "fp16")  # type: ignore[arg-type]
