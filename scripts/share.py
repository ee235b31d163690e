"""How far r lets the image act: the share of the way from r = 0 to r = 1 that a model's states go.

    python scripts/share.py RUN DATA [--posts 200]

Of the text's last hidden states h(r): the mean of |h(r) - h(0)| / |h(1) - h(0)| over test posts.
"""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from rpbert.data.collate import batches
from rpbert.data.readers import open_data
from rpbert.errors import InputError
from rpbert.models.rpbert import RpBert
from rpbert.models.saved import TaggingModel
from rpbert.types import Batch

SHARES = (0.0, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0)


def states(system: RpBert, batch: Batch, r: float) -> Tensor:
    """The text's last hidden states with r of all images set. Shape: (S, L, H)."""
    text, image = system.encoder.embed(batch.subwords), system.blocks(batch)
    found: list[Tensor] = []

    def encode(*given: Tensor) -> Tensor:
        found.append(system.encoder(*given))
        return found[0]

    system.read(batch, text, image, torch.full(image.mask.shape[:2], r), encode)
    return found[0] * batch.subword_mask[:, :, None]


def main() -> None:
    """Print a line for each r."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--posts", type=int, default=200)
    given = parser.parse_args()
    try:
        model, source = TaggingModel.load(given.run), open_data(given.data)
    except InputError as error:
        parser.error(str(error))
    if not isinstance(model.system, RpBert):
        parser.error(f"{given.run}: {model.options.system}, not rpbert")
    collate, system = model.collator(), model.system
    posts = list(islice(source.read("test"), given.posts))
    ways: dict[float, list[Tensor]] = {r: [] for r in SHARES}
    with torch.inference_mode():
        for group in batches(posts, 16):
            batch = collate(group)
            closed, whole = (states(system, batch, r) for r in (0.0, 1.0))
            far = (whole - closed).flatten(1).norm(dim=1)
            for r, of_r in ways.items():
                near = (states(system, batch, r) - closed).flatten(1).norm(dim=1)
                of_r.append((near / far)[far > 0])
    for r, of_r in ways.items():
        print(f"r = {r:<5g} {float(torch.cat(of_r).mean()):.3f}")


if __name__ == "__main__":
    main()
