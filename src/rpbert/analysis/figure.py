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
    from numpy.typing import NDArray

BINS = 10
"""Of r, each of width 1/BINS; the last one holds r = 1 too."""
POINTS = 1500
"""Most posts that a panel draws; its means are of all."""
INK = "#30343c"
COLOURS = {"irrelevant": "#d0662f", "relevant": "#2a7fb8", "unlabelled": "#7d8590"}
"""Of posts by what the data says of their images."""
AXES: dict[Measure, str] = {"s_tv": "$S_{TV}$ (Eq. 10)", "s_tv_per_word": "$S_{TV}$ / words"}


def draw(summary: Summary, measure: Measure) -> Figure:
    """Posts as points, coloured by the data's label, and the mean over each tenth of r; the model
    that is compared with stands left, as in the paper."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    style: Any = {"axes.spines.top": False, "axes.spines.right": False, **dict.fromkeys(inked, INK)}
    values, models = summary.values(measure), list(enumerate(summary.names))
    with mpl.rc_context(style):
        figure = Figure(figsize=(5.2 * len(models), 3.8), layout="constrained")
        axes = figure.subplots(1, len(models), sharey=True, squeeze=False)[0]
        for axis, (model, name) in zip(axes, reversed(models), strict=True):
            posts = np.stack([summary.r, summary.label, values[:, model]], axis=1)
            _panel(axis, posts[~np.isnan(posts[:, [0, 2]]).any(1)])
            axis.set_title(f"model {name}", parse_math=False)
            axis.set(xlabel="relation score $r$", xlim=(-0.02, 1.02))
            axis.set_ylim(bottom=0)
        axes[0].set_ylabel(AXES[measure])
        if axes[-1].has_data():
            axes[-1].legend(frameon=False, loc="best", fontsize="small")
        else:
            axes[-1].text(0.5, 0.5, "no post with a relation score", ha="center")
    return figure


def _panel(axis: Axes, posts: NDArray[np.float64]) -> None:
    """r, label and measure of each post. Shape: (posts, 3)."""
    chosen = np.random.default_rng(0).permutation(len(posts))[:POINTS]
    drawn = posts[np.sort(chosen)]
    groups = (drawn[:, 1] == 0, drawn[:, 1] == 1, np.isnan(drawn[:, 1]))
    for (name, colour), group in zip(COLOURS.items(), groups, strict=True):
        if group.any():
            x, _, y = drawn[group].T
            axis.scatter(x, y, label=name, color=colour, s=7, alpha=0.45, linewidths=0)
    tenths = np.minimum(posts[:, 0] * BINS, BINS - 1).astype(int)
    if means := [(n, posts[tenths == n, 2].mean()) for n in np.unique(tenths)]:
        x, y = np.array(means).T
        axis.plot((x + 0.5) / BINS, y, marker="o", markersize=4, color=INK, label="mean")


def svg(figure: Figure) -> str:
    """The figure as a separate document, the same for the same figures."""
    import matplotlib as mpl

    content = io.StringIO()
    # Text stays text, so that it can be searched and takes the reader's font.
    with mpl.rc_context({"svg.hashsalt": "rpbert", "svg.fonttype": "none"}):
        figure.savefig(content, format="svg", transparent=True, metadata={"Date": None})
    return content.getvalue()


def inline(document: str) -> str:
    """An SVG to stand inside a page, whose colours the page sets: ``var(--ink)`` and so on."""
    body = document[document.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    for name, colour in {"ink": INK, **COLOURS}.items():
        body = body.replace(colour, f"var(--{name})")
    return body
