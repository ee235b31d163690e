"""ViLBERT before the biLSTM-CRF (Table 5: biLSTM-CRF + ViLBERT).
Lu et al. 2019. ViLBERT: Pretraining Task-Agnostic Visiolinguistic Representations for
Vision-and-Language Tasks. In NeurIPS, 13-23.
Text goes through BERT, regions through a separate stream. Before each of the last C layers of
the text a co-attentional layer (section 2.2, Fig. 2b) lets both attend to each other at once:
    text'    = FFN(LayerNorm(text + W_t attention(Q text, K regions, V regions)))
    regions' = FFN(LayerNorm(regions + W_v attention(Q regions, K text, V text)))
and between two of those the regions have their own layer. A region with feature f and box
b = (x0, y0, x1, y1, area), as shares of the image, enters as LayerNorm(W^f f + W^b b); the first is
the whole image, its feature the mean of the others.
As in the authors' code (facebookresearch/vilbert-multi-task). Deviations: beside another BERT than
BERT-base the image's stream is as wide as the text's, and C is half of its layers, as published."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Self

from torch import Tensor, nn

from rpbert.errors import InputError
from rpbert.models.vision_language import BoxRegions, VisionLanguageEncoder
from rpbert.modules.attention import somewhere, with_whole_image
from rpbert.modules.encoder import attend_if_any, bert_layer
from rpbert.storage.published import bert_shape
from rpbert.types import VisualTokens

if TYPE_CHECKING:
    from transformers import BertConfig, BertModel


@dataclass(frozen=True)
class ImageStream:
    """Sizes of the image's stream (`v_…`) and of co-attention (`bi_…`, all heads), and C."""

    v_hidden_size: int = 1024
    v_num_attention_heads: int = 8
    v_intermediate_size: int = 1024
    bi_hidden_size: int = 1024
    bi_num_attention_heads: int = 8
    co_layers: int = 6

    @classmethod
    def beside(cls, text: BertConfig) -> Self:
        """The published sizes beside BERT-base, the text's own beside another BERT."""
        if (text.hidden_size, text.num_hidden_layers) == (768, 12):
            return cls()
        width, heads = text.hidden_size, text.num_attention_heads
        return cls(width, heads, width, width, heads, max(1, text.num_hidden_layers // 2))


class CoAttention(nn.Module):
    """A stream `own` attends to one of width `other` (Fig. 2b), then a feed-forward network."""

    def __init__(self, own: BertConfig, other: int, sizes: ImageStream) -> None:
        from transformers.models.bert.modeling_bert import BertIntermediate, BertOutput

        super().__init__()
        width, inner = own.hidden_size, sizes.bi_hidden_size
        self.num_attention_heads = sizes.bi_num_attention_heads
        self.query = nn.Linear(width, inner)
        self.key = nn.Linear(other, inner)
        self.value = nn.Linear(other, inner)
        self.dropout = nn.Dropout(own.attention_probs_dropout_prob)
        self.dense = nn.Linear(inner, width)
        self.dense_dropout = nn.Dropout(own.hidden_dropout_prob)
        self.norm = nn.LayerNorm(width, eps=own.layer_norm_eps)
        self.intermediate = BertIntermediate(own)
        self.output = BertOutput(own)

    def forward(self, stream: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """Shapes: (S, Q, own), (S, N, other), (S, N) → (S, Q, own)."""
        found = attend_if_any(self, stream, context, mask)
        seen = self.norm(stream + self.dense_dropout(self.dense(found)))
        output: Tensor = self.output(self.intermediate(seen), seen)
        return output


class VilbertEncoder(VisionLanguageEncoder):
    """ViLBERT's two transformers, of which the text's end is read."""

    own_fields = tuple(field.name for field in fields(ImageStream))

    def __init__(self, bert: BertModel, region_width: int, sizes: ImageStream) -> None:
        from transformers import BertConfig
        from transformers.models.bert.modeling_bert import BertLayer

        bert.config.update(asdict(sizes))
        super().__init__(bert.config, region_width)
        text, width, turns = bert.config, sizes.v_hidden_size, sizes.co_layers
        own = ("hidden_size", "num_attention_heads", "intermediate_size")
        stream = {field: getattr(sizes, f"v_{field}") for field in own}
        image = BertConfig(**{**bert_shape(text), **stream})
        self.sizes = sizes
        self.bert = bert
        self.regions = BoxRegions(region_width, image)
        self.image_layers = nn.ModuleList(BertLayer(image) for _ in range(turns - 1))
        self.text_looks = nn.ModuleList(CoAttention(text, width, sizes) for _ in range(turns))
        self.image_looks = nn.ModuleList(
            CoAttention(image, text.hidden_size, sizes) for _ in range(turns - 1)
        )

    @classmethod
    def from_bert(cls, bert: BertModel, region_width: int, **own: int) -> Self:
        """See `VisionLanguageEncoder.from_bert`."""
        sizes = replace(ImageStream.beside(bert.config), **own)
        layers, key = bert.config.num_hidden_layers, "model.encoder.shape"
        if not 1 <= sizes.co_layers <= layers:
            found = f"co_layers = {sizes.co_layers}"
            raise InputError(key, found, f"1 to {layers}, the layers of the text")
        if sizes.bi_hidden_size % sizes.bi_num_attention_heads:
            found = f"{sizes.bi_num_attention_heads} heads in {sizes.bi_hidden_size}"
            raise InputError(key, found, "bi_hidden_size a multiple of bi_num_attention_heads")
        return cls(bert, region_width, sizes)

    def forward(self, subwords: Tensor, mask: Tensor, image: VisualTokens) -> Tensor:
        """See `VisionLanguageEncoder.forward`."""
        image = with_whole_image(image)
        text: Tensor = self.bert.embeddings(subwords)
        regions: Tensor = self.regions(image)
        seen = somewhere(image.mask)
        turns = self.sizes.co_layers
        first = len(self.bert.encoder.layer) - turns
        for layer in self.bert.encoder.layer[:first]:
            text = bert_layer(layer, text, text, mask)
        for turn, layer in enumerate(self.bert.encoder.layer[first:]):
            looked = self.text_looks[turn](text, regions, image.mask)
            if turn < turns - 1:  # after the last turn nothing attends to the regions
                regions = self.image_looks[turn](regions, text, mask)
                regions = bert_layer(self.image_layers[turn], regions, regions, seen)
            text = bert_layer(layer, looked, looked, mask)
        return text
