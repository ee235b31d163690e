"""Exported models against the systems they were made of, and against a client without rpbert."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rpbert.backends import device_for, engines, resolved, system_for
from rpbert.backends.engines import export
from rpbert.backends.graphs import graphs
from rpbert.config.run import Backend
from rpbert.data.readers import open_data
from rpbert.errors import InputError
from rpbert.evaluation.scoring import score_tags
from rpbert.inference import Tagger
from rpbert.models.saved import TaggingModel
from rpbert.models.tagger import TaggerOutput
from rpbert.types import Post
from tests.conftest import COMBINED, VARIANTS, Variant, made_posts, named, picture, tiny
from tests.test_cli import run
from tests.training_runs import data_folder

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")
ENGINES: tuple[Backend, ...] = ("onnx", "openvino")
SHOWN: Variant = ("rpbert", {"evidence": COMBINED})
"""With two graphs, captions and regions; every other variant takes minutes."""


def some_posts() -> list[Post]:
    """With an image, without, and with two, empty, and longer than the encoder."""
    posts = [*made_posts(), Post.from_words("empty", ())]
    posts[3] = posts[3].with_(images=(*posts[3].images, *posts[4].images))
    posts[2] = posts[2].with_(image=None)
    return [*posts, Post.from_words("long", ("a", "very", "long", "post") * 30)]


def answers(output: TaggerOutput, mask: Tensor) -> dict[str, Tensor]:
    """What there is; of emissions those of the real words."""
    parts = {"r": output.relation_score, "sources": output.source_scores}
    if output.emissions is not None:
        parts["emissions"] = output.emissions[mask]
    return {name: part for name, part in parts.items() if part is not None}


def check(variant: Variant, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, posts = tiny(variant[0], **variant[1]), some_posts()
    made = list(graphs(model))  # once for both
    monkeypatch.setattr(engines, "graphs", lambda _: iter(made))
    for engine in ENGINES:
        export(model, engine, folder / engine, posts[:3])
        tagger = Tagger.from_pretrained(folder / engine, backend=engine)
        for given in (posts, posts[::-1][:2], *([post] for post in posts[:4])):
            batch = model.collator()(given)
            with torch.inference_mode():
                expected = answers(model.system(batch), batch.word_mask)
                found = answers(tagger.decoder.system(batch), batch.word_mask)
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_an_engine_computes_what_the_system_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(SHOWN, tmp_path, monkeypatch)


@pytest.mark.slow("every system, image network and text encoder exported", f"{len(VARIANTS)}")
@pytest.mark.parametrize("variant", VARIANTS, ids=named)
def test_every_variant_by_every_engine(
    variant: Variant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(variant, tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[TaggingModel, Path]:
    folder = tmp_path_factory.mktemp("exported") / "model"
    model = tiny("bert")
    export(model, "onnx", folder, made_posts())
    return model, folder


def test_a_prediction_is_that_of_the_model(exported: tuple[TaggingModel, Path]) -> None:
    model, folder = exported
    tagger, posts = Tagger.from_pretrained(folder, backend="onnx"), made_posts()
    pairs = zip(tagger.predict_batch(posts, 3), Tagger(model).predict_batch(posts), strict=True)
    for found, expected in pairs:
        spans = [(e.label, e.start, e.end) for e in expected.entities]
        assert [(e.label, e.start, e.end) for e in found.entities] == spans
        scores = [e.score for e in expected.entities]
        assert [e.score for e in found.entities] == pytest.approx(scores, abs=1e-4)


def refused(*said: str, **given: Any) -> None:
    with pytest.raises(InputError) as refusal:
        Tagger.from_pretrained(**given)
    assert all(word in str(refusal.value) for word in said)


def test_a_folder_is_for_one_backend(exported: tuple[TaggingModel, Path], tmp_path: Path) -> None:
    model, folder = exported
    refused("onnx", name=folder)
    refused("rpbert export", "openvino", name=folder, backend="openvino")
    refused("precision", name=folder, backend="onnx", precision="bf16")
    model.save(tmp_path / "plain")
    refused("rpbert export", "onnx", name=tmp_path / "plain", backend="onnx")
    with pytest.raises(InputError, match="labels"):
        export(tiny("rpbert", gate="oracle"), "onnx", tmp_path / "oracle", made_posts())
    assert not (tmp_path / "oracle").exists()
    with pytest.raises(InputError, match="weights would be lost"):
        export(model, "onnx", tmp_path / "plain", made_posts())
    assert TaggingModel.load(tmp_path / "plain").graphs is None


def test_the_precision_of_the_plain_system() -> None:
    model = tiny("rpbert")
    assert Tagger(model, "cpu").decoder.system is model.system  # torch in float32
    assert resolved("fp32", "cpu") == "fp32"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert resolved("auto", "cpu") == ("bf16" if native else "fp32")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        assert device_for("openvino") == device_for("onnx") == "cpu"  # a GPU by its name alone
    with pytest.raises(InputError, match="fp16"):
        system_for(model, "torch", "fp16", "cpu")  # type: ignore[arg-type]
    batch = model.collator()(made_posts())
    with torch.inference_mode():
        half, plain = system_for(model, "torch", "bf16", "cpu")(batch), model.system(batch)
    assert half.emissions.dtype == torch.float32
    torch.testing.assert_close(half.emissions, plain.emissions, atol=0.05, rtol=0.05)


def test_the_client_of_the_docs_finds_what_the_tagger_finds(tmp_path: Path) -> None:
    page = Path("docs/export.md").read_text("utf-8")
    (tmp_path / "client.py").write_text(page.split("```python\n")[1].split("```")[0], "utf-8")
    model = tiny("rpbert", tagger={"lstm_hidden": 16})
    export(model, "onnx", tmp_path / "model", made_posts())
    post = made_posts()[1]
    picture(1, 32).save(tmp_path / "1.png")  # of the size it is read in: no resizing to compare
    command = [sys.executable, tmp_path / "client.py", tmp_path / "model", tmp_path / "1.png"]
    found = json.loads(subprocess.check_output([*map(str, command), *post.words], text=True))
    tagger = Tagger(model)
    tagger.decoder.constraint = None  # the client has the CRF alone
    expected = tagger.decoder.decode([post.with_(image=tmp_path / "1.png")])[0]
    assert found["tags"] == list(expected.tags)
    assert found["relation"] == pytest.approx(expected.relation, abs=1e-4)


def readers(node: Any) -> list[str]:
    """Names of what reads a node of OpenVINO, but for copies and the sizes of it."""
    found = [read.get_node() for read in node.output(0).get_target_inputs()]
    return [n.get_friendly_name() for n in found if n.get_type_name() != "ShapeOf"]


def test_int8_is_of_image_networks_and_the_text_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    openvino = importlib.import_module("openvino")
    pytest.importorskip("nncf")
    model, data = tiny("rpbert"), data_folder(tmp_path / "data")
    model.save(tmp_path / "model")
    given = ["export", tmp_path / "model", "--to", "openvino", "--output", tmp_path / "int8"]
    given += ["--precision", "int8"]
    assert run(capsys, *given)[0] == 2  # nothing to take scales from
    code, out, _ = run(capsys, *given, "--data", data, "--json")
    found, posts = json.loads(out), list(open_data(data).read("test"))
    tagger = Tagger.from_pretrained(tmp_path / "int8", backend="openvino")
    gold = [post.tags or () for post in posts]
    for f1, each in zip(found["f1"], (Tagger(model, "cpu"), tagger), strict=True):
        tags = [answer.tags for answer in each.decoder.decode(posts)]
        assert f1 == pytest.approx(score_tags(gold, tags).strict.f1)
    # Not that of float32, and near to it.
    assert code == 0
    assert 1e-6 < found["differences"]["emissions"] < 0.1
    for name, inside in (("blocks", "kind."), ("posts", "system.encoder.")):
        nodes = openvino.Core().read_model(tmp_path / f"int8/{name}.xml").get_ops()
        rounded = {r for n in nodes if n.get_type_name() == "FakeQuantize" for r in readers(n)}
        assert rounded
        assert all(reader.startswith(inside) for reader in rounded)
