"""The page of a search: what was tried, what mattered, and the winner, made from `tune.json`."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

from markupsafe import Markup

from segwright import charts
from segwright.errors import OutputError
from segwright.files import write_text
from segwright.reporting.frame import GENERATOR, environment, is_report
from segwright.studies.tuned import OPTIMISM, Tried, Tuned, read_found


def write_tune_page(folder: Path) -> Path:
    """Write `report.html` into the folder of a search and return where it stands.

    Raises:
        DataError: there is no search, or it is damaged.
        OutputError: another file than a report stands there.
    """
    found = read_found(folder)
    target = folder / "report.html"
    if target.exists() and not is_report(target):
        raise OutputError("stands there and is no segwright report", mend="move it away", file=target)
    template = environment().get_template("tune.html.j2")
    page = template.render(
        found=found,
        name=folder.resolve().name if folder.resolve().name != "tune" else folder.resolve().parent.name,
        generator=Markup(GENERATOR),  # noqa: S704  # a constant
        version=importlib.metadata.version("segwright"),
        optimism=OPTIMISM,
        base=next((trial for trial in found.trials if trial.number == found.base), None),
        counts={state: sum(trial.state == state for trial in found.trials) for state in ("done", "pruned", "failed")},
        keys=list(dict.fromkeys(key for trial in found.trials for key in trial.values)),
        rows=_rows(found),
        charts=_charts(found),
    )
    write_text(target, page)
    return target


def _rows(found: Tuned) -> list[Tried]:
    """The best first, then those without a score in their order."""
    first = found.objectives[0]
    return sorted(found.trials, key=lambda trial: (-trial.scores.get(first, -1.0), trial.number))


def _charts(found: Tuned) -> dict[str, Any]:
    first = found.objectives[0]
    best, rows = float("-inf"), []
    for trial in found.trials:
        if trial.scores:
            best = max(best, trial.scores[first])
            rows.append({"trial": trial.number, "best": best, "score": trial.scores[first]})
    series = {"best": "best so far", "score": "this trial"}
    drawn = {"history": Markup(charts.curves(rows, series, y_label=first, x_label="trial"))} if rows else {}  # noqa: S704  # as below
    if found.importances:
        share = {"share": list(found.importances.values())}
        label = "share of the differences"
        bars = charts.class_bars(share, list(found.importances), x_label=label)
        drawn["importances"] = Markup(bars)  # noqa: S704  # matplotlib escapes the texts
    return drawn
