"""UNITER, VL-BERT and ViLBERT beside their authors' own code, with the same random weights.

    python -W ignore scripts/parity_regions.py GITDIR ...

GITDIR is a clone or bare repository of ChenRocks/UNITER, jackroos/VL-BERT or
facebookresearch/vilbert-multi-task; see scripts/parity.py. The weights of the authors' model go
through the names that `rpbert convert` knows, and one post with three regions through both.
"""

import os
import sys
import types
from typing import Any

import torch
from parity import VL_BERT, Commit, report
from torch import Tensor, nn

from rpbert.integrations.convert import PUBLISHED, translate
from rpbert.models.vision_language import with_area, with_sides
from rpbert.modules.attention import with_whole_image
from rpbert.types import VisualTokens

WIDTH, REGION, ROWS = 128, 2048, 60
SHAPE = {"hidden_size": WIDTH, "num_hidden_layers": 3, "num_attention_heads": 2}
SHAPE |= {"intermediate_size": 48, "max_position_embeddings": 40}
VL_BERT = {**VL_BERT, **SHAPE, "visual_size": WIDTH, "vocab_size": ROWS, "hidden_act": "gelu"}
VL_BERT |= {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
VL_BERT |= {"initializer_range": 0.02}
VILBERT = {"v_hidden_size": WIDTH, "v_num_attention_heads": 1, "v_intermediate_size": 64}
VILBERT |= {"bi_hidden_size": WIDTH, "bi_num_attention_heads": 1, "v_num_hidden_layers": 2}
VILBERT |= {"v_biattention_id": [0, 1], "t_biattention_id": [1, 2]}


class Bare(nn.Module):
    """The base class of ViLBERT's models, without what it downloads."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config


def code_of(folder: str, *mocks: str) -> Commit:
    """The newest commit, with PyTorch's LayerNorm for NVIDIA's; mocks are of what is not run."""
    code = Commit(folder, "HEAD")
    code.names += "|apex"
    code.files = {n for n in code.files if not any(f".{mock}" in n for mock in mocks)}
    code("apex.normalization.fused_layer_norm").FusedLayerNorm = nn.LayerNorm
    return code


def drawn(model: nn.Module) -> nn.Module:
    for name, parameter in model.eval().named_parameters():
        nn.init.normal_(parameter, float("orm" in name and name.endswith("weight")), 0.1)
    return model


def ours(system: str, weights: dict[str, Tensor], post: Any) -> dict[str, Tensor]:
    rules = PUBLISHED[system]
    found = translate(rules, weights, "the authors' model")
    encoder = rules.encoder.random(found.shape, found.region_width, rows=0).eval()
    encoder.load_state_dict(found.tensors)
    return {"states of the text": encoder(*post)}


def uniter(folder: str, text: Tensor, mask: Tensor, image: VisualTokens) -> None:
    code = code_of(folder)("model.model")
    theirs = drawn(code.UniterModel(code.UniterConfig(ROWS, **SHAPE), REGION))
    weights = {f"uniter.{name}": value for name, value in theirs.state_dict().items()}
    places, both = torch.arange(text.shape[1])[None], torch.cat([mask, image.mask], 1).long()
    seen = image.values, with_sides(image.boxes), both, torch.arange(both.shape[1])[None]
    states = theirs(text, places, *seen, output_all_encoded_layers=False)
    report("UNITER", ours("uniter", weights, (text, mask, image)), states)


def vl_bert(folder: str, text: Tensor, mask: Tensor, image: VisualTokens) -> None:
    code = code_of(folder, "common.lib")
    network = types.SimpleNamespace(IMAGE_FEAT_PRECOMPUTED=True, IMAGE_SEMANTIC=False)
    kind, config = code("common.fast_rcnn").FastRCNN, types.SimpleNamespace(NETWORK=network)
    regions = drawn(kind(config, final_dim=WIDTH))
    kind = code("common.visual_linguistic_bert").VisualLinguisticBert
    theirs, word = drawn(kind(types.SimpleNamespace(**VL_BERT))), drawn(nn.Embedding(1, WIDTH))
    weights = {f"vlbert.{name}": value for name, value in theirs.state_dict().items()}
    own = regions.state_dict().items()
    weights |= {f"image_feature_extractor.{name}": value for name, value in own}
    weights["object_linguistic_embeddings.weight"] = word.weight
    # Their whole image is a box of its own; here its feature is the mean of the regions.
    whole, size = with_whole_image(image), torch.tensor([[640.0, 480.0]])
    boxes = torch.cat([whole.boxes * size.repeat(1, 2), whole.values], 2)
    seen = regions(None, boxes, whole.mask, size)["obj_reps"]
    elements = torch.cat([seen, word.weight.expand(1, seen.shape[1], -1)], 2)
    beside = seen[:, :1].expand(-1, text.shape[1], -1)
    options = {"output_all_encoded_layers": False, "output_text_and_object_separately": True}
    states = theirs(text, 0 * text, beside, mask, elements, whole.mask, **options)[0]
    report("VL-BERT", ours("vl_bert", weights, (text, mask, image)), states)


def vilbert(folder: str, text: Tensor, mask: Tensor, image: VisualTokens) -> None:
    code = code_of(folder, "vilbert.utils")
    code("vilbert.utils").PreTrainedModel = Bare
    module = code("vilbert.vilbert")
    config = module.BertConfig(ROWS, **SHAPE, **VILBERT, v_feature_size=REGION)
    theirs = drawn(module.BertModel(config))
    weights = {f"bert.{name}": value for name, value in theirs.state_dict().items()}
    whole = with_whole_image(image)
    states = theirs(text, whole.values, with_area(whole.boxes))[0]
    report("ViLBERT", ours("vilbert", weights, (text, mask, image)), states)


KNOWN = {"model.model": uniter, "common.fast_rcnn": vl_bert, "vilbert.vilbert": vilbert}

if __name__ == "__main__":
    if not sys.argv[1:] or not all(map(os.path.isdir, sys.argv[1:])):
        sys.exit("parity_regions.py: expected clones of UNITER, VL-BERT or vilbert-multi-task")
    torch.manual_seed(0)
    text, corners = torch.randint(5, ROWS, (1, 7)), torch.rand(1, 3, 2, 2).sort(2).values
    seen = VisualTokens(torch.randn(1, 3, REGION), torch.ones(1, 3) > 0, corners.flatten(2))
    with torch.no_grad():
        for folder in sys.argv[1:]:
            head = Commit(folder, "HEAD")
            (name,) = (name for name in KNOWN if f"{head.top}.{name}" in head.files)
            sys.meta_path.remove(head)
            KNOWN[name](folder, text, text > 0, seen)
