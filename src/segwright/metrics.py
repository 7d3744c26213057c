"""Scores of a segmentation: every number that is read from the confusion counts of its images.

Counts (see `confusion`) are kept per image, summed over a data set and divided once. From the counts of class k, TP
(right), T (true pixels) and P (predicted pixels):

    IoU = TP / (T + P - TP)      Dice = 2 TP / (T + P)      pixel accuracy of a class = TP / T

Boundary F1 is the contour measure of Csurka et al. 2013, "What is a good evaluation measure for semantic segmentation?"
(https://www.bmva-archive.org.uk/bmvc/2013/Papers/paper0032/paper0032.pdf), summed over images before it is divided.
What a mean runs over is a definition (`DEFINITIONS`); no number is shown without its sentence.

    N images   K classes   H, W rows and columns in pixels   confusion[i, j] pixels of true class i predicted as j
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, Int64, Num, UInt8

from segwright.types import IGNORE_INDEX, ClassSet

Definition = Literal["declared", "all_classes", "ignore_in_score", "leave_out_of_mean", "keras-mars"]

DEFINITIONS: Mapping[Definition, str] = MappingProxyType(
    {
        "declared": "The rules that the data card and the recipe declare: pixels whose truth is a class of "
        "ignore_in_score are dropped, and the mean runs over the remaining classes that are not left out of it.",
        "all_classes": "Every labelled pixel counts and the mean runs over every class.",
        "ignore_in_score": "Pixels whose truth is one of the set-apart classes are dropped, and these classes leave "
        "the mean.",
        "leave_out_of_mean": "The set-apart classes leave the mean only; their pixels are still false positives of "
        "other classes.",
        "keras-mars": "Pixels whose truth is a class of ignore_in_score are dropped; the mean then runs over every "
        "class that occurs in truth or prediction, so one pixel predicted as a dropped class adds a class with IoU 0.",
    }
)
"""What a mean runs over. The set-apart classes are those of `ignore_in_score` and of `leave_out_of_mean` together."""

EXACT_IN_FLOAT32 = 1 << 24
"""OpenCV hands histograms back as float32: pieces of up to so many pixels are exact."""


@dataclass(frozen=True)
class Scores:
    """Scores under one definition; `...` are the leading axes of the counts (none for a whole data set).

    Attributes:
        definition: the key in `DEFINITIONS`.
        miou: (...) mean IoU over the classes in the mean; NaN where there is none.
        dice: (...) mean Dice over the same classes.
        pixel_accuracy: (...) right pixels as a share of all that count.
        mean_pixel_accuracy: (...) mean of the pixel accuracies of the classes to score that occur in the truth.
        iou, dice_per_class, accuracy_per_class: (..., K), NaN where a class gives no number.
        in_mean: (..., K) bool, the classes that enter `miou` and `dice`.
        absent: (..., K) bool, classes that should be scored but occur neither in truth nor in prediction.
    """

    definition: Definition
    miou: Float[np.ndarray, "*axes"]
    dice: Float[np.ndarray, "*axes"]
    pixel_accuracy: Float[np.ndarray, "*axes"]
    mean_pixel_accuracy: Float[np.ndarray, "*axes"]
    iou: Float[np.ndarray, "*axes K"]
    dice_per_class: Float[np.ndarray, "*axes K"]
    accuracy_per_class: Float[np.ndarray, "*axes K"]
    in_mean: Bool[np.ndarray, "*axes K"]
    absent: Bool[np.ndarray, "*axes K"]


def count_labels(mask: UInt8[np.ndarray, "H W"]) -> Int64[np.ndarray, " 256"]:
    """Pixels of each value of a mask; six times as fast as `np.bincount`, which makes 64-bit numbers of all pixels."""
    rows = max(1, EXACT_IN_FLOAT32 // max(1, mask.shape[1]))
    counts = np.zeros(256, dtype=np.int64)
    for top in range(0, mask.shape[0], rows):
        counts += cv2.calcHist([mask[top : top + rows]], [0], None, [256], [0, 256]).reshape(-1).astype(np.int64)
    return counts


def class_counts(
    confusion: Int[np.ndarray, "... K K"], classes: ClassSet, definition: Definition = "declared"
) -> Int64[np.ndarray, "... 3 K"]:
    """TP, true and predicted pixels of each class, with the rows that `definition` drops already gone."""
    kept = np.ones(classes.num_classes, dtype=np.int64)
    kept[list(dropped_classes(classes, definition))] = 0
    rows = confusion * kept[:, None]
    # Twice as fast as `np.sum` over axes this short.
    columns = [np.einsum(pair, rows) for pair in ("...kk->...k", "...ij->...i", "...ij->...j")]
    return np.stack(columns, axis=-2).astype(np.int64, copy=False)


def score(confusion: Int[np.ndarray, "... K K"], classes: ClassSet, definition: Definition = "declared") -> Scores:
    """Scores of summed counts, over any leading axes: (K, K) for a data set, (N, K, K) for each image by itself."""
    return score_counts(class_counts(confusion, classes, definition), classes, definition)


def score_counts(counts: Num[np.ndarray, "... 3 K"], classes: ClassSet, definition: Definition = "declared") -> Scores:
    """Scores from what `class_counts` gave; sums of images are as good as one image."""
    right, true, predicted = (counts[..., row, :] for row in range(3))
    union = true + predicted - right
    wanted = np.zeros(classes.num_classes, dtype=bool)
    wanted[list(scored_classes(classes, definition))] = True
    in_mean = wanted & (union > 0)
    iou = _ratio(right, union)
    dice = _ratio(2 * right, true + predicted)
    accuracy = _ratio(right, true)
    return Scores(
        definition=definition,
        miou=_mean(iou, in_mean),
        dice=_mean(dice, in_mean),
        pixel_accuracy=_ratio(right.sum(-1), true.sum(-1)),
        mean_pixel_accuracy=_mean(accuracy, wanted & (true > 0)),
        iou=iou,
        dice_per_class=dice,
        accuracy_per_class=accuracy,
        in_mean=in_mean,
        absent=wanted & (union == 0),
    )


def scored_classes(classes: ClassSet, definition: Definition = "declared") -> tuple[int, ...]:
    """The classes that a definition's mean runs over, where they occur."""
    apart = set(range(classes.num_classes)) - set(classes.scored)
    if definition in ("all_classes", "keras-mars"):
        apart = set()
    return tuple(k for k in range(classes.num_classes) if k not in apart)


def dropped_classes(classes: ClassSet, definition: Definition = "declared") -> tuple[int, ...]:
    """The classes whose true pixels count nowhere."""
    if definition in ("declared", "keras-mars"):
        return classes.ignore_in_score
    if definition == "ignore_in_score":
        return (*classes.ignore_in_score, *classes.leave_out_of_mean)
    return ()


def _ratio(part: np.ndarray | np.number, whole: np.ndarray | np.number) -> np.ndarray:
    filled = np.full(np.shape(whole), np.nan)
    np.divide(part, whole, out=filled, where=np.asarray(whole) > 0)
    return filled


def _mean(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The mean over the last axis of the chosen values; NaN where none is chosen."""
    return _ratio(np.where(chosen, values, 0.0).sum(-1), chosen.sum(-1))


def dice_per_image_label(
    confusion: Int[np.ndarray, "N K K"], classes: ClassSet, definition: Definition = "declared"
) -> Float[np.ndarray, " N"]:
    """Dice averaged over (image, label) pairs: each image's mean; the mean of these is the score.

    A pair that is empty in both truth and prediction scores 1, as flood-mapping contests count it. Every image has the
    same number of labels, so the mean of the images' means is the mean over all pairs.
    """
    counts = class_counts(confusion, classes, definition)[..., list(scored_classes(classes, definition))]
    total = counts[:, 1] + counts[:, 2]
    pairs = np.where(total > 0, 2 * counts[:, 0] / np.maximum(total, 1), 1.0)
    return np.asarray(pairs.mean(-1)) if pairs.shape[-1] else np.full(len(pairs), np.nan)


def boundary_tolerance_px(height: int, width: int) -> int:
    """The usual tolerance of boundary F1: 0.75 % of the image's diagonal, at least one pixel."""
    return max(1, round(0.0075 * math.hypot(height, width)))


def boundary_counts(
    pred: UInt8[np.ndarray, "H W"], mask: UInt8[np.ndarray, "H W"], *, num_classes: int, tolerance_px: float
) -> Int64[np.ndarray, "K 4"]:
    """Contour pixels of each class in one image: predicted, of these matched, true, of these matched.

    A contour pixel has a neighbour (up, down, left or right) of another class; the image's edge and void (truth 255)
    make none, and what was predicted on void is void. A pixel is matched when one of the other contour lies within
    the tolerance.
    """
    if mask.size > 2 * LARGE_BLOCK_PX**2:
        # Nothing beyond the tolerance matters, nor does a neighbour of a contour there.
        margin = math.ceil(tolerance_px) + 2
        parts = [
            _boundary_counts(pred[window], mask[window], inner, num_classes=num_classes, tolerance_px=tolerance_px)
            for window, inner in _blocks(*mask.shape, margin=margin)
        ]
        return np.asarray(np.sum(parts, axis=0))
    return _boundary_counts(pred, mask, None, num_classes=num_classes, tolerance_px=tolerance_px)


Window = tuple[slice, slice]
LARGE_BLOCK_PX = 1024
"""Contours of larger images are matched block by block, which takes less memory and no more time."""


def _blocks(height: int, width: int, *, margin: int) -> Iterator[tuple[Window, Window]]:
    """Windows of blocks with a margin around them, and the block itself within the window."""
    for top in range(0, height, LARGE_BLOCK_PX):
        for left in range(0, width, LARGE_BLOCK_PX):
            first = max(0, top - margin), max(0, left - margin)
            window = np.s_[first[0] : top + LARGE_BLOCK_PX + margin, first[1] : left + LARGE_BLOCK_PX + margin]
            rows, columns = top - first[0], left - first[1]
            yield window, np.s_[rows : rows + LARGE_BLOCK_PX, columns : columns + LARGE_BLOCK_PX]


def _boundary_counts(
    pred: np.ndarray, mask: np.ndarray, inner: Window | None, *, num_classes: int, tolerance_px: float
) -> Int64[np.ndarray, "K 4"]:
    """Contour pixels within `inner` (None for all), matched with contours anywhere in the window."""
    guess = np.where(mask == IGNORE_INDEX, np.uint8(IGNORE_INDEX), pred)
    contours = [_contours(guess), _contours(mask)]
    labels = [np.where(edge, label, IGNORE_INDEX) for edge, label in zip(contours, (guess, mask), strict=True)]
    counts = np.zeros((num_classes, 4), dtype=np.int64)
    for k in range(num_classes):
        edges = [(label == k).astype(np.uint8) for label in labels]
        for column, (edge, other) in ((0, edges), (2, edges[::-1])):
            counts[k, column : column + 2] = _matched(edge, other, inner, tolerance_px=tolerance_px)
    return counts


def _contours(label: np.ndarray) -> np.ndarray:
    edge = np.zeros(label.shape, dtype=bool)
    for here, there in (
        (np.s_[:-1], np.s_[1:]),
        (np.s_[1:], np.s_[:-1]),
        (np.s_[:, :-1], np.s_[:, 1:]),
        (np.s_[:, 1:], np.s_[:, :-1]),
    ):
        edge[here] |= (label[here] != label[there]) & (label[there] != IGNORE_INDEX)
    return edge


def _matched(edge: np.ndarray, other: np.ndarray, inner: Window | None, *, tolerance_px: float) -> tuple[int, int]:
    """Pixels of `edge` within `inner`, and those of them within the (Euclidean) tolerance of `other`."""
    counted = edge
    if inner is not None:
        counted = np.zeros_like(edge)
        counted[inner] = edge[inner]
    total = cv2.countNonZero(counted)
    if total == 0 or cv2.countNonZero(other) == 0:
        return total, 0
    left, top, width, height = cv2.boundingRect(counted)
    reach = math.ceil(tolerance_px) + 1
    box = np.s_[max(0, top - reach) : top + height + reach, max(0, left - reach) : left + width + reach]
    if cv2.countNonZero(other[box]) == 0:
        return total, 0
    away = cv2.distanceTransform(np.ascontiguousarray(1 - other[box]), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return total, int(np.count_nonzero(counted[box] & (away <= tolerance_px + 1e-4)))


def boundary_f1(counts: Num[np.ndarray, "... K 4"]) -> Float[np.ndarray, "... K"]:
    """Harmonic mean of the matched shares of predicted and of true contour pixels; NaN where there are neither."""
    predicted, right, true, found = (counts[..., column] for column in range(4))
    precision, recall = (np.nan_to_num(_ratio(*pair)) for pair in ((right, predicted), (found, true)))
    harmonic = np.nan_to_num(_ratio(2 * precision * recall, precision + recall))
    return np.where(predicted + true > 0, harmonic, np.nan)


def mean_boundary_f1(counts: Num[np.ndarray, "... K 4"], classes: ClassSet) -> Float[np.ndarray, "*axes"]:
    """Boundary F1 averaged over the scored classes that have a contour in truth or prediction."""
    values = boundary_f1(counts)[..., list(classes.scored)]
    return _mean(values, ~np.isnan(values))
