"""Probability gates G: from relation logits to [π_0, π_1] (Eq. 4, 5, 6), and R of r (Eq. 3).
Each gate maps logits x of shape (B, 2) to probabilities of shape (B, 2), of which the second column
is the relation score r (Eq. 2), in float32 or wider also under autocast. `OracleGate` reads labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import gumbel_softmax

from rpbert.types import PostImage, VisualTokens


class Gate(nn.Module):
    """A probability gate."""

    def anneal(self, progress: float) -> None:
        """Takes the share of training that is done, in [0, 1]."""


class SoftGate(Gate):
    """G_s = softmax(x) (Eq. 4)."""

    def forward(self, logits: Tensor) -> Tensor:
        """Shapes: (B, 2) → (B, 2)."""
        return _wide(logits).softmax(-1)


class StraightThroughGate(Gate):
    """G_h1 = [softmax(x) > 0.5] (Eq. 5), with the gradient of the softmax.
    Of a tie both probabilities are 0, as the equation has it (Bengio, Léonard and Courville 2013,
    "Estimating or propagating gradients through stochastic neurons")."""

    def forward(self, logits: Tensor) -> Tensor:
        """Shapes: (B, 2) → (B, 2), each value 0 or 1."""
        soft = _wide(logits).softmax(-1)
        hard = (soft > 0.5).to(soft.dtype)
        return hard + (soft - soft.detach())  # the bracket is exactly 0


class GumbelGate(Gate):
    """G_h2 = softmax((x + g) / τ) (Eq. 6), g drawn from the Gumbel distribution.
    τ falls from 1 to 0.1 over training, exponentially as in Jang, Gu and Poole (2017), "Categorical
    reparameterization with Gumbel-softmax"; the paper gives the ends only. g = 0 in inference."""

    START = 1.0
    END = 0.1
    temperature: Tensor  # τ, saved with the weights

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("temperature", torch.tensor(self.START))

    def anneal(self, progress: float) -> None:
        """Sets τ."""
        if not 0 <= progress <= 1:
            raise ValueError(f"progress is {progress}, not in [0, 1]")
        self.temperature.fill_(self.START * (self.END / self.START) ** progress)

    def forward(self, logits: Tensor) -> Tensor:
        """Shapes: (B, 2) → (B, 2)."""
        logits, temperature = _wide(logits), self.temperature
        if self.training:
            return gumbel_softmax(logits, temperature)  # type: ignore[arg-type]  # a number or so
        return (logits / temperature).softmax(-1)


class OracleGate(Gate):
    """The relation label of a post, the most that a gate can give; 1 where there is none."""

    def forward(self, images: Sequence[PostImage]) -> Tensor:
        """Shape: (B, 2)."""
        r = torch.tensor([1.0 if i.relation is None else float(i.relation) for i in images])
        return torch.stack([1 - r, r], dim=-1)


class Propagation(nn.Module):
    """The share R of the image that r lets through (Eq. 3), with a floor, and where R `acts`.
    R = floor + (1 - floor) r; Eq. 3 has 0. Before the share `gradient_from` of training r is a
    constant to Task#2's gradient.
    - ``after_norm``: R times what the first layer reads of V and, by log R added to its scores, R
      times its weight in every attention: the image fades in from r = 0, where the post is read as
      text alone. No gradient of Task#2 passes R = 0: Task#1 alone opens a closed hard gate again.
    - ``before_norm``, Eq. 3 by the letter: R ⊙ V, before segment and position are added and
      LayerNorm scales the sum, so that little of R remains: at r = 0.1 most of the image acts.
    - ``input``: R times what the first layer reads of V, alone; at R = 0 no token attends to it. It
      has a step there: tokens that are almost 0 still take their share of every softmax."""

    def __init__(
        self, acts: str = "after_norm", floor: float = 0.0, gradient_from: float = 0.0
    ) -> None:
        super().__init__()
        self.acts, self.floor, self.gradient_from = acts, floor, gradient_from
        self.passes = gradient_from == 0

    def anneal(self, progress: float) -> None:
        """See `Gate`."""
        self.passes = self.gradient_from <= progress and self.gradient_from < 1

    def forward(self, image: VisualTokens, score: Tensor) -> VisualTokens:
        """The visual tokens as the second pass reads them, by r of each source.
        Shapes: (B, E, V, …), (B, E) → (B, E, V, …)."""
        # Detached, not computed under no_grad: autocast would keep the weights it cast then.
        score = score if self.passes else score.detach()
        share = self.floor + (1 - self.floor) * score  # R
        share = share[..., None].expand(image.mask.shape)
        if self.acts == "before_norm":
            return image._replace(values=share[..., None] * image.values)
        return image._replace(scale=share, weight=share if self.acts == "after_norm" else None)


GATES: dict[str, type[Gate]] = {
    "soft": SoftGate,
    "straight_through": StraightThroughGate,
    "gumbel": GumbelGate,
    "oracle": OracleGate,
}


def _wide(logits: Tensor) -> Tensor:
    """At least float32: in half precision a score near 0 or 1 would lose its gradient."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
