"""The unpacked LSTM against PyTorch's on packed sequences."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rpbert.backends.fast_lstm import FastBiLstm


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
def test_states_are_those_of_packed_posts(
    layers: int, dtype: torch.dtype, tolerance: float
) -> None:
    lstm = nn.LSTM(6, 5, layers, bidirectional=True, batch_first=True, dropout=0.5 * (layers > 1))
    words, lengths = torch.randn(5, 9, 6), torch.tensor([9, 1, 4, 8, 2])
    fast = FastBiLstm(lstm.eval(), dtype)
    with torch.no_grad():
        packed = pack_padded_sequence(words, lengths, batch_first=True, enforce_sorted=False)
        expected, _ = pad_packed_sequence(lstm(packed)[0], batch_first=True)
        found = fast(words, lengths)
    for post, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(
            found[post, :length], expected[post, :length], atol=tolerance, rtol=tolerance
        )


def test_an_empty_post_harms_no_other() -> None:
    lstm = nn.LSTM(3, 2, bidirectional=True, batch_first=True)
    fast = FastBiLstm(lstm, torch.float32)
    words = torch.randn(2, 4, 3)
    with torch.no_grad():
        together = fast(words, torch.tensor([0, 4]))
        torch.testing.assert_close(together[1:], fast(words[1:], torch.tensor([4])))
    assert torch.isfinite(together).all()
