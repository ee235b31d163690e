"""What a word is to the biLSTM: e_k, its word vector beside what its characters say."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rpbert.data.vocabulary import PADDING, UNKNOWN
from rpbert.errors import InputError, reason_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPECIAL_ROWS = 2


class WordVectors(nn.Module):
    """A trainable vector for each word; row 0 is padding, row 1 any unknown word, then the words.
    These start at `initial` (words, width), or random; an unknown word starts at their mean."""

    def __init__(self, words: int, width: int, initial: NDArray[np.float32] | None = None) -> None:
        super().__init__()
        self.width = width
        self.table = nn.Embedding(SPECIAL_ROWS + words, width, padding_idx=PADDING)
        weight = self.table.weight
        _draw(weight)
        with torch.no_grad():
            if initial is not None:
                weight[SPECIAL_ROWS:] = torch.from_numpy(initial)
            weight[UNKNOWN] = weight[SPECIAL_ROWS:].mean(0) if words else 0

    def forward(self, rows: Tensor) -> Tensor:
        """Shapes: (U,) → (U, width)."""
        vectors: Tensor = self.table(rows)
        return vectors


class CharacterEncoder(nn.Module):
    """A word as the last states of a biLSTM over its characters (Lample et al. 2016, section 4.1).
    `characters` counts those of the alphabet, `hidden` is the hidden size of a direction."""

    def __init__(self, characters: int, width: int = 25, hidden: int = 25) -> None:
        super().__init__()
        self.width = 2 * hidden
        self.table = nn.Embedding(SPECIAL_ROWS + characters, width, padding_idx=PADDING)
        _draw(self.table.weight)
        self.lstm = Lstm(width, hidden, bidirectional=True, batch_first=True)

    def forward(self, characters: Tensor) -> Tensor:
        """Distinct words to their vectors; a word without any character is all zeros.
        Shape: (U, C), padding last → (U, 2 * hidden)."""
        if not characters.numel():
            return self.table.weight.new_zeros(len(characters), self.width)
        mask = characters != PADDING
        states = self.lstm.read(self.table(characters), mask)  # (U, C, 2 * hidden)
        last = (mask.sum(1) - 1).clamp(min=0)[:, None, None].expand(-1, 1, self.width)
        ends, hidden = states.gather(1, last).squeeze(1), self.width // 2
        ends = torch.cat([ends[:, :hidden], states[:, 0, hidden:]], dim=1)
        return ends * mask.any(1, keepdim=True)


class Lstm(nn.LSTM):
    """An LSTM over rows of different lengths, the batch first."""

    def read(self, rows: Tensor, mask: Tensor) -> Tensor:
        """The states at every real token, which come first; zeros on padding.
        Shape: (S, L, D), (S, L) → (S, L, directions * hidden)."""
        # A packed sequence cannot be empty: an empty row's one step is masked like any padding.
        lengths = mask.sum(1).clamp(min=1).cpu()
        packed = pack_padded_sequence(rows, lengths, batch_first=True, enforce_sorted=False)
        length = rows.shape[1]
        return pad_packed_sequence(self(packed)[0], batch_first=True, total_length=length)[0]


def read_vectors(
    path: Path, needed: Collection[str], first: int = 0
) -> dict[str, NDArray[np.float32]]:
    """Reads the needed words, and so many of the first, of a fastText ``.vec`` or ``.vec.gz`` file:
    a first line with the number of words and the size of a vector, then a word and its numbers a
    line.
    The file is streamed; of a word that occurs twice the first counts, as the file is sorted by
    frequency. Raises InputError: the file cannot be read, or a line is not of this form."""
    # A file has no half of a surrogate pair, which so finds nothing.
    wanted = {word.encode(errors="surrogatepass") for word in needed}
    found: dict[str, NDArray[np.float32]] = {}
    try:
        with cast(IO[bytes], (gzip.open if path.suffix == ".gz" else open)(path, "rb")) as file:
            for word, vector in _matches(path, file, wanted, first):
                found.setdefault(word.decode(errors="replace"), vector)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            path, reason_of(error), "a readable fastText .vec or .vec.gz file"
        ) from error
    return found


def _matches(
    path: Path, file: IO[bytes], wanted: set[bytes], first: int
) -> Iterator[tuple[bytes, NDArray[np.float32]]]:
    """The wanted and the first words of an open file with their vectors, as they come."""
    line = file.readline(1000)
    head = line.split()
    if len(head) != 2 or not all(field.isdigit() for field in head) or int(head[1]) == 0:
        text = repr(line[:40].decode(errors="replace"))
        raise InputError(f"{path}:1", text, "the number of words and the size of a vector")
    count, width = map(int, head)
    # A published file has millions of lines, of which a data set needs one in a hundred.
    starts = {word.split(b" ", 1)[0] for word in wanted}
    number = 1
    for number, line in enumerate(file, start=2):
        if line.split(b" ", 1)[0] not in starts and number - 1 > first:
            continue
        # A word may itself hold spaces; its numbers are the last ones.
        word, *fields = line.rstrip().rsplit(b" ", width)
        numbers, inside = _numbers(fields), word.split(b" ")[1:]
        if numbers is None or len(numbers) != width or (inside and _numbers(inside) is not None):
            text = f"{len(line.split(b' ')) - 1} fields after the word"
            raise InputError(f"{path}:{number}", text, f"{width} finite numbers")
        if word in wanted or number - 1 <= first:
            yield word, numbers
    if number - 1 < count:
        raise InputError(path, f"{number - 1} words", f"{count}, as the first line says")


def _numbers(fields: list[bytes]) -> NDArray[np.float32] | None:
    """Finite numbers, or None if a field is anything else."""
    try:
        values = np.array([float(field) for field in fields], dtype=np.float32)
    except ValueError:
        return None
    return values if np.isfinite(values).all() else None


def _draw(weight: Tensor) -> None:
    """Random embeddings, uniform with variance 1 / width; the padding is zero."""
    bound = math.sqrt(3 / weight.shape[1])
    nn.init.uniform_(weight, -bound, bound)
    with torch.no_grad():
        weight[PADDING] = 0
