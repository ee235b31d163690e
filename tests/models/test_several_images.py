"""Posts with several images: each is read as if it were alone, and scaled by its own r."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import BertConfig, BertModel

from rpbert.analysis import explain
from rpbert.backends import system_for
from rpbert.data.readers import open_data
from rpbert.evidence.base import side_by_side
from rpbert.inference import Decoder, Tagger
from rpbert.models.rpbert import RpBert
from rpbert.models.saved import TaggingModel
from rpbert.synthetic.controlled import make
from rpbert.synthetic.demo import POSTS, settings_of
from rpbert.training.train import train
from rpbert.types import Post, PostImage, SourceScore, VisualTokens
from tests.conftest import EVIDENCE, NO_EVIDENCE, evidence, made_posts, picture, tiny
from tests.soak import Soak


def several(posts: list[Post]) -> list[Post]:
    """Three images, two without the first, one, and none."""
    first, second, third, *_ = posts
    seen = [evidence(50 + i) for i in range(3)]
    more = PostImage(**seen[0], relation=1.0), PostImage(**seen[1], relation=0.0)
    return [
        first.with_(images=(*first.images, *more)),
        second.with_(images=(PostImage(), PostImage(**seen[2]))),
        third,
        third.with_(id="none", **NO_EVIDENCE),
    ]


def system_of(model: TaggingModel) -> RpBert:
    assert isinstance(model.system, RpBert)
    return model.system


@pytest.mark.parametrize("kind", EVIDENCE)
def test_r_of_an_image_is_that_of_the_post_with_this_image_alone(kind: str) -> None:
    model = tiny("rpbert", evidence=EVIDENCE[kind])
    posts, collate = several(made_posts()), model.collator()
    with torch.no_grad():
        together = model.system(collate(posts))
        assert together.source_scores.shape == (4, 3)
        for i, post in enumerate(posts):
            alone = model.system(collate([post]))
            torch.testing.assert_close(
                together.emissions[i, : len(post.words)], alone.emissions[0], atol=1e-5, rtol=1e-5
            )
            each = [float(model.system(collate([p])).relation_score) for p in post.split_by_image()]
            each += [0.0] * (3 - len(each))
            torch.testing.assert_close(together.source_scores[i], torch.tensor(each))
            assert float(together.relation_score[i]) == pytest.approx(max(each))
    assert together.source_scores[1, 0] == 0  # it has no first image
    assert not together.source_scores[3].any()


def test_all_captions_of_a_post_follow_its_text_in_order() -> None:
    """RpBERT without a gate, BERT's input laid out by hand."""
    model = tiny("rpbert", evidence=EVIDENCE["captions"], gate="none")
    system, tokenizer = system_of(model), model.tokenizer
    assert tokenizer is not None
    posts = several(made_posts())
    emissions = system(model.collator()(posts)).emissions
    oracle = BertModel(BertConfig(**system.encoder.bert.config.to_dict()), add_pooling_layer=False)
    oracle.load_state_dict(system.encoder.bert.state_dict())
    oracle.eval()
    for i, post in enumerate(posts):
        text = tokenizer(" ".join(post.words))["input_ids"]
        shown = " ".join(s.caption for s in post.images if s.caption)
        caption = tokenizer(shown, add_special_tokens=False)["input_ids"]
        hidden = oracle(
            input_ids=torch.tensor([text + caption]),
            token_type_ids=torch.tensor([[0] * len(text) + [1] * len(caption)]),
            position_ids=torch.tensor([[*range(len(text)), *[len(text)] * len(caption)]]),
        ).last_hidden_state[0]
        words, start = [], 1
        for word in post.words:
            pieces = len(tokenizer(word, add_special_tokens=False)["input_ids"])
            words.append(hidden[start : start + pieces].mean(0))
            start += pieces
        expected = system.tag(model.collator()([post]), torch.stack(words)[None]).emissions
        assert expected is not None
        torch.testing.assert_close(emissions[i, : len(words)], expected[0], atol=1e-5, rtol=1e-5)


def test_each_image_is_scaled_by_its_own_r() -> None:
    system = system_of(model := tiny("rpbert"))
    post = several(made_posts())[0]
    batch = model.collator()([post])
    text, image = system.encoder.embed(batch.subwords), system.blocks(batch)
    score = torch.tensor([[0.9, 0.2, 0.5]])
    found = system.read(batch, text, image, score, system.encoder)
    scaled = image.values.clone()
    for number, r in enumerate(score[0].tolist()):
        scaled[0, number] *= r
    by_hand = system.read(batch, text, image._replace(values=scaled), None, system.encoder)
    torch.testing.assert_close(found.emissions, by_hand.emissions)
    assert found.relation_score is not None
    assert float(found.relation_score) == pytest.approx(0.9)


def test_tokens_of_several_sources_stand_side_by_side() -> None:
    mask = torch.tensor([[[True, True], [True, False]], [[False, False], [True, True]]])
    values = torch.arange(8.0).view(2, 2, 2, 1)
    boxes = values.expand(-1, -1, -1, 4)
    found = side_by_side(VisualTokens(values, mask, boxes))
    assert found.mask.tolist() == [[True, True, True, False], [True, True, False, False]]
    rows = [row[m].flatten().tolist() for row, m in zip(found.values, found.mask, strict=True)]
    assert rows == [[0, 1, 2], [6, 7]]
    assert torch.equal(found.boxes[..., :1], found.values)


def test_a_prediction_lists_the_images_that_were_used_and_one_image_is_as_ever() -> None:
    model = tiny("rpbert")
    posts = several(made_posts())
    posts[0] = posts[0].with_(images=(*posts[0].images, PostImage(b"no picture")))
    three, one_of_two, single, none = Tagger(model, "cpu").predict_batch(posts)
    assert [(s.evidence, s.image) for s in three.sources] == [("blocks", i) for i in range(3)]
    assert three.relation == max(s.relation for s in three.sources)
    assert three.to_dict()["sources"][1] == {
        "evidence": "blocks",
        "image": 1,
        "relation": three.sources[1].relation,
    }
    assert [p.image for p in (three, one_of_two, single, none)] == ["used", "used", "used", "none"]
    for prediction in (one_of_two, single, none):
        assert list(prediction.to_dict()) == ["id", "text", "entities", "relation", "image"]


def test_relations_that_are_known_are_those_of_their_image() -> None:
    model = tiny("rpbert")
    posts = several(made_posts())
    first = posts[0]
    answer = Decoder(model, model.collator()).decode(posts)[0]
    assert [s.image for s in answer.sources] == [0, 1, 2]
    scores = [s.relation for s in answer.sources]
    assert answer.known(first) == list(zip([0.0, 1.0, 0.0], scores, strict=True))
    assert first.relation == 1.0
    assert answer.sources[0] == SourceScore("blocks", 0, scores[0])


def test_several_images_from_python(tmp_path: Path) -> None:
    tagger = Tagger(tiny("rpbert"), "cpu")
    picture(1).save(tmp_path / "1.png")
    images: list[str | Image.Image] = [str(tmp_path / "1.png"), picture(2)]
    found = tagger.predict("RT Ada Lovelace !", image=images)
    assert len(found.sources) == 2
    alone = [tagger.predict("RT Ada Lovelace !", image=image).relation for image in images]
    assert [s.relation for s in found.sources] == pytest.approx(alone)
    captioned = Tagger(tiny("rpbert", evidence=EVIDENCE["captions"]), "cpu")
    assert len(captioned.predict("Ada", caption=["a red tower", "a map"]).sources) == 2


@pytest.mark.parametrize("system", ["umt", "visual_attention", "image_at_t0", "vilbert"])
def test_a_system_without_a_gate_sees_every_image(system: str) -> None:
    model = tiny(system)
    post = several(made_posts())[0]
    blind = post.with_(images=post.images[:2])
    emissions = [model.system(model.collator()([p])).emissions for p in (post, blind)]
    assert not torch.equal(*emissions)


def test_the_kernels_agree_and_an_explanation_covers_every_token() -> None:
    model = tiny("rpbert", evidence=EVIDENCE["captions"])
    posts = several(made_posts())
    batch = model.collator()(posts)
    with torch.inference_mode():
        quick = system_for(model.system, "kernels", "fp32", "cpu")(batch)
        plain = model.system(batch)
    real = batch.word_mask
    torch.testing.assert_close(quick.emissions[real], plain.emissions[real], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(quick.source_scores, plain.source_scores, atol=1e-4, rtol=1e-4)
    found = explain(Tagger(model, "cpu"), posts[0])
    assert found.attention is not None
    assert found.pieces is not None
    captions = [s.caption or "" for s in posts[0].images]
    assert "".join(found.pieces).replace("##", "") == "".join(captions).replace(" ", "")
    assert found.attention.shape == (len(posts[0].words), 1, len(found.pieces))


def test_task_1_learns_from_each_image_apart() -> None:
    post = several(made_posts())[0].with_(relation=0.0)
    apart = post.split_by_image()
    assert [p.relation for p in apart] == [0.0, 1.0, 0.0]
    assert [p.caption for p in apart] == [s.caption for s in post.images]
    assert [len(p.images) for p in apart] == [1] * 3
    assert len({p.id for p in apart}) == 3
    assert apart[0] == post.with_(images=post.images[:1])


@pytest.mark.slow("r of the one relevant image of three", "6,000 posts of 3 images")
def test_r_is_highest_for_the_image_that_adds(tmp_path: Path, soak: Soak) -> None:
    make(tmp_path / "data", posts=POSTS, relevant=1.0, images=3, image_size=80)
    result = train(settings_of("rpbert", tmp_path / "data", 0), tmp_path / "rpbert")
    tagger = Tagger.from_pretrained(result.model)
    posts = [p for p in open_data(tmp_path / "data").read("test") if p.relation == 1]
    right = 0
    for post, answer in zip(posts, tagger.predict_batch(posts), strict=True):
        surest = max(answer.sources, key=lambda source: source.relation)
        right += post.images[surest.image].relation == 1
    soak(f"{right} of {len(posts)} posts ({100 * right / len(posts):.1f} %)")
    assert right >= 0.9 * len(posts)
