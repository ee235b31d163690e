"""Any other encoder of transformers among text and image, computed by its own `forward`."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rpbert.errors import InputError
from rpbert.modules.encoder import Sequence, TextImageEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

READ = ("inputs_embeds", "attention_mask", "position_ids")
"""Arguments an encoder must read."""


class AnyEncoder(TextImageEncoder):
    """An encoder with absolute positions or another kind that it takes from ``position_ids``.

    `ImageType` tells the image from the text, whatever segments there are. All visual tokens of
    a post share the position after its text; positions start behind that of the padding where the
    encoder's table has one reserved for it.
    """

    @staticmethod
    def takes(kind: type[PreTrainedModel]) -> bool:
        """Whether a class of encoders reads what it is to be given."""
        return set(READ) <= set(inspect.signature(kind.forward).parameters)

    @property
    def has_segments(self) -> bool:
        """Whatever there are is left to the encoder."""
        return False

    @property
    def blocks(self) -> nn.ModuleList:
        """The layers, the lowest first.

        Raises:
            InputError: they are not there one by one.
        """
        lists = [m for m in self.bert.modules() if isinstance(m, nn.ModuleList)]
        found = [m for m in lists if len(m) == self.bert.config.num_hidden_layers]
        if not found:
            kind = self.bert.config.model_type
            raise InputError("model.encoder", f"{kind}, whose layers share their weights", "layers")
        return found[0]

    def first(self, tokens: Tensor, mask: Tensor, segments: Tensor, positions: Tensor) -> Tensor:
        """The tokens as they are: the encoder adds the rest itself."""
        return tokens

    def layers(self, read: Sequence, rows: int) -> Tensor:
        """See `TextImageEncoder.layers`."""
        output = self.bert(
            inputs_embeds=read.hidden,
            attention_mask=read.mask.to(torch.long),
            position_ids=read.positions + self._first_position,
            output_hidden_states=self.mix.count > 1,
        )
        states = [output.last_hidden_state]
        if self.mix.count > 1:
            states = list(output.hidden_states[-self.mix.count :])
        mixed: Tensor = self.mix([state[:, :rows] for state in states])
        return mixed
