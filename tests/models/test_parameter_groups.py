"""What learns at the encoder's rate and what at that of W^v, by what was loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from rpbert.config.reading import write_yaml
from rpbert.models.rpbert import PropagationSettings
from tests.conftest import TINY, made_posts, tiny
from tests.families import published
from tests.test_cli import run
from tests.training_runs import data_folder, settings

IN_PART = {
    "encoder.model.embeddings.visual_token_type_embeddings.weight",  # copies of the text's
    "encoder.model.embeddings.visual_position_embeddings.weight",
}


@pytest.mark.parametrize("system", [name for name, made in TINY.items() if "encoder" in made])
def test_what_published_weights_lack_learns_as_the_projection(system: str) -> None:
    """Of the encoder only what equals a published tensor is in its group."""
    tensors = load_file(published("bert") / "model.safetensors").values()
    known = {(v.shape, v.numpy().tobytes()) for v in tensors if v.std() > 0}
    found = tiny(system, encoder="bert").system
    names = {parameter: name for name, parameter in found.named_parameters()}
    for group, parameters in found.parameter_groups().items():
        for parameter in parameters:
            value, name = parameter.detach(), names[parameter]
            if name.startswith("encoder.") and value.std() > 0 and name not in IN_PART:
                loaded = (value.shape, value.numpy().tobytes()) in known
                assert group == ("encoder" if loaded else "projection"), name


def test_a_dry_run_names_every_parameter_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = settings(data_folder(tmp_path / "data"))
    write_yaml(chosen, tmp_path / "run.yaml")
    frozen = "model.encoder.frozen_layers=1"
    command = ("train", tmp_path / "run.yaml", frozen, "--dry-run")
    code, shown, _ = run(capsys, *command)
    groups = json.loads(run(capsys, *command, "--json")[1])
    names = [name for found in groups for name in (*found["parameters"], *found["frozen"])]
    assert len(names) == len(set(names))
    tasks = {found["group"]: set(found["rates"]) for found in groups}
    both = {"relation", "tagging"}
    alone = {"relation": {"relation"}, "head": {"tagging"}}
    assert tasks == {**alone, "encoder": both, "projection": both, "visual": both}
    still = "encoder.bert.embeddings.word_embeddings.weight"
    assert [still in found["frozen"] for found in groups if found["group"] == "encoder"] == [True]
    lines = shown.splitlines()
    assert (code, len(lines)) == (0, len(groups) + len(names))
    assert f"  {still} (frozen)" in lines


def test_what_a_system_says_of_itself() -> None:
    model = tiny("bilstm_crf")
    assert model.system.initial_weights == "random"
    assert not model.system.has_relation
    assert not model.system.reads_relation
    losses = model.system(model.collator().with_gold(made_posts())).losses
    assert (losses > 0).all()  # -log of a probability
    blind = tiny("rpbert", encoder="bert").system
    assert blind.initial_weights == str(published("bert"))
    blocks = blind.get_submodule("evidence.network")
    for groups, frozen in ((["encoder"], False), (["visual"], True)):
        blind.freeze(groups)
        assert blocks.frozen == frozen


def test_by_default_r_acts_wholly_from_the_start() -> None:
    chosen = PropagationSettings()
    assert (chosen.acts, chosen.floor, chosen.gradient_from) == ("after_norm", 0, 0)


def test_an_encoder_of_one_segment_learns_what_an_image_is() -> None:
    system = tiny("rpbert", encoder="roberta").system
    groups = system.parameter_groups()
    (vector,) = system.get_submodule("encoder.image_type").parameters()
    assert any(vector is parameter for parameter in groups["projection"])
