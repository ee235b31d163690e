"""The tables as data: whole, and with the paper's own figures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rpbert.config.run import TrainingSettings
from rpbert.errors import InputError
from rpbert.models import SYSTEMS, parse_options
from rpbert.reproduce.rows import FUDAN, ROWS, SNAP, TABLES, TRC, paper_set
from rpbert.reproduce.settings import load_shared, run_settings
from tests.conftest import made_posts

# The first cell of each row in the paper, without its markup and signs.
PRINTED = {
    "bilstm_crf": "biLSTMCRF",
    "image_at_t0": "biLSTMCRFwimageatt0",
    "adaptive_coattention": "Zhangetal2018",
    "visual_attention": "Luetal2018",
    "gated_fusion": "Arshadetal2019",
    "umt": "Yuetal2020",
    "bert": "biLSTMCRFBERT",
    "vl_bert": "biLSTMCRFVLBERT",
    "vilbert": "biLSTMCRFViLBERT",
    "uniter": "biLSTMCRFUNITER",
    "rpbert-straight_through": "biLSTMCRFRpBERTGh1",
    "rpbert-gumbel": "biLSTMCRFRpBERTGh2",
    "rpbert-soft": "biLSTMCRFRpBERTGs",
    "rpbert-large": "biLSTMCRFRpBERTLargeGs",
    "rpbert-none": "woRp",
}


def cells(line: str) -> tuple[str, list[str]]:
    """The first cell of a line of a table without signs, and the last number of each other one."""
    plain = re.sub(r"<[^>]+>", "", line)
    first, *others = plain.split("\t")
    return re.sub(r"[^\w]", "", first), [re.sub(r"^\(.*?\)", "", cell).strip() for cell in others]


def test_every_row_and_system_is_somewhere() -> None:
    used = {name for table in TABLES.values() for name in table.rows}
    assert used == set(ROWS)
    assert set(SYSTEMS) <= {row.system for row in ROWS.values()}
    for table in TABLES.values():
        assert len(set(table.rows)) == len(table.rows)
        assert set(table.paper) <= set(table.rows)
        for figures in table.paper.values():
            assert all(len(printed) == len(table.measures) for printed in figures.values())


@pytest.mark.parametrize("name", ["table4", "table5", "table6"])
def test_the_figures_are_the_papers(name: str, shared: Path) -> None:
    """Each stands in the line of its row and in the columns of its data set."""
    paper = (shared.parent / "paper" / "rpbert.md").read_text("utf-8")
    above, _, _ = paper.partition(f"\nTable {name[-1]}: ")
    printed: dict[str, list[str]] = {}
    for line in above.rpartition("\nTable ")[2].splitlines():  # since the table before
        first, others = cells(line)
        printed.setdefault(first, others)
    table = TABLES[name]
    width = len(table.measures)
    for row, sets in table.paper.items():
        found = printed[PRINTED[row]]
        for data, figures in sets.items():
            part = found[:width] if data == FUDAN else found[width:]
            assert part == [f"{figure:.1f}" for figure in figures], (row, data)
        assert sum(re.fullmatch(r"[\d.]+", cell) is not None for cell in found) == width * len(sets)


def test_a_folder_is_known_by_its_name() -> None:
    names = {"data/twitter2015": FUDAN, "Snap-Res": SNAP, "twitter2017": SNAP, "trc": TRC}
    for name, known in names.items():
        assert paper_set(Path(name)) == known
    assert paper_set(Path("made")) is None


def test_a_row_is_trained_as_its_authors_did_and_else_by_table_2() -> None:
    shared, table_2 = load_shared(None), TrainingSettings()
    for row in ROWS.values():
        chosen = run_settings(row, shared, {"path": "posts"}, made_posts(), {})
        options, training = parse_options(chosen.model), chosen.training
        if row.system == "umt":  # run_mtmner_crf.py of its authors
            assert options.encoder is not None
            assert options.encoder.pretrained == "bert-base-cased"
            assert (training.epochs, training.batch_size, training.warmup) == (24, 32, 0.1)
            assert training.tagging.encoder == training.tagging.head == 5e-5
            assert training.tagging.visual == 0
        else:
            assert training == table_2, row.name


def test_a_file_of_settings_may_train_a_system_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "shared.yaml"
    given = "training: {epochs: 3}\nsystems: {bilstm_crf: {training: {batch_size: 5}}}\n"
    model = "model: {encoder: {pretrained: bert}, evidence: {captions: {}}}\n"
    path.write_text(f"preset: authors-2022\n{model}{given}")
    chosen = run_settings(ROWS["bilstm_crf"], load_shared(path), {"path": "posts"}, [], {"seed": 7})
    training = chosen.training
    assert (training.epochs, training.batch_size, training.seed) == (3, 5, 7)
    gate = run_settings(ROWS["rpbert-soft"], load_shared(path), {"path": "posts"}, made_posts(), {})
    assert gate.preset == chosen.preset == "authors-2022"
    assert gate.model["propagation"]["acts"] == "before_norm"


@pytest.mark.parametrize(
    "systems",
    ["{umt: {training: 3}}", "{umt: {training: {epochz: 3}}}", "{rpbert: {gate: {a: 1}}}"],
)
def test_wrong_settings_of_a_system_are_one_line(systems: str, tmp_path: Path) -> None:
    path = tmp_path / "shared.yaml"
    encoder = "model: {encoder: {shape: {}}, evidence: {captions: {}}}\n"
    path.write_text(f"{encoder}systems: {systems}\n")
    with pytest.raises(InputError, match=r"umt|rpbert"):
        for row in ("umt", "rpbert-soft"):
            run_settings(ROWS[row], load_shared(path), {"path": "posts"}, made_posts(), {})
