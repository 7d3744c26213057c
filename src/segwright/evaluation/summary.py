"""The scores of a data set as one tree of plain numbers, each with its interval and the sentence that defines it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Int64

from segwright.errors import RecipeError
from segwright.evaluation.statistics import (
    LEVEL,
    RESAMPLES,
    Interval,
    bootstrap,
    bootstrap_each,
    bootstrap_mean,
    score_intervals,
)
from segwright.metrics import (
    DEFINITIONS,
    Definition,
    boundary_f1,
    class_counts,
    dice_per_image_label,
    mean_boundary_f1,
    score,
    scored_classes,
)
from segwright.types import ClassSet

FEW_UNITS = 20
"""With fewer images or groups than this, an interval is a rough guess, and the report says so."""


def summarize(
    confusion: Int[np.ndarray, "N K K"],
    boundary: Int[np.ndarray, "N K 4"],
    classes: ClassSet,
    *,
    groups: Sequence[object] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Every score under every definition.

    Returns:
        `classes`, `images`, `units`, `grouped`, `level`, `resamples`; `definitions` (name to sentence, `miou`, `dice`,
        `pixel_accuracy`, `mean_pixel_accuracy`, names in the mean and absent); `dice_per_image_label`, `boundary_f1`,
        `prevalent_accuracy` under the declared rules; `per_class`; `confusion`, summed. A score is
        `{estimate, low, high}`.
    """
    draws: dict[str, Any] = {"groups": groups, "resamples": resamples, "seed": seed}
    true, pred = prevalent(confusion, classes)
    right = np.where(true < 0, np.nan, true == pred)
    pairs = dice_per_image_label(confusion, classes)

    def contours(sums: np.ndarray) -> np.ndarray:
        return mean_boundary_f1(sums, classes)

    return {
        "classes": dataclasses.asdict(classes),
        "images": len(confusion),
        "units": len(confusion) if groups is None else len(set(groups)),
        "grouped": groups is not None,
        "level": LEVEL,
        "resamples": resamples,
        "definitions": {name: _definition(confusion, classes, name, draws) for name in DEFINITIONS},
        "dice_per_image_label": bootstrap_mean(pairs, **draws).as_dict(),
        "boundary_f1": bootstrap(boundary, contours, **draws).as_dict(),
        "prevalent_accuracy": bootstrap_mean(right, **draws).as_dict(),
        "per_class": _per_class(confusion, boundary, classes, draws),
        "confusion": confusion.sum(0).tolist(),
    }


def require_set_apart(classes: ClassSet, definition: Definition, *, run: Path) -> None:
    """Make sure that classes are set apart where a definition is about such classes.

    Raises:
        RecipeError: none is, so that the number would be called what it is not.
    """
    apart = classes.ignore_in_score
    if definition != "keras-mars":
        apart += classes.leave_out_of_mean
    if apart or definition in ("declared", "all_classes"):
        return
    raise RecipeError(
        f"was trained without classes.ignore_in_score, and '{definition}' drops the pixels of these classes"
        if definition != "leave_out_of_mean"
        else "was trained without classes.leave_out_of_mean or ignore_in_score, so no class is left out of the mean",
        mend="train with --ignore-in-score CLASS, such as the background",
        file=run,
    )


def prevalent(
    confusion: Int[np.ndarray, "N K K"], classes: ClassSet
) -> tuple[Int64[np.ndarray, " N"], Int64[np.ndarray, " N"]]:
    """The most frequent true and predicted class of each image, over the pixels that count; -1 where none does."""
    counts = class_counts(confusion, classes)
    some = counts[:, 1].sum(-1) > 0
    return np.where(some, counts[:, 1].argmax(-1), -1), np.where(some, counts[:, 2].argmax(-1), -1)


def _definition(confusion: np.ndarray, classes: ClassSet, name: Definition, draws: dict[str, Any]) -> dict[str, Any]:
    whole = score(confusion.sum(0), classes, name)
    intervals = score_intervals(confusion, classes, name, **draws)
    scalars = {key: value.as_dict() for key, value in intervals.items() if isinstance(value, Interval)}
    return {
        "sentence": DEFINITIONS[name],
        **scalars,
        "in_mean": [classes.names[k] for k in np.flatnonzero(whole.in_mean)],
        "absent": [classes.names[k] for k in np.flatnonzero(whole.absent)],
    }


def _per_class(
    confusion: np.ndarray, boundary: np.ndarray, classes: ClassSet, draws: dict[str, Any]
) -> list[dict[str, Any]]:
    """One row a class, under the declared rules; a class whose true pixels are dropped has a row without scores."""
    intervals = score_intervals(confusion, classes, "declared", **draws)
    scored = scored_classes(classes)
    counts = class_counts(confusion, classes).sum(0)
    right, true, predicted = counts
    all_true, all_predicted = confusion.sum((0, 2)), confusion.sum((0, 1))
    columns = {
        "iou": _each(intervals["iou"]),
        "dice": _each(intervals["dice_per_class"]),
        "accuracy": _each(intervals["accuracy_per_class"]),
        "boundary_f1": bootstrap_each(boundary, boundary_f1, **draws),
    }
    return [
        {
            "name": name,
            "in_mean": k in scored and bool(true[k] + predicted[k] > 0),
            **{
                head: (_UNKNOWN if k in classes.ignore_in_score else values[k]).as_dict()
                for head, values in columns.items()
            },
            "precision": float(right[k] / predicted[k]) if predicted[k] and k not in classes.ignore_in_score else None,
            "true_pixels": int(true[k]),
            "true_share": _share(all_true, k),
            "predicted_share": _share(all_predicted, k),
            "images": int(np.count_nonzero(confusion.sum(2)[:, k])),
        }
        for k, name in enumerate(classes.names)
    ]


_UNKNOWN = Interval(math.nan, math.nan, math.nan)


def _each(values: Interval | list[Interval]) -> list[Interval]:
    assert isinstance(values, list), "one interval a class"
    return values


def _share(pixels: np.ndarray, k: int) -> float | None:
    total = int(pixels.sum())
    return float(pixels[k]) / total if total else None
