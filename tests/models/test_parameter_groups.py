"""Which parameter learns in which group of Algorithm 1, for every system and kind of evidence."""

from __future__ import annotations

from typing import Any

import pytest

from rpbert.models import SYSTEMS
from tests.conftest import BY_EVIDENCE, BY_TEXT, EVIDENCE, named, tiny

BESIDE: list[tuple[str, dict[str, Any]]] = [
    (name, {"evidence": EVIDENCE[kind]})
    for name, entry in SYSTEMS.items()
    if name != "rpbert"
    for kind in ("captions", "stored-regions", "regions")
    if kind.removeprefix("stored-") in entry.evidence
]

GROUPS = {
    "": "head",
    "encoder": "encoder",
    "encoder.image_type": "projection",
    "encoder.regions": "projection",
    "encoder.model.embeddings.visual_projection": "projection",
    "encoder.model.encoder.visn_fc": "projection",
    "evidence": "visual",
    "evidence.projections": "projection",
    "projection": "projection",
    "classifier": "relation",
}
"""The group of each module; the longest name that a parameter's begins with counts."""


def expected_group(system: str, name: str) -> str:
    within = [module for module in GROUPS if f"{name}.".startswith(f"{module}.") or not module]
    group = GROUPS[max(within, key=len)]
    return "relation" if system == "lstm_cnn" and group == "head" else group


@pytest.mark.parametrize("variant", [*BY_EVIDENCE, *BY_TEXT, *BESIDE], ids=named)
def test_the_groups_are_those_of_algorithm_1(variant: tuple[str, dict[str, Any]]) -> None:
    system = tiny(variant[0], **variant[1]).system
    names = {parameter: name for name, parameter in system.named_parameters()}
    found = [
        (names[parameter], group)
        for group, parameters in system.parameter_groups().items()
        for parameter in parameters
    ]
    expected = [(name, expected_group(variant[0], name)) for name in names.values()]
    assert sorted(found) == sorted(expected)  # each in one group
    # Moments in saved checkpoints go by this order.
    order = list(dict.fromkeys(group for _, group in expected))
    assert found == sorted(expected, key=lambda pair: order.index(pair[1]))
