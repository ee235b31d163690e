"""Word embeddings for inference: each word is embedded once, whatever batch it comes in."""

from __future__ import annotations

import threading

import torch
from torch import Tensor, nn

from rpbert.models.tagger import WordEmbeddings
from rpbert.types import Batch


class RememberedWords(nn.Module):
    """`WordEmbeddings` that keep what they gave.

    Attributes:
        remembered: most words kept; then the memory starts afresh. 0 keeps none.
    """

    remembered = 50_000

    def __init__(self, embeddings: WordEmbeddings) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.vectors, self.characters = embeddings.vectors, embeddings.characters
        self.width = embeddings.width
        self._rows: dict[str, int] = {}
        self._table: Tensor | None = None  # Shape: (remembered, D)
        self._lock = threading.Lock()  # a tagger may serve several threads

    def forward(self, batch: Batch) -> Tensor:
        """Shape: (B, W, D)."""
        words = batch.form_words
        if not 0 < len(words) <= self.remembered:
            return self.embeddings(batch)  # type: ignore[no-any-return]
        with self._lock:
            return self._forms(words, batch)[batch.forms]

    def _forms(self, words: tuple[str, ...], batch: Batch) -> Tensor:
        """Each distinct word of the batch. Shape: (U, D)."""
        new = [i for i, word in enumerate(words) if word not in self._rows]
        if len(self._rows) + len(new) > self.remembered:
            self._rows.clear()
            new = list(range(len(words)))
        if self._table is None:
            like = self.vectors.table.weight
            self._table = like.new_empty(self.remembered, self.width)
        if new:
            found = self.embeddings.embed(batch.form_vectors[new], batch.form_characters[new])
            first = len(self._rows)
            self._table[first : first + len(new)] = found
            self._rows.update((words[i], row) for row, i in enumerate(new, start=first))
        rows = [self._rows[word] for word in words]
        return self._table[torch.tensor(rows, device=self._table.device)]


def forget_words(system: nn.Module) -> None:
    """Keep no words from here on, so that an answer depends on its batch alone, to the bit.

    A remembered word has the last bits of the batch that it first came in.
    """
    for module in system.modules():
        if isinstance(module, RememberedWords):
            module.remembered = 0
