"""Real posts with real JPEGs pass through the published shapes."""

from __future__ import annotations

from pathlib import Path

import torch

from rpbert.data.readers import open_data
from rpbert.inference import Tagger
from rpbert.models import parse_options
from rpbert.models.saved import TaggingModel


def test_the_published_shapes_run_forward_backward_and_predict(shared: Path) -> None:
    """BERT-base and ResNet-152 with random weights, Table 2's tagger."""
    posts = list(open_data(shared / "real_pairs" / "twitter2015").read("train"))[:2]
    given = {
        "system": "rpbert",
        "encoder": {"shape": {}, "vocabulary": 500},
        "evidence": {"blocks": {"shape": "resnet-152"}},
        "tagger": {"lstm_hidden": 1024},
    }
    model = TaggingModel.create(parse_options(given), posts)
    model.system.train()
    batch = model.collator().with_gold(posts)
    assert batch.evidence[0].values.shape == (2, 3, 224, 224)
    output = model.system(batch)
    assert output.emissions.shape[:2] == batch.word_mask.shape
    output.losses.mean().backward()
    for name, parameter in model.system.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    (prediction,) = Tagger(model, "cpu").predict_batch(posts[:1])
    assert prediction.image == "used"
    assert 0 < (prediction.relation or 0) < 1
