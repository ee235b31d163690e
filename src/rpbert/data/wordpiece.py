"""A WordPiece tokenizer learnt from training texts, for an encoder that starts from scratch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def learn_wordpieces(texts: Iterable[Sequence[str]], size: int) -> PreTrainedTokenizerBase:
    """An uncased WordPiece vocabulary: every character, then whole words by frequency.

    The trainer of the tokenizers library breaks ties at random, so that two runs of one seed
    would start from different vocabularies; this one depends on the texts alone.

    Args:
        size: most entries; characters are never left out.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    normalizer = normalizers.BertNormalizer(lowercase=True)
    splitter = pre_tokenizers.BertPreTokenizer()
    words = Counter(
        word
        for text in texts
        for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(" ".join(text)))
    )
    characters = sorted({character for word in words for character in word})
    entries = [*SPECIAL, *characters, *(f"##{character}" for character in characters)]
    known = set(entries)
    recurring = [word for word, count in words.items() if count > 1 and word not in known]
    recurring.sort(key=lambda word: (-words[word], word))
    entries += recurring[: max(size - len(entries), 0)]
    vocabulary = {entry: row for row, entry in enumerate(entries)}

    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"])
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
