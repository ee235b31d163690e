"""VisualBERT before the biLSTM-CRF (as in Table 5, of which it is no row).
Li et al. 2019. VisualBERT: A Simple and Performant Baseline for Vision and Language.
arXiv:1908.03557.
Text and regions are one sequence for one BERT. A region with feature f enters as
    region = LayerNorm(W f + segment B' + position 0')        (section 3.2)
where B' and 0' are the image's own tables; a sub-word enters as in BERT. Boxes are not read.
This is transformers' `VisualBertModel`, which also loads its published weights. From a plain BERT,
the image's segments and positions start from the text's, as the authors' did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from torch import Tensor

from rpbert.errors import InputError
from rpbert.models.vision_language import VisionLanguageEncoder
from rpbert.storage.published import bert_shape
from rpbert.types import VisualTokens

if TYPE_CHECKING:
    from transformers import BertModel, VisualBertModel


class VisualBertEncoder(VisionLanguageEncoder):
    """transformers' VisualBERT, without pooler."""

    network = "model"
    new = "model.embeddings.visual_projection"
    published_class = "VisualBertModel"

    def __init__(self, model: VisualBertModel) -> None:
        super().__init__(model.config, model.config.visual_embedding_dim)
        if model.config.bypass_transformer:
            raise InputError("VisualBERT", "bypass_transformer", "regions in the transformer")
        self.model = model

    @classmethod
    def from_bert(cls, bert: BertModel, region_width: int, **own: int) -> Self:
        """See `VisionLanguageEncoder.from_bert`."""
        from transformers import VisualBertConfig, VisualBertModel

        shape = {**bert_shape(bert.config), "pad_token_id": 0}
        config = VisualBertConfig(**shape, visual_embedding_dim=region_width)
        model = VisualBertModel(config, add_pooling_layer=False)
        model.load_state_dict(bert.state_dict(keep_vars=True), strict=False, assign=True)
        for table in ("token_type_embeddings", "position_embeddings"):
            given = getattr(model.embeddings, table).state_dict()
            getattr(model.embeddings, f"visual_{table}").load_state_dict(given)
        return cls(model)

    def forward(self, subwords: Tensor, mask: Tensor, image: VisualTokens) -> Tensor:
        """See `VisionLanguageEncoder.forward`."""
        hidden: Tensor = self.model(
            input_ids=subwords,
            attention_mask=mask,
            visual_embeds=image.values,
            visual_attention_mask=image.mask,
        ).last_hidden_state
        return hidden[:, : subwords.shape[1]]
