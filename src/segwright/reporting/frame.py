"""What all pages share: their templates, how numbers are told, how pictures are set in."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import jinja2

from segwright.pictures import Picture, to_png, to_webp

GENERATOR = '<meta name="generator" content="segwright">'
"""Stands near the top of every report: only a file that has it is replaced."""


def environment() -> jinja2.Environment:
    """The templates of this room, with its filters; every text that is set in is escaped."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("segwright.reporting", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "number": number,
        "interval": interval,
        "percent": percent,
        "share": share,
        "measured": measured,
        "curve": curve,
        "duration": duration,
        "css": css_color,
    }
    return made


def data_uri(picture: Picture) -> str:
    """The picture as an address that a page can hold."""
    small = picture.shape[0] * picture.shape[1] < 128 * 128
    data, kind = (to_png(picture), "png") if small else (to_webp(picture), "webp")
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def is_report(path: Path) -> bool:
    """Whether a file is a page that segwright wrote."""
    try:
        with path.open("rb") as stream:
            return GENERATOR.encode() in stream.read(2000)
    except OSError:
        return False


def number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def interval(score: dict[str, float | None] | None, digits: int = 3) -> str:
    """`0.690 to 0.735`; empty where resampling gave none."""
    if not score or score.get("low") is None or score.get("high") is None:
        return ""
    return f"{number(score['low'], digits)} to {number(score['high'], digits)}"


def percent(value: float | None) -> str:
    """A share as a percentage; what is there but rounds to nothing is not called nothing."""
    if value is None:
        return "–"
    if 0 < value < 0.0005:
        return "<0.1 %"
    return f"{100 * value:.1f} %"


def share(value: float) -> str:
    """A share of the pixels, with two digits more where it is small: `0.14 %`."""
    return percent(value) if value >= 0.01 or value == 0 else f"{100 * value:.2g} %"


def measured(value: float) -> str:
    """A measured value with about three digits: `128`, `20.3`, `0.123`."""
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{value:.{digits}f}"


def curve(spread: dict[str, Any]) -> str:
    """Which curve describes values, and the gamma curve fitted to them, see `segwright.auditing.spread.describe`."""
    if "fits" not in spread:
        return ""
    named = "neither a normal nor a gamma curve" if spread["fits"] == "neither" else f"a {spread['fits']} curve"
    if "gamma" not in spread:
        return named
    alpha, loc, beta, misfit = (spread["gamma"][key] for key in ("alpha", "loc", "beta", "misfit"))
    return f"{named}; gamma {alpha:.4g}, {loc:.4g}, {beta:.4g}, off by {misfit:.2g} sd"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def css_color(color: tuple[int, int, int]) -> str:
    red, green, blue = color
    return f"rgb({red:d},{green:d},{blue:d})"
