"""Word vectors from made files; the character biLSTM against one word at a time."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from rpbert.data.vocabulary import PADDING, UNKNOWN
from rpbert.errors import InputError
from rpbert.models.saved import TaggingModel
from rpbert.modules.embeddings import CharacterEncoder, WordVectors, read_vectors
from rpbert.types import Post
from tests.conftest import TAGGER, tiny


def alone(encoder: CharacterEncoder, word: list[int]) -> Tensor:
    """The word by itself: two LSTMs of one direction, a step a character, nothing padded."""
    state = encoder.lstm.state_dict()
    ends = []
    for suffix, order in (("", word), ("_reverse", word[::-1])):
        cell = nn.LSTMCell(encoder.table.embedding_dim, encoder.lstm.hidden_size)
        cell.load_state_dict({key: state[f"{key}_l0{suffix}"] for key in cell.state_dict()})
        hidden = (torch.zeros(1, cell.hidden_size), torch.zeros(1, cell.hidden_size))
        for character in order:
            hidden = cell(encoder.table.weight[character][None], hidden)
        ends.append(hidden[0][0])
    return torch.cat(ends)


def padded(words: list[list[int]], extra: int = 0) -> Tensor:
    longest = max(map(len, words), default=0) + extra
    return torch.tensor([word + [PADDING] * (longest - len(word)) for word in words])


@given(
    st.lists(st.lists(st.integers(1, 11), max_size=9), min_size=1, max_size=6), st.integers(0, 3)
)
def test_each_word_as_if_alone(words: list[list[int]], extra: int) -> None:
    torch.manual_seed(0)
    encoder = CharacterEncoder(10, width=4, hidden=3)
    got = encoder(padded(words, extra))
    assert got.shape == (len(words), encoder.width) == (len(words), 6)
    for vector, word in zip(got, words, strict=True):
        torch.testing.assert_close(vector, alone(encoder, word), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("shape", [(0, 0), (0, 7), (4, 0), (3, 5)])
def test_a_word_without_characters_is_zero_and_trains_nothing(shape: tuple[int, int]) -> None:
    encoder = CharacterEncoder(10)
    got = encoder(torch.zeros(shape, dtype=torch.long))
    assert got.shape == (shape[0], 50)
    assert not got.any()
    if got.requires_grad:
        got.sum().backward()
    assert not any(p.grad is not None and p.grad.any() for p in encoder.parameters())


def test_the_table_starts_at_the_given_vectors_and_learns() -> None:
    initial = np.arange(12, dtype=np.float32).reshape(4, 3)
    table = WordVectors(4, 3, initial)
    assert table.width == 3
    rows = torch.arange(6)
    got = table(rows)
    assert not got[PADDING].any()
    assert got[UNKNOWN].tolist() == [4.5, 5.5, 6.5]  # the mean
    assert got[2:].tolist() == initial.tolist()
    got.sum().backward()
    gradient = table.table.weight.grad
    assert gradient is not None
    assert gradient[1:].eq(1).all()
    assert not gradient[PADDING].any()


def test_without_vectors_the_table_is_drawn_with_variance_one_over_width() -> None:
    torch.manual_seed(0)
    table = WordVectors(5000, 100)
    weight = table.table.weight.detach()
    assert weight[2:].var().item() == pytest.approx(1 / 100, rel=0.02)
    torch.testing.assert_close(weight[UNKNOWN], weight[2:].mean(0))
    assert not weight[PADDING].any()
    assert WordVectors(0, 5)(torch.tensor([PADDING, UNKNOWN])).tolist() == [[0.0] * 5] * 2


VECTORS = {
    "the": [0.25, -1.5, 3.0],
    "kevin": [1.0, 2.0, 3.0],
    "Kevin": [4.0, 5.0, 6.0],
    "cleveland": [7.0, 8.0, 9.0],
    "line\u2028end": [0.1, 0.2, 0.3],
    ". . .": [1.5, 1.5, 1.5],
}


def vec_text(vectors: dict[str, list[float]]) -> str:
    lines = [f"{word} {' '.join(map(str, numbers))}\n" for word, numbers in vectors.items()]
    return f"{len(vectors)} 3\n" + "".join(lines)


def written(folder: Path, text: str | bytes, name: str = "made.vec") -> Path:
    path = folder / name
    content = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


@pytest.mark.parametrize("name", ["made.vec", "made.vec.gz"])
@pytest.mark.parametrize("end", ["\n", " \n", "\r\n"])
def test_words_of_a_file_are_found_as_they_are(tmp_path: Path, name: str, end: str) -> None:
    path = written(tmp_path, vec_text(VECTORS).replace("\n", end), name)
    got = read_vectors(path, [*VECTORS, "KEVIN", "absent", "", "\ud83d"])
    assert set(got) == set(VECTORS)
    for word, numbers in VECTORS.items():
        assert got[word].dtype == np.float32
        np.testing.assert_array_equal(got[word], np.array(numbers, dtype=np.float32))
    assert set(read_vectors(path, ["Kevin", "."])) == {"Kevin"}
    assert read_vectors(path, ["cleveland"], first=2).keys() == {*list(VECTORS)[:2], "cleveland"}
    assert read_vectors(path, [], first=99).keys() == VECTORS.keys()


def test_a_model_keeps_the_vectors_of_frequent_words_that_no_post_has(tmp_path: Path) -> None:
    words = ["the", "Ada", "of", "seldom"]
    lines = "".join(f"{word} {number}{' 0' * 11}\n" for number, word in enumerate(words))
    path = written(tmp_path, f"4 12\n{lines}")
    tagger = {**TAGGER, "word_vectors": str(path), "kept_vectors": 3}
    model = tiny("bilstm_crf", tagger=tagger)
    model.save(tmp_path / "model")
    kept = TaggingModel.load(tmp_path / "model")
    weight = kept.system.get_parameter("embeddings.vectors.table.weight").detach()
    found = {word: float(weight[kept.vocabulary.word_row(word), 0]) for word in words}
    assert found == {"the": 0, "Ada": 1, "of": 2, "seldom": 1}  # the mean of those that are kept
    with pytest.raises(InputError, match="none of the posts' words"):
        tiny("bilstm_crf", [Post.from_words("1", ("x",), tags=("B-PER",))], tagger=tagger)


def test_the_first_of_two_counts_and_a_last_line_may_lack_its_end(tmp_path: Path) -> None:
    path = written(tmp_path, b"4 1\na 1\na 2\n\xff\xfe 1\nb 2")  # one word is not UTF-8
    got = read_vectors(path, ["a", "b"])
    assert {word: vector.tolist() for word, vector in got.items()} == {"a": [1.0], "b": [2.0]}
    with pytest.raises(InputError, match=r"found 2 words; expected 3"):
        read_vectors(written(tmp_path, "3 1\na 1\nb 2\n"), ["a"])


WORDS = st.text(st.characters(exclude_characters=" \n", exclude_categories=["Cs"]), min_size=1)
NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.dictionaries(WORDS, st.lists(NUMBERS, min_size=2, max_size=2), min_size=1, max_size=8))
def test_any_words_survive(
    tmp_path_factory: pytest.TempPathFactory, vectors: dict[str, list[float]]
) -> None:
    lines = "".join(f"{word} {a!r} {b!r}\n" for word, (a, b) in vectors.items())
    path = written(tmp_path_factory.mktemp("vec"), f"{len(vectors)} 2\n{lines}")
    got = read_vectors(path, set(vectors))
    assert {word: vector.tolist() for word, vector in got.items()} == vectors


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "number of words"),
        ("the 1 2 3\n", 1, "number of words"),  # GloVe, which has no first line
        ("x" * 10_000, 1, "size of a vector"),
        ("2 3\nthe 1 2 3\nkevin 1 2 3 4\n", 3, "found 4 fields"),
        ("2 3\nthe 1 2 3\nkevin 1 two 3\n", 3, "3 finite numbers"),
        ("2 3\nthe 1 2 3\nkevin 1 -inf 3\n", 3, "finite"),
    ],
)
def test_malformed_lines_are_named(tmp_path: Path, text: str, line: int, words: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read_vectors(path, ["kevin", "the"])
    message = str(caught.value)
    assert message.startswith(f"{path}:{line}: ")
    assert words in message
    assert len(message) < len(str(path)) + 200


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    whole = bytearray(gzip.compress(vec_text(VECTORS).encode()))
    (tmp_path / "cut.vec.gz").write_bytes(whole[: len(whole) // 2])
    whole[12:40] = bytes(28)
    (tmp_path / "damaged.vec.gz").write_bytes(whole)
    for name in ("cut.vec.gz", "damaged.vec.gz", "absent.vec"):
        with pytest.raises(InputError, match=name):
            read_vectors(tmp_path / name, ["the"])
