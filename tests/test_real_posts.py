"""Real posts with real JPEGs: the published shapes run, a small model learns them by heart."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from rpbert.data.readers import open_data
from rpbert.evaluation.evaluate import evaluate_posts
from rpbert.inference import Tagger
from rpbert.models import parse_options
from rpbert.models.saved import TaggingModel
from rpbert.training.train import train
from rpbert.types import Post
from tests.data.files import jsonl
from tests.families import SHAPE
from tests.training_runs import settings


def real_posts(shared: Path) -> list[Post]:
    """The 15 posts of either set that are here with their images."""
    years = ("twitter2015", "twitter2017")
    sources = [open_data(shared / "real_pairs" / year) for year in years]
    return [post for source in sources for split in source.splits for post in source.read(split)]


def test_the_published_shapes_run_forward_backward_and_predict(shared: Path) -> None:
    """BERT-base and ResNet-152 with random weights, Table 2's tagger."""
    posts = real_posts(shared)[4:6]
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


def test_a_small_model_learns_the_training_posts_by_heart(shared: Path, tmp_path: Path) -> None:
    """Six posts to F1 1.0, through the command's own path from files to a model."""
    posts = real_posts(shared)[15:21]
    rows = [
        {"id": post.id, "tokens": post.words, "tags": post.tags, "image": f"{post.id}.jpg"}
        for post in posts
    ]
    for post in posts:
        shutil.copy(str(post.image), tmp_path / f"{post.id}.jpg")
    for split in ("train", "dev"):
        jsonl(tmp_path / f"{split}.jsonl", rows)
    shape = {**SHAPE, "hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": 128}
    stages = {"depths": [1, 1, 1], "hidden_sizes": [8, 16, 32], "embedding_size": 8}
    model = {
        "system": "rpbert",
        "encoder": {"shape": shape, "vocabulary": 500},
        "evidence": {"blocks": {"shape": {"layer_type": "basic", **stages}, "image_size": 64}},
        "tagger": {"word_dimension": 32, "lstm_hidden": 32, "dropout": 0.0},
    }
    run = settings(tmp_path, epochs=30, batch_size=2, decay="constant")
    result = train(run.model_copy(update={"model": model}), tmp_path / "run")
    evaluation = evaluate_posts(Tagger.from_pretrained(result.model), posts)
    assert evaluation.tags is not None
    assert evaluation.tags.strict.f1 == 1.0
