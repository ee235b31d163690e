"""Any language and any length: characters as words, right to left, many tags, long posts."""

from __future__ import annotations

import json
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import torch

from rpbert.config.run import RunSettings
from rpbert.data.readers import open_data
from rpbert.inference import Tagger
from rpbert.models.saved import TaggingModel
from rpbert.training.train import train
from rpbert.types import Post
from tests.conftest import ENCODER, NAMES, TAGGER, tiny
from tests.families import TEXT_FAMILIES

CHINESE = {"LOC": ["北京", "上海市", "东京"], "PER": ["王小明", "李娜", "张伟"]}
SENTENCES = ["今天{0}和{1}都很好", "{1}昨天到了{0}!", "我在{0}看iPhone，{1}不在"]


def chinese_rows() -> list[dict[str, Any]]:
    """Sentences without spaces, their entities by characters."""
    rows = []
    for number in range(18):
        names = {label: of[number % 3] for label, of in CHINESE.items()}
        text = SENTENCES[number // 3 % 3].format(*names.values())
        entities = [
            {"start": text.index(name), "end": text.index(name) + len(name), "label": label}
            for label, name in names.items()
        ]
        rows.append({"id": str(number), "text": text, "entities": entities})
    return rows


@pytest.fixture(scope="module")
def chinese(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TaggingModel]:
    """A data folder of raw texts and a model that was trained on it."""
    folder = tmp_path_factory.mktemp("chinese")
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in chinese_rows())
    for split in ("train", "dev", "test"):
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    rates = {"head": 1e-2, "encoder": 2e-3, "projection": 2e-3, "visual": 0.0}
    settings = RunSettings.model_validate(
        {
            "preset": "tuned",
            "model": {"system": "bert", "tagger": TAGGER, "encoder": ENCODER},
            "data": {"path": folder},
            "training": {"epochs": 20, "batch_size": 6, "tagging": rates, "device": "cpu"},
        }
    )
    return folder, TaggingModel.load(train(settings, folder / "run").model)


def test_raw_chinese_is_tagged_by_characters_at_exact_offsets(
    chinese: tuple[Path, TaggingModel],
) -> None:
    folder, model = chinese
    posts = list(open_data(folder).read("train"))
    assert posts[0].words == tuple("今天北京和王小明都很好")
    assert posts[6].words == (*"我在北京看", "iPhone", *"，王小明不在")
    assert model.vocabulary.marks == "joined"
    rows = chinese_rows()
    found = Tagger(model, "cpu").predict_batch([str(row["text"]) for row in rows])
    for row, prediction in zip(rows, found, strict=True):
        spans = [{"start": e.start, "end": e.end, "label": e.label} for e in prediction.entities]
        assert sorted(spans, key=str) == sorted(row["entities"], key=str)


def test_text_from_right_to_left_keeps_its_offsets() -> None:
    model = tiny("bert")
    with torch.no_grad():
        model.system.get_parameter("tagger.to_tags.bias")[1:] += 3.0  # all words are names
    text = "\u202bשלום עולם 2024\u202c مرحبا بالعالم #قدس"
    (prediction,) = Tagger(model, "cpu").predict_batch([text])
    assert prediction.entities
    covered = "".join(entity.text for entity in prediction.entities)
    assert "עולם" in covered
    assert "مرحبا" in covered
    assert all(text[e.start : e.end] == e.text for e in prediction.entities)


def test_a_tag_set_of_any_size_is_read_from_the_data() -> None:
    labels = [f"TYPE-{number}/été" for number in range(70)]
    posts = [
        Post.from_words(str(i), ("see", f"name{i}", "now"), tags=("O", f"B-{label}", "O"))
        for i, label in enumerate(labels)
    ]
    model = tiny("bilstm_crf", posts)
    assert len(model.vocabulary.tags) == 1 + 2 * 70
    assert torch.isfinite(model.system(model.collator().with_gold(posts)).losses).all()
    row = model.vocabulary.tag_rows["B-" + labels[42]]
    with torch.no_grad():
        model.system.get_parameter("tagger.to_tags.bias")[row] = 50
    (prediction,) = Tagger(model, "cpu").predict_batch(["see it"])
    assert [entity.label for entity in prediction.entities] == [labels[42]] * 2


@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_a_post_of_3000_words_keeps_every_word_and_offset(family: str) -> None:
    names = list(NAMES.values())
    words = [names[i % 4].split()[0] if i % 7 == 0 else f"w{i}" for i in range(3000)]
    words[1500] = "x" * 1000  # longer than the encoder by itself
    text = "  ".join(words)
    model = tiny("bert", encoder=family)
    with torch.no_grad():
        model.system.get_parameter("tagger.to_tags.bias")[1] = 50.0  # every word opens a name
    tagger = Tagger(model, "cpu")
    batch = tagger.decoder.collator([tagger.as_post(text)])
    counted = batch.word_of_subword[batch.word_of_subword >= 0]
    assert sorted(set(counted.tolist())) == list(range(3000))
    assert batch.subwords.shape[1] <= 64
    # No sub-word is lost and none counts twice, however the windows lie.
    alone = tagger.decoder.collator.lengths([Post.from_words("", (word,)) for word in words])
    assert len(counted) == sum(alone)
    (prediction,) = tagger.predict_batch([text])
    assert [entity.text for entity in prediction.entities] == words
    starts = accumulate((len(word) + 2 for word in words[:-1]), initial=0)
    assert [entity.start for entity in prediction.entities] == list(starts)
