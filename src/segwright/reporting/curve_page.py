"""The page of a learning curve: the scores, the law through them, and what more images would bring."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from markupsafe import Markup

from segwright import charts
from segwright.errors import OutputError
from segwright.files import write_text
from segwright.reporting.frame import GENERATOR, environment, is_report
from segwright.studies.learning_curve import Curve


def write_curve_page(curve: Curve) -> Path:
    """Write `learning-curve.html` into the study's folder and return where it stands.

    Raises:
        OutputError: another file than a report stands there.
    """
    target = curve.out / "learning-curve.html"
    if target.exists() and not is_report(target):
        raise OutputError("stands there and is no segwright report", mend="move it away", file=target)
    drawn = charts.learning_curve([(one.images, one.mean, one.deviation) for one in curve.points], curve.line)
    page = (
        environment()
        .get_template("learning-curve.html.j2")
        .render(
            curve=curve,
            name=curve.out.resolve().name,
            generator=Markup(GENERATOR),  # noqa: S704  # a constant
            version=importlib.metadata.version("segwright"),
            chart=Markup(drawn),  # noqa: S704  # matplotlib escapes the texts
        )
    )
    write_text(target, page)
    return target
