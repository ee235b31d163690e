"""Fig. 3: r against S_TV, a panel a model."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from rpbert.analysis.summary import Measure, Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BINS = 10
"""Of r, each of width 1/BINS; the last one holds r = 1 too."""
POINTS = 1500
"""Most posts that the figure draws; its means are of all."""
COLOURS = {
    "ink": "#30343c",
    "irrelevant": "#d0662f",
    "relevant": "#2a7fb8",
    "unlabelled": "#7d8590",
}
"""Of text and lines, and of posts by what the data says of their images."""
AXES: dict[Measure, str] = {"s_tv": "$S_{TV}$ (Eq. 10)", "s_tv_per_word": "$S_{TV}$ / words"}


def draw(summary: Summary, measure: Measure) -> Figure:
    """Posts as points, coloured by the data's label, and the mean over each tenth of r.

    As in the paper the model without propagation, which is the one compared with, stands left.
    """
    from matplotlib.figure import Figure

    models = list(reversed(range(len(summary.names))))
    figure = Figure(figsize=(5.2 * len(models), 3.8), layout="constrained")
    panels = figure.subplots(1, len(models), sharey=True, squeeze=False)[0]
    for panel, model in zip(panels, models, strict=True):
        _points(panel, summary, measure, model)
        panel.set_title(f"model {summary.names[model]}", color=COLOURS["ink"], parse_math=False)
        panel.set_xlabel("relation score $r$", color=COLOURS["ink"])
        panel.set_xlim(-0.02, 1.02)
        panel.set_ylim(bottom=0)
        panel.tick_params(colors=COLOURS["ink"])
        panel.spines[["top", "right"]].set_visible(False)
        panel.spines[["bottom", "left"]].set_color(COLOURS["ink"])
    panels[0].set_ylabel(AXES[measure], color=COLOURS["ink"])
    ink = COLOURS["ink"]
    if panels[-1].has_data():
        panels[-1].legend(frameon=False, labelcolor=ink, loc="best", fontsize="small")
    else:
        panels[-1].text(0.5, 0.5, "no post with a relation score", ha="center", color=ink)
    return figure


def _points(panel: Axes, summary: Summary, measure: Measure, model: int) -> None:
    r, labels, values = summary.r, summary.label, summary.values(measure)[:, model]
    there = np.flatnonzero(~(np.isnan(r) | np.isnan(values)))
    drawn = np.zeros(len(r), dtype=bool)
    draw = np.random.default_rng(0)
    drawn[draw.choice(there, min(POINTS, len(there)), replace=False)] = True
    unlabelled = np.isnan(labels)
    groups = {"irrelevant": labels == 0, "relevant": labels == 1, "unlabelled": unlabelled}
    for name, group in groups.items():
        if (chosen := group & drawn).any():
            style: dict[str, Any] = {"s": 7, "alpha": 0.45, "linewidths": 0, "color": COLOURS[name]}
            panel.scatter(r[chosen], values[chosen], label=name, **style)
    tenths = np.minimum(r[there] * BINS, BINS - 1).astype(int)
    means = [(n, values[there][tenths == n].mean()) for n in range(BINS) if (tenths == n).any()]
    if means:
        x, y = np.array(means).T
        style = {"marker": "o", "markersize": 4, "color": COLOURS["ink"], "label": "mean"}
        panel.plot((x + 0.5) / BINS, y, **style)


def png(figure: Figure) -> bytes:
    """The figure at 150 dots an inch."""
    return _saved(figure, format="png", dpi=150, metadata={"Software": None})


def svg(figure: Figure) -> str:
    """The figure as a document of its own, the same for the same figures."""
    import matplotlib as mpl

    # Text stays text, so that it can be searched and takes the reader's font.
    with mpl.rc_context({"svg.hashsalt": "rpbert", "svg.fonttype": "none"}):
        return _saved(figure, format="svg", metadata={"Date": None}).decode()


def inline_svg(document: str) -> str:
    """An SVG to stand inside a page, whose colours the page sets: ``var(--ink)`` and so on."""
    body = document[document.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    for name, colour in COLOURS.items():
        body = body.replace(colour, f"var(--{name})")
    return body


def _saved(figure: Figure, **options: Any) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, transparent=options["format"] == "svg", **options)
    return content.getvalue()
