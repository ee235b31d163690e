"""The paper's tables made again: every row trained on given data, ours beside the paper's."""
