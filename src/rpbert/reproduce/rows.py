"""The paper's tables as data: which rows they have, and the figures it prints for them.

One more, `gates`, is not the paper's: what its gate gives on posts with relation labels,
between text alone and a gate that knows.

Figures are F1 in %, those of Fig. 3 mean attention; from Sun et al. 2021, Tables 3 to 6 and the
text beside Fig. 3. A row without a figure is a system that the paper names and does not score.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

FUDAN, SNAP, TRC = "Fudan Univ.", "Snap Res.", "TRC"
POSTS: Mapping[str, tuple[int, int]] = {FUDAN: (4000, 3257), SNAP: (4817, 1033), TRC: (3576, 895)}
"""Training and test posts in the paper ("Datasets"; TRC is 4,471 posts, 8 : 2)."""
Measure: TypeAlias = Literal["f1", "adds", "does_not", "relation", "low", "high"]
Figures: TypeAlias = Mapping[str, Mapping[str, tuple[float, ...]]]

TITLES: Mapping[Measure, str] = {
    "f1": "F1",
    "adds": "F1, image adds",
    "does_not": "F1, image doesn't add",
    "relation": "F1 of image adds",
    "low": "S_TV, r < 0.5",
    "high": "S_TV, r > 0.5",
}


@dataclass(frozen=True)
class Row:
    """A system as one row trains it.

    Attributes:
        name: names the row on the command line and its folder.
        label: as the paper calls it, where it has it.
        options: settings of the system beside those that all rows share.
        large: takes the large encoder in place of the usual one.
        relation_source: what Task#1 learns from, empty for what the data have.
    """

    name: str
    label: str
    system: str
    options: Mapping[str, Any] = field(default_factory=dict)
    large: bool = False
    relation_source: str = ""


def _rpbert(gate: str, label: str, *, large: bool = False) -> Row:
    name = f"rpbert-{'large' if large else gate}"
    return Row(name, f"biLSTM-CRF + {label}", "rpbert", {"gate": gate}, large)


SOFT = _rpbert("soft", "RpBERT, G_s")
OPEN = _rpbert("none", "RpBERT w/o Rp")
ORACLE = _rpbert("oracle", "RpBERT, r is the label")
MISMATCH = replace(
    SOFT,
    name="rpbert-mismatch",
    label=f"{SOFT.label}, of exchanged images",
    relation_source="mismatch",
)
ROWS: Mapping[str, Row] = {
    row.name: row
    for row in (
        Row("bilstm_crf", "biLSTM-CRF", "bilstm_crf"),
        Row("image_at_t0", "biLSTM-CRF w/ image at t = 0", "image_at_t0"),
        Row("modality_attention", "Moon et al. (2018)", "modality_attention"),
        Row("adaptive_coattention", "Zhang et al. (2018)", "adaptive_coattention"),
        Row("visual_attention", "Lu et al. (2018)", "visual_attention"),
        Row("gated_fusion", "Arshad et al. (2019)", "gated_fusion"),
        Row("bert", "biLSTM-CRF + BERT", "bert"),
        Row("umt", "Yu et al. (2020)", "umt"),
        Row("visualbert", "biLSTM-CRF + VisualBERT", "visualbert"),
        Row("unicoder_vl", "biLSTM-CRF + Unicoder-VL", "unicoder_vl"),
        Row("lxmert", "biLSTM-CRF + LXMERT", "lxmert"),
        Row("vl_bert", "biLSTM-CRF + VL-BERT", "vl_bert"),
        Row("vilbert", "biLSTM-CRF + ViLBERT", "vilbert"),
        Row("uniter", "biLSTM-CRF + UNITER", "uniter"),
        _rpbert("straight_through", "RpBERT, G_h1"),
        _rpbert("gumbel", "RpBERT, G_h2"),
        SOFT,
        OPEN,
        MISMATCH,
        ORACLE,
        _rpbert("soft", "RpBERT-Large, G_s", large=True),
        Row("lstm_cnn", "Lu et al. (2018), relation only", "lstm_cnn"),
    )
}


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        rows: names of rows, top to bottom.
        measures: what stands in its columns.
        paper: by row and data set of the paper, a figure for each measure.
    """

    name: str
    title: str
    rows: tuple[str, ...]
    measures: tuple[Measure, ...]
    paper: Figures


BEYOND = {OPEN.name, MISMATCH.name, ORACLE.name, "rpbert-large", "lstm_cnn"}
"""Rows that do not stand in Table 4."""
TABLES: Mapping[str, Table] = {
    table.name: table
    for table in (
        Table(
            "table3",
            "Table 3: text-image relation classification",
            ("lstm_cnn", SOFT.name),
            ("relation",),
            {"lstm_cnn": {TRC: (81.0,)}, SOFT.name: {TRC: (88.1,)}},
        ),
        Table(
            "table4",
            "Table 4: what visual clues add, every system",
            tuple(name for name in ROWS if name not in BEYOND),
            ("f1",),
            {
                "bilstm_crf": {FUDAN: (69.9,), SNAP: (80.1,)},
                "image_at_t0": {FUDAN: (70.0,), SNAP: (80.6,)},
                "adaptive_coattention": {FUDAN: (70.7,)},
                "visual_attention": {SNAP: (80.7,)},
                "bert": {FUDAN: (71.6,), SNAP: (85.1,)},
                "rpbert-straight_through": {FUDAN: (73.8,), SNAP: (86.4,)},
                "rpbert-gumbel": {FUDAN: (74.2,), SNAP: (86.6,)},
                SOFT.name: {FUDAN: (74.4,), SNAP: (87.4,)},
            },
        ),
        Table(
            "table5",
            "Table 5: other multimodal systems, their word outputs before the tagger",
            (
                "gated_fusion",
                "umt",
                "visualbert",
                "unicoder_vl",
                "lxmert",
                "vl_bert",
                "vilbert",
                "uniter",
                SOFT.name,
                "rpbert-large",
            ),
            ("f1",),
            {
                "gated_fusion": {FUDAN: (72.9,)},
                "umt": {FUDAN: (73.4,), SNAP: (85.3,)},
                "vl_bert": {FUDAN: (72.4,), SNAP: (86.0,)},
                "vilbert": {FUDAN: (72.0,), SNAP: (85.7,)},
                "uniter": {FUDAN: (72.7,), SNAP: (86.1,)},
                SOFT.name: {FUDAN: (74.4,), SNAP: (87.4,)},
                "rpbert-large": {FUDAN: (74.9,), SNAP: (87.8,)},
            },
        ),
        Table(
            "table6",
            "Table 6: with and without relation propagation",
            (SOFT.name, OPEN.name),
            ("adds", "does_not", "f1"),
            {
                SOFT.name: {FUDAN: (74.6, 74.1, 74.4), SNAP: (87.7, 86.9, 87.4)},
                OPEN.name: {FUDAN: (74.1, 71.0, 72.6), SNAP: (87.0, 84.6, 86.2)},
            },
        ),
        Table(
            "fig3",
            "Fig. 3: mean attention from text to image by relation",
            (OPEN.name, SOFT.name),
            ("low", "high"),
            {OPEN.name: {SNAP: (0.041, 0.042)}, SOFT.name: {SNAP: (0.034, 0.102)}},
        ),
        Table(
            "gates",
            "What a gate gives: text, whole evidence, r learnt, r known",
            ("bert", OPEN.name, SOFT.name, MISMATCH.name, ORACLE.name),
            ("adds", "does_not", "f1"),
            {},
        ),
    )
}


def paper_set(path: Path) -> str | None:
    """Which data set of the paper a folder holds, by its name."""
    name = path.resolve().name.lower()
    signs = {FUDAN: ("2015", "fudan"), SNAP: ("2017", "snap"), TRC: ("trc",)}
    return next((data for data, known in signs.items() if any(s in name for s in known)), None)
