"""The page of a leaderboard: one HTML file without scripts or links, with the scores against what they cost."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from segwright import charts
from segwright.errors import OutputError
from segwright.files import write_text
from segwright.reporting.board_tables import FIGURE_KEYS, footnotes, p_text, said
from segwright.reporting.frame import GENERATOR, environment, is_report
from segwright.studies.leaderboard import Leaderboard, Row

_COSTS = {
    "minutes": "minutes of training",
    "parameters": "parameters of the model, in millions",
    "seconds_per_image": "milliseconds an image, labelling",
}


def write_board_page(table: Leaderboard, path: Path) -> Path:
    """Write the page of a leaderboard.

    Raises:
        OutputError: another file than a page of segwright stands there.
    """
    if path.exists() and not is_report(path):
        raise OutputError("stands there and is no segwright page", mend="choose another name", file=path)
    write_text(path, render(table))
    return path


def render(table: Leaderboard) -> str:
    """The page as a text."""
    known = [row for row in table.rows if not math.isnan(row.miou.estimate)]
    lows = [row.miou.estimate if math.isnan(row.miou.low) else row.miou.low for row in known]
    highs = [row.miou.estimate if math.isnan(row.miou.high) else row.miou.high for row in known]
    made = environment()
    made.filters |= {"known": known_number, "p_text": p_text, "signed": signed_range}
    return made.get_template("leaderboard.html.j2").render(
        table=table,
        generator=Markup(GENERATOR),  # noqa: S704  # a constant
        version=importlib.metadata.version("segwright"),
        rows=[_line(table, row, low=min(lows, default=0.0), high=max(highs, default=1.0)) for row in table.rows],
        charts=[Markup(chart) for chart in cost_charts(table)],  # noqa: S704  # matplotlib escapes the texts
        figures={key: FIGURE_KEYS.get(key, key) for key in table.figures},
        footnotes=footnotes(table),
    )


def known_number(value: float | None, digits: int = 3) -> str:
    """A number, or a dash where it is not known."""
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def signed_range(edges: Mapping[str, float]) -> str:
    """`+0.012 to +0.034`; empty where there is none."""
    return "" if math.isnan(edges["low"]) else f"{edges['low']:+.4f} to {edges['high']:+.4f}"


def _line(table: Leaderboard, row: Row, *, low: float, high: float) -> dict[str, Any]:
    """A row as the page shows it; the bar runs from the lowest to the highest end of all intervals."""
    width = max(high - low, 1e-9)

    def place(value: float) -> float:
        return round(100 * (value - low) / width, 2)

    bar = None
    if not math.isnan(row.miou.low):
        bar = {"from": place(row.miou.low), "to": place(row.miou.high), "at": place(row.miou.estimate)}
    return {"row": row, "bar": bar, "said": said(table, row), "known": not math.isnan(row.miou.estimate)}


def cost_charts(table: Leaderboard) -> list[str]:
    """The score against each cost that is known of two rows, as SVG."""
    found = []
    for key, label in _COSTS.items():
        points = {row.name: _point(row, cost) for row in table.rows if (cost := cost_of(row, key)) is not None}
        if len({point[0] for point in points.values()}) > 1:
            front = pareto_front({name: (point[0], point[1]) for name, point in points.items()})
            found.append(charts.score_against_cost(points, front=front, x_label=label, y_label="mIoU"))
    return found


def cost_of(row: Row, key: str) -> float | None:
    """One cost of a row above zero; None where it is not known, or the row has no score."""
    if math.isnan(row.miou.estimate):
        return None
    speed, parameters = row.cost.images_per_second, row.cost.parameters
    costs = {
        "minutes": row.cost.minutes,
        "parameters": None if parameters is None else parameters / 1e6,
        "seconds_per_image": 1000 / speed if speed else None,
    }
    value = costs[key]
    return value if value is not None and value > 0 else None


def _point(row: Row, cost: float) -> tuple[float, float, float, float]:
    return (cost, row.miou.estimate, row.miou.low, row.miou.high)


def pareto_front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Names of those that no other reaches at less or equal cost, by rising cost.

    >>> pareto_front({"small": (1, 0.5), "slow": (3, 0.5), "large": (2, 0.6)})
    ['small', 'large']
    """
    front: list[str] = []
    best = -math.inf
    for name, (_, value) in sorted(points.items(), key=lambda item: (item[1][0], -item[1][1])):
        if value > best:
            front.append(name)
            best = value
    return front
