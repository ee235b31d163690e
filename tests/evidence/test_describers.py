"""Captioners against transformers' own generation, and what they are asked for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from PIL import Image, ImageDraw, ImageFont
from tokenizers import Tokenizer, models, pre_tokenizers

from rpbert.errors import InputError
from rpbert.evidence.base import EvidenceReader
from rpbert.evidence.texts import (
    Captioner,
    CaptionSettings,
    Remembered,
    TextFinder,
    TextReader,
)
from rpbert.inference import Tagger
from rpbert.types import Post, PostImage
from tests.conftest import EVIDENCE, SEEING, made_posts, picture, tiny

WORDS = ["[PAD]", "[BOS]", "[EOS]", "[UNK]", *(f"w{i}" for i in range(40))]
TEXT = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
    "vocab_size": len(WORDS), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "sep_token_id": 2,
}  # fmt: skip


def blip() -> Any:
    config = transformers.BlipConfig(
        text_config={**TEXT, "encoder_hidden_size": 16}, vision_config=SEEING, projection_dim=8
    )
    return transformers.BlipForConditionalGeneration(config)


def git() -> Any:
    return transformers.GitForCausalLM(transformers.GitConfig(vision_config=SEEING, **TEXT))


def saved(network: Any, folder: Path) -> Path:
    network.save_pretrained(folder)
    plain = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="[PAD]", bos_token="[BOS]", eos_token="[EOS]"
    ).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text('{"size": {"height": 32, "width": 32}}')
    return folder


@pytest.mark.parametrize("make", [blip, git])
def test_a_caption_is_what_the_network_generates(make: Any, tmp_path: Path) -> None:
    network = make().eval()
    captioner = Captioner.from_pretrained(saved(network, tmp_path))
    images = [picture(i) for i in range(3)]
    found = captioner([*images, b"no image", None])
    assert found[3:] == ["", ""]
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])
    for image, caption in zip(images, found, strict=False):
        small = torch.tensor(list(image.resize((32, 32), Image.Resampling.BICUBIC).getdata()))
        pixels = ((small / 255 - mean) / std).view(32, 32, 3).permute(2, 0, 1)
        (ids,) = network.generate(
            pixel_values=pixels[None], max_new_tokens=40, do_sample=False, num_beams=1
        ).tolist()
        assert caption == " ".join(WORDS[i] for i in ids if i > 2)
    assert any(found)


def test_what_is_no_captioner_is_refused(tmp_path: Path) -> None:
    transformers.ViTConfig().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="model_type vit; expected one of blip, git"):
        Captioner.from_pretrained(tmp_path)


def test_an_image_is_described_once_and_only_where_no_caption_is_given() -> None:
    asked: list[Any] = []

    def describe(images: Sequence[Any]) -> list[str]:
        asked.extend(images)
        return ["" if image == b"" else f"a picture {len(str(image))}" for image in images]

    captions = TextReader(
        lambda text: [len(text)], CaptionSettings(), describe=Remembered(describe)
    )
    reader = EvidenceReader([captions])
    posts = [
        Post.from_words("1", ("x",), image=b"one", caption="given"),
        Post.from_words("2", ("x",), images=(PostImage(b"two"), PostImage(b"three"))),
        Post.from_words("3", ("x",), image=b"two"),
        Post.from_words("4", ("x",), image=b""),
        Post.from_words("5", ("x",)),
    ]
    assert [reader.has(post) for post in posts] == [True, True, True, True, False]
    for _ in range(2):
        _, status = reader.read(posts)
        assert status == ("used", "used", "used", "none", "none")
        assert asked == [b"two", b"three", b""]
    alone = reader.split_by_source(posts[1])
    assert [p.caption for p in alone] == [f"a picture {len(str(i))}" for i in (b"two", b"three")]
    assert [p.image for p in alone] == [b"two", b"three"]


def test_a_tagger_makes_captions_for_a_model_that_reads_them(tmp_path: Path) -> None:
    folder = saved(blip(), tmp_path / "blip")
    model = tiny("rpbert", evidence=EVIDENCE["captions"])
    model.save(tmp_path / "model")
    image = picture(1)
    tagger = Tagger.from_pretrained(tmp_path / "model", "cpu", captioner=str(folder))
    made = tagger.predict("RT Ada", image=image)
    caption = Captioner.from_pretrained(folder)([image])[0]
    assert caption
    plain = Tagger.from_pretrained(tmp_path / "model", "cpu")
    assert made == plain.predict("RT Ada", caption=caption)
    assert plain.predict("RT Ada", image=image).image == "none"
    tiny("rpbert").save(tmp_path / "blocks")
    with pytest.raises(InputError, match="captioner: found a model that reads blocks"):
        Tagger.from_pretrained(tmp_path / "blocks", "cpu", captioner=str(folder))
    with pytest.raises(InputError, match=r"captioner: .*nothing to load"):
        Tagger.from_pretrained(tmp_path / "model", "cpu", captioner=str(tmp_path / "gone"))


def test_text_in_an_image_is_found() -> None:
    pytest.importorskip("rapidocr", reason="the extra ocr is not installed")
    sign = Image.new("RGB", (420, 120), "white")
    ImageDraw.Draw(sign).text((20, 30), "LAKE COMO", "black", ImageFont.load_default(56))
    found = TextFinder()([sign, Image.new("RGB", (60, 60)), b"no image"])
    assert found[0].replace(" ", "").upper() == "LAKECOMO"
    assert found[1:] == ["", ""]


def test_without_the_extra_the_message_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    with pytest.raises(InputError, match=r"pip install 'rpbert\[ocr\]'"):
        TextFinder()


def test_image_texts_are_read_as_captions_are() -> None:
    posts, written = made_posts(), tiny("rpbert", evidence=EVIDENCE["ocr"])
    captions = tiny("rpbert", evidence=EVIDENCE["captions"])
    captions.tokenizer = written.tokenizer
    same = [post.with_(image_text=post.caption, caption=None) for post in posts]
    found, expected = written.collator()(same), captions.collator()(posts)
    assert torch.equal(found.evidence[0].values, expected.evidence[0].values)
