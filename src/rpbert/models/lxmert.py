"""LXMERT before the biLSTM-CRF (as in Table 5, of which it is no row).
Tan and Bansal 2019. LXMERT: Learning Cross-Modality Encoder Representations from Transformers. In
EMNLP-IJCNLP, 5103-5114.
Text goes through l layers of BERT and regions through r separate layers. Then come x
cross-modality layers (section 2.2), in each of which
    text'    = attention of text over regions,  regions' = attention of regions over text
    text''   = BERT's layer on text',           regions'' = BERT's layer on regions'
where both attentions have the same weights. A region with feature f and box b = (x0, y0, x1, y1),
as shares of the image, enters as the mean of LayerNorm(W^f f) and LayerNorm(W^b b).
These are the modules of transformers' `LxmertModel`, which also loads its published weights.
Deviations: from a plain BERT of N layers the text has all N, the last x of them inside the
cross-modality layers, in the published proportion of 9 : 5 (and r = x); they trained from scratch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch
from torch import Tensor

from rpbert.errors import InputError
from rpbert.models.vision_language import VisionLanguageEncoder
from rpbert.modules.attention import somewhere
from rpbert.modules.encoder import attend, attend_if_any, bert_layer
from rpbert.storage.published import bert_shape
from rpbert.types import VisualTokens

if TYPE_CHECKING:
    from transformers import BertModel, LxmertModel

LAYERS, CROSSING = 14, 5
"""Layers of the published model: of text, and those of them that are crossing; of regions alone are
as many as are crossing."""


class _Layer(NamedTuple):
    """The modules of a cross-modality layer that are a layer of BERT."""

    attention: Any
    intermediate: Any
    output: Any


class LxmertEncoder(VisionLanguageEncoder):
    """LXMERT's transformer, of which the text's end is read.
    Its shape has two fields beside BertConfig's: `x_layers`, cross-modality layers, which are among
    the text's `num_hidden_layers`, and `r_layers`, those of the regions alone."""

    network = "model"
    own_fields = ("x_layers", "r_layers")
    new = "model.encoder.visn_fc"
    published_class = "LxmertModel"

    def __init__(self, model: LxmertModel) -> None:
        super().__init__(model.config, model.config.visual_feat_dim)
        model.pooler = None
        last = model.encoder.x_layers[-1]
        last.visn_self_att = last.visn_inter = last.visn_output = None
        # Segment A and the first position are no padding, and learn like any other.
        for table in (model.embeddings.token_type_embeddings, model.embeddings.position_embeddings):
            table.padding_idx = None
        self.model = model

    @classmethod
    def from_bert(cls, bert: BertModel, region_width: int, **own: int) -> Self:
        """See `VisionLanguageEncoder.from_bert`; layers are shared out as published."""
        from transformers import LxmertConfig, LxmertModel

        fields = bert_shape(bert.config)
        del fields["layer_norm_eps"]
        layers = fields.pop("num_hidden_layers")
        crossing = own.get("x_layers", max(1, round(layers * CROSSING / LAYERS)))
        alone = own.get("r_layers", crossing)
        if not (1 <= crossing <= layers and alone >= 0):
            found = f"x_layers = {crossing}, r_layers = {alone}"
            expected = f"1 to {layers} x_layers, the layers of the text, and some r_layers"
            raise InputError("model.encoder.shape", found, expected)
        first = layers - crossing
        counts = {"l_layers": first, "x_layers": crossing, "r_layers": alone}
        model = LxmertModel(LxmertConfig(**fields, **counts, visual_feat_dim=region_width))
        taken = [(model.embeddings, bert.embeddings)]
        taken += zip(model.encoder.layer, bert.encoder.layer, strict=False)
        for ours, given in zip(model.encoder.x_layers, bert.encoder.layer[first:], strict=True):
            taken.append((ours.lang_self_att, given.attention))
            taken.append((ours.lang_inter, given.intermediate))
            taken.append((ours.lang_output, given.output))
        for ours, given in taken:  # the same parameters, so that one sees which they are
            ours.load_state_dict(given.state_dict(keep_vars=True), assign=True)
        return cls(model)

    @classmethod
    def random(cls, shape: Mapping[str, Any], region_width: int | None, rows: int) -> Self:
        """See `VisionLanguageEncoder.random`; by default of as many layers as published."""
        return super().random({"num_hidden_layers": LAYERS, **shape}, region_width, rows)

    @property
    def shape(self) -> dict[str, Any]:
        """Fields of transformers' BertConfig, `x_layers` and `r_layers`."""
        layers = self.config.l_layers + self.config.x_layers
        return {**super().shape, "num_hidden_layers": layers}

    def forward(self, subwords: Tensor, mask: Tensor, image: VisualTokens) -> Tensor:
        """See `VisionLanguageEncoder.forward`."""
        encoder = self.model.encoder
        text: Tensor = self.model.embeddings(subwords, torch.zeros_like(subwords))
        regions = encoder.visn_fc(image.values, image.boxes)
        seen = somewhere(image.mask)
        for layer in encoder.layer:
            text = bert_layer(layer, text, text, mask)
        for layer in encoder.r_layers:
            regions = bert_layer(layer, regions, regions, seen)
        for layer in encoder.x_layers:
            cross = layer.visual_attention
            looked = cross.output(attend_if_any(cross.att, text, regions, image.mask), text)
            if layer is not encoder.x_layers[-1]:  # nothing reads the last layer's regions
                regions = cross.output(attend(cross.att, regions, text, mask), regions)
                visual = _Layer(layer.visn_self_att, layer.visn_inter, layer.visn_output)
                regions = bert_layer(visual, regions, regions, seen)
            own = _Layer(layer.lang_self_att, layer.lang_inter, layer.lang_output)
            text = bert_layer(own, looked, looked, mask)
        return text
