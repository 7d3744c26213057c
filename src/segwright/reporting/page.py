"""The report of a run: one HTML file without scripts, links or other files, that reads well on paper and on a phone."""

from __future__ import annotations

import base64
import importlib.metadata
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from segwright import pictures
from segwright.errors import OutputError
from segwright.files import write_text
from segwright.metrics import DEFINITIONS
from segwright.reporting.contents import RunContents, Shown, SplitScores, read_run
from segwright.types import IGNORE_INDEX, ClassSet

GENERATOR = '<meta name="generator" content="segwright">'
"""Stands near the top of every report: only a file that has it is replaced."""

HEADLINES = {
    "miou": "Mean IoU",
    "pixel_accuracy": "Pixel accuracy",
    "mean_pixel_accuracy": "Mean pixel accuracy",
    "dice": "Dice, from counts",
    "dice_per_image_label": "Dice, per image and label",
    "boundary_f1": "Boundary F1",
    "prevalent_accuracy": "Prevalent class right",
}

MEANINGS = {
    "pixel_accuracy": "Right pixels as a share of all that count.",
    "mean_pixel_accuracy": "The share of right pixels of each class, averaged over the classes.",
    "dice": "2 TP / (2 TP + FP + FN) of each class over all images, averaged over the classes.",
    "dice_per_image_label": "Dice of every (image, label) pair, averaged; a pair that is empty in both counts 1.",
    "boundary_f1": "Contour pixels within 0.75 % of the image diagonal of the other contour: harmonic mean of the "
    "matched shares, averaged over the classes.",
    "prevalent_accuracy": "Images whose most frequent class was predicted as the most frequent one.",
}


def write_report(run: Path, *, out: Path | None = None) -> Path:
    """Write a run's report and return where it stands: `report.html` in the run, or `out`.

    Raises:
        RunError: there is no such run, or nothing in it was evaluated.
        DataError: a file of the run is damaged.
        OutputError: another file than a report stands there.
    """
    contents = read_run(run)
    target = run / "report.html" if out is None else out
    if target.exists() and not is_report(target):
        raise OutputError("stands there and is no segwright report", mend="choose another name", file=target)
    write_text(target, render(contents))
    return target


def render(contents: RunContents) -> str:
    """The page as a text."""
    template = environment().get_template("run.html.j2")
    return template.render(
        run=contents,
        generator=Markup(GENERATOR),  # noqa: S704  # a constant
        version=importlib.metadata.version("segwright"),
        headlines=HEADLINES,
        meanings=MEANINGS,
        training=_training(contents),
        splits=[_split(split) for split in contents.splits],
        title=_title(contents),
    )


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
        "duration": duration,
        "css": css_color,
    }
    return made


def _title(contents: RunContents) -> str:
    model = contents.recipe.get("model") or {}
    name, encoder = model.get("name"), model.get("encoder")
    if name and encoder and name != "unet":  # our own U-Net has no encoder to choose
        return f"{name} with encoder {encoder}"
    return str(name or "segmentation model")


def _training(contents: RunContents) -> dict[str, Any] | None:
    """Charts and times of the training; None where no epoch was written down."""
    rows = contents.epochs
    if not rows:
        return None
    losses = {"train_loss": "training", "val_loss": "validation"}
    charts = [pictures.curves(rows, {key: losses[key] for key in losses if _has(rows, key)}, y_label="loss", best=None)]
    if _has(rows, "val_miou"):
        charts.append(pictures.curves(rows, {"val_miou": "validation"}, y_label="mean IoU on validation", best="max"))
    if _has(rows, "lr"):
        charts.append(pictures.curves(rows, {"lr": "rate"}, y_label="learning rate", best=None))
    speeds = [row["images_per_second"] for row in rows if isinstance(row.get("images_per_second"), (int, float))]
    scored = [row for row in rows if isinstance(row.get("val_miou"), (int, float))]
    return {
        "charts": [Markup(chart) for chart in charts],  # noqa: S704  # matplotlib escapes the texts
        "epochs": rows[-1].get("epoch", len(rows)),
        "seconds": rows[-1].get("seconds"),
        "images_per_second": float(np.median(speeds)) if speeds else None,
        "best": max(scored, key=lambda row: float(row["val_miou"])) if scored else None,
    }


def _has(rows: list[dict[str, Any]], key: str) -> bool:
    return any(isinstance(row.get(key), (int, float)) for row in rows)


def _split(split: SplitScores) -> dict[str, Any]:
    summary, classes = split.summary, split.classes
    declared = summary["definitions"]["declared"]
    shares = {
        "truth": [row["true_share"] or 0.0 for row in summary["per_class"]],
        "prediction": [row["predicted_share"] or 0.0 for row in summary["per_class"]],
    }
    apart = [classes.names[k] for k in sorted({*classes.ignore_in_score, *classes.leave_out_of_mean})]
    charts = {
        "confusion": pictures.confusion_matrix(np.array(summary["confusion"]), classes.names),
        "images": pictures.histogram(split.image_miou, x_label="mean IoU of one image"),
        "shares": pictures.class_bars(shares, classes.names),
    }
    return {
        "name": split.name,
        "summary": summary,
        "classes": classes,
        "declared": declared,
        "tiles": {key: summary.get(key) or declared.get(key) for key in HEADLINES},
        "apart": apart,
        "definitions": {name: summary["definitions"][name] for name in DEFINITIONS if name in summary["definitions"]},
        "charts": {name: Markup(chart) for name, chart in charts.items()},  # noqa: S704  # as above
        "shown": {
            kind: [_panel(one, classes) for one in split.shown if one.kind == kind] for kind in ("best", "worst")
        },
        "wide": classes.num_classes > 12,
    }


def _panel(shown: Shown, classes: ClassSet) -> dict[str, Any]:
    """One example: the image, its truth and prediction laid over it, and where they differ."""
    palette = classes.palette()
    dropped = np.isin(shown.mask, classes.ignore_in_score)
    truth = np.where(dropped, np.uint8(IGNORE_INDEX), shown.mask)
    views = {
        "image": pictures.as_rgb(shown.image),
        "truth": pictures.overlay(shown.image, shown.mask, palette, alpha=0.7),
        "prediction": pictures.overlay(shown.image, shown.pred, palette, alpha=0.7),
        "errors": pictures.error_map(shown.image, truth, shown.pred),
    }
    height, width = shown.mask.shape
    return {
        "id": shown.id,
        "score": shown.score,
        "width": width,
        "height": height,
        "views": {name: data_uri(view) for name, view in views.items()},
    }


def data_uri(picture: pictures.Picture) -> str:
    """The picture as an address that a page can hold."""
    small = picture.shape[0] * picture.shape[1] < 128 * 128
    data, kind = (pictures.to_png(picture), "png") if small else (pictures.to_webp(picture), "webp")
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
