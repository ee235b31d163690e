"""A tiny encoder of random weights of each family, in a folder as hubs hold them."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    BertweetTokenizer,
    DebertaV2Tokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    RobertaTokenizer,
    XLMRobertaTokenizer,
)

from rpbert.data.vocabulary import learn_wordpieces

SHAPE: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
}
DEBERTA: dict[str, Any] = {  # as version 3 has them
    "relative_attention": True, "position_biased_input": False, "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 8, "norm_rel_ebd": "layer_norm", "share_att_key": True,
    "max_relative_positions": -1,
}  # fmt: skip
TEXT_FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", {}),
    "roberta": ("Roberta", {"type_vocab_size": 1, "pad_token_id": 1}),
    "bertweet": ("Roberta", {"type_vocab_size": 1, "pad_token_id": 1}),
    "xlm-roberta": ("XLMRoberta", {"type_vocab_size": 1, "pad_token_id": 1}),
    "deberta-v3": ("DebertaV2", DEBERTA),
    "modernbert": ("ModernBert", {"local_attention": 8, "pad_token_id": 0}),
}
"""What transformers calls the classes of each, and what shapes it beside `SHAPE`."""

TEXTS = [
    "RT @ user0 Ada Lovelace again !",
    "Lake Como , Acme and Ulysses again",
    "user1 user2 user3 user4 user5 user6 user7",
    "a very long post word 今天在北京 שלום",
]


@cache
def published(family: str) -> Path:
    """The folder of a family; it goes when the interpreter does."""
    folder = Path(tempfile.mkdtemp(prefix=f"rpbert-{family}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    name, fields = TEXT_FAMILIES[family]
    tokenizer = TOKENIZERS[family](folder)
    made = getattr(transformers, f"{name}Config")
    config = made(**{**SHAPE, **fields, "vocab_size": len(tokenizer)})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, f"{name}Model")(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _byte_level(special: list[str]) -> Tokenizer:
    tokenizer, alphabet = Tokenizer(models.BPE()), pre_tokenizers.ByteLevel.alphabet()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    named: dict[str, Any] = {
        "special_tokens": special,
        "initial_alphabet": alphabet,
        "show_progress": False,
    }
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=320, **named))
    return tokenizer


def _roberta(_: Path) -> PreTrainedTokenizerBase:
    learnt = json.loads(_byte_level(["<s>", "<pad>", "</s>", "<unk>", "<mask>"]).to_str())["model"]
    merges = [tuple(pair) for pair in learnt["merges"]]
    return RobertaTokenizer(vocab=learnt["vocab"], merges=merges)


def _modernbert(_: Path) -> PreTrainedTokenizerBase:
    special = {
        f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")
    }
    return PreTrainedTokenizerFast(tokenizer_object=_byte_level([*special.values()]), **special)


def _bertweet(folder: Path) -> PreTrainedTokenizerBase:
    characters = sorted({c for text in TEXTS for word in text.split() for c in word})
    entries = ["@USER", "HTTPURL", *characters, *(f"{c}@@" for c in characters)]
    vocab, merges = folder / "vocab.txt", folder / "bpe.codes"
    vocab.write_text("".join(f"{entry} 1\n" for entry in entries), "utf-8")
    merges.write_text("a d 1\n", "utf-8")
    return BertweetTokenizer(str(vocab), str(merges))


def _unigram(special: list[str]) -> list[tuple[str, float]]:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=special, unk_token=special[3], show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    learnt = (entry for entry in tokenizer.get_vocab() if entry not in special)
    return [*((token, 0.0) for token in special), *((e, -float(len(e))) for e in sorted(learnt))]


TOKENIZERS: dict[str, Callable[[Path], PreTrainedTokenizerBase]] = {
    "bert": lambda _: learn_wordpieces((text.split() for text in TEXTS), 200),
    "roberta": _roberta,
    "bertweet": _bertweet,
    "xlm-roberta": lambda _: XLMRobertaTokenizer(
        vocab=_unigram(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    ),
    "deberta-v3": lambda _: DebertaV2Tokenizer(
        vocab=_unigram(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"])
    ),
    "modernbert": _modernbert,
}
