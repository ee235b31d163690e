"""The tokenizer of a text encoder: its own, or one learnt from the training texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rpbert.config.model import SystemSettings
from rpbert.errors import InputError
from rpbert.models.build import from_hub
from rpbert.types import Post

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def tokenizer_for(options: SystemSettings, train: Sequence[Post]) -> PreTrainedTokenizerBase | None:
    """The encoder's own tokenizer, or one learnt from the training texts; None without encoder.

    Raises:
        InputError: it cannot be loaded.
    """
    settings = options.encoder
    if settings is None:
        return None
    if settings.pretrained is None:
        from rpbert.data.vocabulary import learn_wordpieces

        return learn_wordpieces((post.words for post in train), settings.vocabulary or 0)
    name = settings.pretrained
    return from_hub("model.encoder.pretrained", name, lambda: load_tokenizer(name))


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a hub name or folder.

    Raises:
        InputError: there is none.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    # Where its files are missing, the library makes one that knows the special tokens only.
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise InputError(source, "no vocabulary", "a folder with tokenizer.json or vocab.txt")
    if hasattr(tokenizer, "normalization"):
        # BERTweet was trained on tweets whose users and links are one word each.
        tokenizer.normalization = True
    return tokenizer
