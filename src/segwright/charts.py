"""Charts as SVG texts to be set into a page. The only door to matplotlib.

Their colours are CSS variables of the page (`--ink --muted --grid --surface --series-1 --series-2 --on-series`), so
that one chart serves a light and a dark page. Series differ in lightness as well as in hue (Okabe & Ito 2008,
https://jfly.uni-koeln.de/color/), so that colour-blind readers and gray printers keep them.

    K classes
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from jaxtyping import Num
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

_MOST_CELLS_WITH_TEXT = 32

_PAGE_COLORS = {
    "#010101": "--ink",
    "#020202": "--muted",
    "#030303": "--grid",
    "#040404": "--surface",
    "#050505": "--series-1",
    "#060606": "--series-2",
    "#070707": "--on-series",
}
_INK, _MUTED, _GRID, _SURFACE, _FIRST, _SECOND, _ON_SERIES = _PAGE_COLORS
_STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 10,
    "text.color": _INK,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _MUTED,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.7,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}


def schedules(shares: Sequence[float], lines: Mapping[str, Sequence[float]]) -> str:
    """Learning rate factors by the spent share of the budget, one small panel a schedule, as SVG."""
    columns = 4
    with mpl.rc_context(_STYLE):
        rows = -(-len(lines) // columns)
        figure = Figure(layout="constrained", figsize=(2.2 * columns, 1.7 * rows))
        panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).reshape(-1)
        for axes, (name, factors) in zip(panels, lines.items(), strict=False):
            axes.plot(shares, factors, color=_FIRST)
            axes.set_title(name, loc="left", fontsize=10)
        for axes in panels[len(lines) :]:
            axes.set_axis_off()
        figure.supxlabel("share of the budget", fontsize=9)
        figure.supylabel("learning rate, as a share of its first value", fontsize=9)
        return _svg(figure, "Learning rate schedules")


def curves(
    rows: Sequence[Mapping[str, Any]],
    series: Mapping[str, str],
    *,
    y_label: str,
    best: Literal["max", "min"] | None = None,
    x_label: str = "epoch",
) -> str:
    """Lines over the epochs; at most two series, as SVG.

    Args:
        rows: lines of `metrics.jsonl`; a row without a series' key leaves it out.
        series: key to the name that the reader sees.
        y_label: what is drawn, with its unit.
        best: marks the best point of the first series.
        x_label: the key of what they run over, with its name.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(layout="constrained", figsize=(3.7, 2.4))
        axes = figure.add_subplot()
        for (key, name), color in zip(series.items(), (_FIRST, _SECOND), strict=False):
            points = [(float(row[x_label]), float(row[key])) for row in rows if isinstance(row.get(key), (int, float))]
            if points:
                x, y = zip(*points, strict=True)
                axes.plot(x, y, color=color, label=name, marker="o" if len(points) == 1 else "", markersize=5)
                if best and color == _FIRST:
                    _mark_best(axes, x, y, best=best)
        axes.set_xlabel(x_label)
        axes.set_title(y_label, loc="left", fontsize=10, color=_MUTED)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
        axes.grid(visible=False, axis="x")
        if len(series) > 1 and axes.lines:
            axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, handlelength=1.2, borderpad=0)
        return _svg(figure, y_label)


def _mark_best(axes: Any, x: Sequence[float], y: Sequence[float], *, best: Literal["max", "min"]) -> None:
    at = int(np.argmax(y) if best == "max" else np.argmin(y))
    axes.plot([x[at]], [y[at]], marker="o", markersize=7, color=_FIRST, markeredgecolor=_SURFACE, markeredgewidth=1.5)
    left = x[at] > (x[0] + x[-1]) / 2
    axes.annotate(
        f"{y[at]:.3f} at {x[at]:g}",
        (x[at], y[at]),
        xytext=(-9 if left else 9, -14 if best == "max" else 8),
        textcoords="offset points",
        ha="right" if left else "left",
        fontsize=9.5,
        color=_INK,
    )


def histogram(values: Num[np.ndarray, " N"], *, x_label: str, bins: int = 20) -> str:
    """How many images have which score (0 to 1), with the median marked; as SVG. NaN is left out."""
    known = np.asarray(values, dtype=float)
    known = known[~np.isnan(known)]
    with mpl.rc_context(_STYLE):
        figure = Figure(layout="constrained", figsize=(4.6, 2.7))
        axes = figure.add_subplot()
        heights, edges = np.histogram(known, bins=bins, range=(0.0, 1.0))
        axes.bar(edges[:-1], heights, width=np.diff(edges) * 0.9, align="edge", color=_FIRST, linewidth=0)
        if known.size:
            middle = float(np.median(known))
            axes.axvline(middle, color=_INK, linewidth=1.2, linestyle=(0, (4, 3)))
            left = middle > 0.5
            axes.annotate(
                f"median {middle:.3f}",
                (middle, 1.0),
                xycoords=("data", "axes fraction"),
                fontsize=9.5,
                xytext=(-6 if left else 6, 3),
                textcoords="offset points",
                ha="right" if left else "left",
                color=_INK,
            )
        axes.set_xlim(0, 1)
        axes.set_xlabel(x_label)
        axes.set_title("images", loc="left", fontsize=10, color=_MUTED)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5, prune="lower"))
        axes.grid(visible=False, axis="x")
        return _svg(figure, f"Histogram of {x_label}")


def share_curves(edges: Sequence[float], shares: Mapping[str, Sequence[float]], *, title: str) -> str:
    """How the values of one or two sets are spread, as SVG.

    Args:
        edges: (B + 1) rising borders of B bins.
        shares: name of a set -> (B) share of its values in each bin.
        title: what the values are, with their unit.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(layout="constrained", figsize=(3.7, 2.2))
        axes = figure.add_subplot()
        for (name, heights), color in zip(shares.items(), (_FIRST, _SECOND), strict=False):
            axes.stairs(heights, edges, color=color, fill=True, alpha=0.14, linewidth=0)
            axes.stairs(heights, edges, color=color, label=name, linewidth=1.6)
        axes.set_xlim(edges[0], edges[-1])
        axes.set_ylim(bottom=0)
        axes.set_title(title, loc="left", fontsize=10, color=_MUTED)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4, prune="lower"))
        axes.grid(visible=False, axis="x")
        if len(shares) > 1:
            axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, handlelength=1.2, borderpad=0)
        return _svg(figure, title)


def confusion_matrix(confusion: Num[np.ndarray, "K K"], names: Sequence[str]) -> str:
    """Shares of each true class (row) that were predicted as each class (column), as SVG; empty cells stay blank."""
    classes = len(names)
    totals = confusion.sum(1, keepdims=True)
    shares = np.divide(confusion, totals, out=np.zeros(confusion.shape), where=totals > 0)
    side = min(max(3.6, 0.4 * classes + 1.2), 16.0)
    with mpl.rc_context({**_STYLE, "axes.grid": False, "axes.spines.bottom": False}):
        figure = Figure(layout="constrained", figsize=(side, side))
        axes = figure.add_subplot()
        for row, column in np.argwhere(shares >= 0.0005):
            share = float(shares[row, column])
            axes.add_patch(
                Rectangle(
                    (column - 0.48, row - 0.48),
                    0.96,
                    0.96,
                    linewidth=0,
                    facecolor=_FIRST,
                    alpha=0.06 + 0.94 * share,
                )
            )
            if classes <= _MOST_CELLS_WITH_TEXT and share >= 0.005:
                axes.text(
                    column,
                    row,
                    f"{100 * share:.0f}",
                    ha="center",
                    va="center",
                    fontsize=9,
                    color=_ON_SERIES if share > 0.55 else _INK,
                )
        axes.set(xlim=(-0.5, classes - 0.5), ylim=(classes - 0.5, -0.5), aspect="equal", ylabel="truth")
        axes.set_xticks(range(classes), names, rotation=45, ha="left", rotation_mode="anchor")
        axes.set_yticks(range(classes), names)
        axes.tick_params(top=True, bottom=False, labeltop=True, labelbottom=False, labelcolor=_INK)
        axes.set_xlabel("prediction (% of the row)")
        return _svg(figure, "Confusion matrix")


def class_bars(shares: Mapping[str, Sequence[float]], names: Sequence[str], *, x_label: str = "share of pixels") -> str:
    """Shares of each name, such as of pixels a class; one or two bars each (as truth and prediction), as SVG."""
    with mpl.rc_context(_STYLE):
        figure = Figure(layout="constrained", figsize=(4.6, 0.9 + 0.3 * len(names)))
        axes = figure.add_subplot()
        thick = 0.76 / len(shares)
        for place, ((label, values), color) in enumerate(zip(shares.items(), (_FIRST, _SECOND), strict=False)):
            middle = np.arange(len(names)) + (place - (len(shares) - 1) / 2) * thick
            axes.barh(middle, values, height=thick * 0.9, color=color, label=label, linewidth=0)
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(axis="y", labelcolor=_INK)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.set_xlabel(x_label)
        axes.grid(visible=False, axis="y")
        if len(shares) > 1:
            axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, handlelength=1.2, borderpad=0)
        return _svg(figure, f"{x_label.capitalize()} of each name")


def score_against_cost(
    points: Mapping[str, tuple[float, float, float, float]], *, front: Sequence[str], x_label: str, y_label: str
) -> str:
    """Scores by what they cost, with their intervals; those of the front are named and joined, as SVG.

    Args:
        points: name to cost, score, and the interval's low and high end (NaN for none).
        front: names that nothing beats at less cost, by rising cost.
        x_label: of the cost, with its unit; drawn by its logarithm where it grows tenfold.
        y_label: of the score.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(layout="constrained", figsize=(6.4, 3.8))
        axes = figure.add_subplot()
        for names, color in (([n for n in points if n not in front], _MUTED), (list(front), _FIRST)):
            cost, value, low, high = np.array([points[name] for name in names]).reshape(-1, 4).T
            axes.vlines(cost, low, high, color=color, linewidth=1.0, alpha=0.6)
            axes.plot(cost, value, marker="o", markersize=6, color=color, linestyle="")
        axes.plot([points[n][0] for n in front], [points[n][1] for n in front], color=_FIRST, drawstyle="steps-post")
        for place, name in enumerate(front):
            place_text: Any = {"xytext": (6, -13 if place % 2 else 6), "textcoords": "offset points", "fontsize": 9.5}
            axes.annotate(name if len(name) <= 32 else f"{name[:31]}…", points[name][:2], color=_INK, **place_text)
        costs = [cost for cost, *_ in points.values()]
        if max(costs) > 10 * min(costs):
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter("")
        axes.margins(x=0.18, y=0.12)
        axes.set_xlabel(x_label)
        axes.set_title(y_label, loc="left", fontsize=10, color=_MUTED)
        return _svg(figure, f"{y_label} against {x_label}")


def learning_curve(
    points: Sequence[tuple[float, float, float | None]], line: Sequence[tuple[float, float, float, float]]
) -> str:
    """Scores by the number of training images, the law through them and its interval, as SVG.

    Args:
        points: images, mean score, and its standard deviation where there are several runs.
        line: of the law: images, score, low and high end; drawn with dashes beyond the last point.
    """
    images, scores, deviations = zip(*points, strict=True)
    known = [one for one in line if one[0] <= images[-1]]
    beyond = [one for one in line if one[0] >= images[-1]]
    with mpl.rc_context(_STYLE):
        figure = Figure(layout="constrained", figsize=(6.4, 3.8))
        axes = figure.add_subplot()
        for part, dashes in ((known, "-"), (beyond, (0, (4, 3)))):
            x, y, low, high = np.array(part).reshape(-1, 4).T
            axes.fill_between(x, low, high, color=_FIRST, alpha=0.14, linewidth=0)
            axes.plot(x, y, color=_FIRST, linestyle=dashes)
        spread = [0.0 if one is None else one for one in deviations]
        axes.errorbar(images, scores, yerr=spread, color=_INK, marker="o", markersize=5, linestyle="", elinewidth=1.0)
        axes.set_xlabel("training images")
        axes.set_title("mIoU", loc="left", fontsize=10, color=_MUTED)
        axes.set_xlim(left=0)
        return _svg(figure, "mIoU by training images")


def _svg(figure: Figure, label: str) -> str:
    """The figure as an SVG element in the page's font and colours; matplotlib escapes the texts in it."""
    figure.set_facecolor("none")
    for axes in figure.axes:
        axes.set_facecolor("none")
    stream = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": label}):
        figure.set_canvas(FigureCanvasSVG(figure))
        figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    text = re.sub(r"<(metadata|style)\b.*?</\1>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = text.replace("xlink:href", "href")
    text = re.sub(r" font-family: [^;\"]*;", "", text)
    text = re.sub(r"style=\"[^\"]*\"", lambda style: _COLOR.sub(_variable, style[0]), text)
    box = re.search(r"viewBox=\"([^\"]*)\"", text)
    assert box is not None, "matplotlib wrote an SVG without a viewBox"
    return f'<svg viewBox="{box[1]}" role="img" aria-label="{escape(label)}">' + text[text.index(">") + 1 :]


_COLOR = re.compile("|".join(_PAGE_COLORS))


def _variable(color: re.Match[str]) -> str:
    return f"var({_PAGE_COLORS[color[0]]})"
