"""The report of a run: one HTML file without scripts, links or other files, that reads well on paper and on a phone."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
from markupsafe import Markup

from segwright import charts, pictures
from segwright.errors import OutputError
from segwright.files import write_text
from segwright.metrics import DEFINITIONS
from segwright.reporting.contents import RunContents, Shown, SplitScores, read_run
from segwright.reporting.frame import GENERATOR, data_uri, environment, is_report
from segwright.types import IGNORE_INDEX, ClassSet

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
    drawn = [charts.curves(rows, {key: losses[key] for key in losses if _has(rows, key)}, y_label="loss", best=None)]
    for key, label in (("val_miou", "mean IoU"), ("val_pixel_accuracy", "pixel accuracy")):
        if _has(rows, key):
            best: Literal["max"] | None = "max" if key == "val_miou" else None
            drawn.append(charts.curves(rows, {key: "validation"}, y_label=f"{label} on validation", best=best))
    if _has(rows, "lr"):
        drawn.append(charts.curves(rows, {"lr": "rate"}, y_label="learning rate", best=None))
    speeds = [row["images_per_second"] for row in rows if isinstance(row.get("images_per_second"), (int, float))]
    scored = [row for row in rows if isinstance(row.get("val_miou"), (int, float))]
    return {
        "charts": [Markup(chart) for chart in drawn],  # noqa: S704  # matplotlib escapes the texts
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
    drawn = {
        "confusion": charts.confusion_matrix(np.array(summary["confusion"]), classes.names),
        "images": charts.histogram(split.image_miou, x_label="mean IoU of one image"),
        "shares": charts.class_bars(shares, classes.names),
    }
    return {
        "name": split.name,
        "summary": summary,
        "classes": classes,
        "declared": declared,
        "tiles": {key: summary.get(key) or declared.get(key) for key in HEADLINES},
        "apart": apart,
        "definitions": {name: summary["definitions"][name] for name in DEFINITIONS if name in summary["definitions"]},
        "charts": {name: Markup(chart) for name, chart in drawn.items()},  # noqa: S704  # as above
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
