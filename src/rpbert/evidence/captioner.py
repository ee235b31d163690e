"""Image-to-text models of transformers: what an image shows, in a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch

from rpbert.data.images import load_image, normalise_batch
from rpbert.errors import InputError
from rpbert.evidence.vision import CLIP, published_preprocessing
from rpbert.storage.published import load_published, model_type

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from rpbert.data.images import Preprocessing
    from rpbert.evidence.describing import Source

CAPTIONERS = {
    "blip": "BlipForConditionalGeneration",
    "git": "GitForCausalLM",
    "vision-encoder-decoder": "VisionEncoderDecoderModel",
}
"""The families known: they write a caption without being asked a question."""


class Captioner:
    """Writes a caption for each image, the likeliest word after word.

    Li, J.; Li, D.; Xiong, C.; and Hoi, S. 2022. BLIP: Bootstrapping Language-Image Pre-training
    for Unified Vision-Language Understanding and Generation. In ICML, 12888-12900. Wang et al.
    2022, "GIT: A Generative Image-to-text Transformer for Vision and Language".

    Args:
        network: a model of `CAPTIONERS`.
        tokenizer: turns its ids into text.
        preprocessing: how it is given images.
        longest: most sub-words of a caption.
        at_a_time: images that go through the network together.
    """

    def __init__(
        self,
        network: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        preprocessing: Preprocessing,
        longest: int = 40,
        at_a_time: int = 8,
    ) -> None:
        self.network: Any = network.eval()
        self.tokenizer = tokenizer
        self.preprocessing = preprocessing
        self.longest = longest
        self.at_a_time = at_a_time

    @classmethod
    def from_pretrained(cls, source: str | Path, device: str = "cpu") -> Self:
        """A published captioner, by hub name or folder.

        Raises:
            InputError: see `load_published`; or a family that is not known.
        """
        import transformers

        family = model_type(source)
        if family not in CAPTIONERS:
            expected = f"one of {', '.join(CAPTIONERS)}"
            raise InputError("captioner", f"model_type {family}", expected)
        expected = f"an image-to-text model ({', '.join(CAPTIONERS)}) with safetensors weights"
        network = load_published(getattr(transformers, CAPTIONERS[family]), source, expected)
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        preprocessing = published_preprocessing(source, CLIP)
        return cls(network.to(device), tokenizer, preprocessing)

    def __call__(self, images: Sequence[Source]) -> list[str]:
        """A caption for each image, empty for one that cannot be read."""
        how = self.preprocessing.size, self.preprocessing.resampling
        pixels = {index: load_image(image, *how).pixels for index, image in enumerate(images)}
        read = {index: found for index, found in pixels.items() if found is not None}
        captions = [""] * len(images)
        order = list(read)
        for start in range(0, len(order), self.at_a_time):
            some = order[start : start + self.at_a_time]
            values = normalise_batch([read[index] for index in some], self.preprocessing)
            with torch.inference_mode():
                ids = self.network.generate(
                    pixel_values=values.to(self.network.device),
                    max_new_tokens=self.longest,
                    do_sample=False,
                    num_beams=1,
                )
            texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
            for index, text in zip(some, texts, strict=True):
                captions[index] = text.strip()
        return captions
