"""Any language and any length: characters as words, right to left, many tags, long posts."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path

import pytest
import torch

from rpbert.data.readers import open_data
from rpbert.inference import Tagger
from rpbert.models.saved import TaggingModel
from rpbert.training.train import train
from rpbert.types import Post
from tests.conftest import NAMES, tiny
from tests.data.files import jsonl
from tests.families import TEXT_FAMILIES
from tests.training_runs import settings

CHINESE = {"LOC": ["北京", "上海市", "东京"], "PER": ["王小明", "李娜", "张伟"]}
SENTENCES = ["今天{0}和{1}都很好", "{1}昨天到了{0}!", "我在{0}看iPhone，{1}不在"]


def test_raw_chinese_is_tagged_by_characters_at_exact_offsets(tmp_path: Path) -> None:
    """Sentences without spaces with their entities by characters, learnt and tagged."""
    rows = []
    for number in range(18):
        names = {label: of[number % 3] for label, of in CHINESE.items()}
        text = SENTENCES[number // 3 % 3].format(*names.values())
        starts = {label: text.index(name) for label, name in names.items()}
        entities = [
            {"start": start, "end": start + len(names[label]), "label": label}
            for label, start in starts.items()
        ]
        rows.append({"id": str(number), "text": text, "entities": entities})
    for split in ("train", "dev"):
        jsonl(tmp_path / f"{split}.jsonl", rows)
    posts = list(open_data(tmp_path).read("train"))
    assert posts[0].words == tuple("今天北京和王小明都很好")
    assert posts[6].words == (*"我在北京看", "iPhone", *"，王小明不在")
    rates = {"head": 1e-2, "encoder": 2e-3, "projection": 2e-3, "visual": 0.0}
    run = settings(tmp_path, "bert", epochs=20, batch_size=6, tagging=rates)
    model = TaggingModel.load(train(run, tmp_path / "run").model)
    assert model.vocabulary.marks == "joined"
    found = Tagger(model, "cpu").predict_batch([str(row["text"]) for row in rows])
    for row, prediction in zip(rows, found, strict=True):
        spans = [{"start": e.start, "end": e.end, "label": e.label} for e in prediction.entities]
        assert sorted(spans, key=str) == sorted(row["entities"], key=str)


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
    names = [*(name.split()[0] for name in NAMES.values()), "שלום", "مرحبا", "#قدس"]
    words = [names[i // 7 % 7] if i % 7 == 0 else f"w{i}" for i in range(3000)]
    words[1500] = "x" * 1000  # longer than the encoder by itself
    text = "  ".join(words)
    model = tiny("bert", encoder=family)
    object.__setattr__(model.vocabulary, "marks", "joined")
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
