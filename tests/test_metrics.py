"""Counts against torchmetrics and scikit-learn, scores against loops over masks, definitions by hand."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score, recall_score
from torchmetrics.functional.classification import multiclass_confusion_matrix

from segwright import metrics
from segwright.confusion import _count_on_device, confusion_per_image
from segwright.errors import MaskError
from segwright.metrics import (
    DEFINITIONS,
    boundary_counts,
    boundary_f1,
    boundary_tolerance_px,
    class_counts,
    count_labels,
    dice_per_image_label,
    mean_boundary_f1,
    score,
    score_counts,
)
from segwright.types import IGNORE_INDEX, ClassSet


def classes(count: int, **rules: tuple[int, ...]) -> ClassSet:
    return ClassSet(tuple(f"class {k}" for k in range(count)), ((0, 0, 0),) * count, **rules)


def labels(seed: int, shape: tuple[int, ...], num_classes: int, void: float = 0.1) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    masks = np.where(rng.random(shape) < void, IGNORE_INDEX, rng.integers(0, num_classes, shape))
    pred = np.where(rng.random(shape) < 0.5, rng.integers(0, num_classes, shape), np.minimum(masks, num_classes - 1))
    return torch.from_numpy(pred), torch.from_numpy(masks)


@given(
    seed=st.integers(0, 10_000), images=st.integers(1, 4), height=st.integers(1, 17), width=st.integers(1, 17),
    num_classes=st.sampled_from([2, 3, 5, 21, 200, 255]), dtype=st.sampled_from([torch.uint8, torch.int64]),
)  # fmt: skip
def test_counts_equal_two_references(
    seed: int, images: int, height: int, width: int, num_classes: int, dtype: torch.dtype
) -> None:
    pred, masks = labels(seed, (images, height, width), num_classes)
    counts = confusion_per_image(pred.to(dtype), masks.to(dtype), num_classes=num_classes)
    assert counts.dtype == torch.int64
    for row, one, other in zip(counts, pred, masks, strict=True):
        known = other != IGNORE_INDEX
        expected = confusion_matrix(other[known], one[known], labels=range(num_classes)) if known.any() else 0
        np.testing.assert_array_equal(row.numpy(), expected)
    whole = multiclass_confusion_matrix(pred, masks, num_classes, ignore_index=IGNORE_INDEX)
    torch.testing.assert_close(counts.sum(0), whole)
    on_device = _count_on_device(pred.to(dtype), masks.to(dtype), num_classes=num_classes)
    torch.testing.assert_close(on_device, counts)


def test_one_class_counts_its_pixels() -> None:
    masks = torch.tensor([[[0, 0, IGNORE_INDEX]]])
    assert confusion_per_image(torch.zeros_like(masks), masks, num_classes=1).tolist() == [[[2]]]


def test_counts_of_many_pixels_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    pred, masks = labels(0, (2, 40, 50), 3)
    whole = confusion_per_image(pred, masks, num_classes=3)
    monkeypatch.setattr("segwright.confusion.EXACT_IN_FLOAT32", 333)
    torch.testing.assert_close(confusion_per_image(pred, masks, num_classes=3), whole)


def test_a_label_without_a_class_is_named() -> None:
    masks = torch.zeros(1, 4, 4, dtype=torch.int64)
    masks[0, 1, 2] = 7
    with pytest.raises(MaskError, match="label 7 in a mask of 3 classes"):
        confusion_per_image(torch.zeros_like(masks), masks, num_classes=3)


@given(seed=st.integers(0, 10_000), num_classes=st.integers(2, 6))
def test_scores_equal_scikit_learn(seed: int, num_classes: int) -> None:
    pred, masks = labels(seed, (1, 13, 11), num_classes)
    confusion = confusion_per_image(pred, masks, num_classes=num_classes).sum(0).numpy()
    known = masks != IGNORE_INDEX
    truth, guess = masks[known].numpy(), pred[known].numpy()
    there = np.union1d(truth, guess)
    result = score(confusion, classes(num_classes), "all_classes")
    options = {"labels": there, "average": None}
    np.testing.assert_allclose(result.iou[there], jaccard_score(truth, guess, **options))
    np.testing.assert_allclose(result.dice_per_class[there], f1_score(truth, guess, **options))
    assert result.miou == pytest.approx(jaccard_score(truth, guess, labels=there, average="macro"))
    assert result.dice == pytest.approx(f1_score(truth, guess, labels=there, average="macro"))
    assert result.pixel_accuracy == pytest.approx((truth == guess).mean())
    in_truth = np.unique(truth)
    recall = recall_score(truth, guess, labels=in_truth, average="macro")
    assert result.mean_pixel_accuracy == pytest.approx(recall)
    assert set(np.flatnonzero(result.absent)) == set(range(num_classes)) - set(there)


@given(seed=st.integers(0, 10_000))
def test_keras_mars_is_mean_iou_of_keras_after_dropping(seed: int) -> None:
    pred, masks = labels(seed, (1, 9, 9), 5, void=0)
    kept = masks != 0
    confusion = np.zeros((5, 5))
    np.add.at(confusion, (masks[kept].numpy(), pred[kept].numpy()), 1)
    # keras.metrics.MeanIoU: every class whose row or column is not empty
    union = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    expected = (confusion.diagonal()[union > 0] / union[union > 0]).mean()
    counts = confusion_per_image(pred, masks, num_classes=5).sum(0).numpy()
    assert score(counts, classes(5, ignore_in_score=(0,)), "keras-mars").miou == pytest.approx(expected)


class MeanIoU:
    """`keras.metrics.MeanIoU` in NumPy (keras 2 and 3): update_state with sample weights, then result.

    https://github.com/keras-team/keras/blob/master/keras/src/metrics/iou_metrics.py
    """

    def __init__(self, num_classes: int) -> None:
        self.total_cm = np.zeros((num_classes, num_classes))

    def update_state(self, y_true: np.ndarray, y_pred: np.ndarray, sample_weight: np.ndarray) -> None:
        np.add.at(self.total_cm, (y_true.ravel(), y_pred.ravel()), sample_weight.ravel())

    def result(self) -> float:
        true_positives = np.diag(self.total_cm)
        denominator = self.total_cm.sum(axis=0) + self.total_cm.sum(axis=1) - true_positives
        num_valid_entries = np.count_nonzero(denominator > 1e-7)
        iou = np.divide(true_positives, denominator, out=np.zeros_like(denominator), where=denominator != 0)
        return float(iou.sum() / num_valid_entries)


@pytest.mark.parametrize("stray", [False, True])
def test_one_background_pixel_takes_keras_mars_from_68_to_55(stray: bool) -> None:
    rng = np.random.default_rng(1)
    masks = rng.integers(0, 5, (6, 64, 128))
    pred = np.where(rng.random(masks.shape) < 0.19, masks % 4 + 1, np.maximum(masks, 1))
    if stray:
        pred[2, 3, 4], masks[2, 3, 4] = 0, 1
    keras = MeanIoU(5)
    for mask, one in zip(masks, pred, strict=True):
        keras.update_state(mask, one, sample_weight=mask != 0)
    counts = confusion_per_image(torch.from_numpy(pred), torch.from_numpy(masks), num_classes=5).sum(0).numpy()
    mars = classes(5, ignore_in_score=(0,))
    assert score(counts, mars, "keras-mars").miou == pytest.approx(keras.result())
    assert round(keras.result(), 2) == (0.55 if stray else 0.68)
    assert round(float(score(counts, mars).miou), 2) == 0.68


def test_definitions_by_hand() -> None:
    confusion = np.array([[50, 10, 0], [1, 30, 9], [0, 20, 20]])
    apart = classes(3, ignore_in_score=(0,))
    full = [50 / 61, 30 / 70, 20 / 49]
    dropped = [0 / 1, 30 / 60, 20 / 49]
    assert score(confusion, apart, "all_classes").miou == pytest.approx(np.mean(full))
    assert score(confusion, apart, "leave_out_of_mean").miou == pytest.approx(np.mean(full[1:]))
    for name in ("declared", "ignore_in_score"):
        assert score(confusion, apart, name).miou == pytest.approx(np.mean(dropped[1:]))
        assert score(confusion, apart, name).pixel_accuracy == pytest.approx(50 / 80)
    assert score(confusion, apart, "keras-mars").miou == pytest.approx(np.mean(dropped))
    only_mean = classes(3, leave_out_of_mean=(0,))
    assert score(confusion, only_mean).miou == pytest.approx(np.mean(full[1:]))
    assert score(confusion, only_mean, "keras-mars").miou == pytest.approx(np.mean(full))
    assert score(confusion, only_mean).pixel_accuracy == pytest.approx(100 / 140)


def test_one_stray_pixel_costs_a_class_under_keras_mars() -> None:
    clean = np.diag([0, 40, 40, 40, 40])
    stray = clean.copy()
    stray[1, 1], stray[1, 0] = 39, 1
    mars = classes(5, ignore_in_score=(0,))
    assert score(clean, mars, "keras-mars").miou == 1
    assert score(stray, mars, "keras-mars").miou == pytest.approx((39 / 40 + 3) / 5)
    assert score(stray, mars).miou == pytest.approx((39 / 40 + 3) / 4)


@given(seed=st.integers(0, 10_000), name=st.sampled_from(list(DEFINITIONS)))
def test_leading_axes_are_a_loop(seed: int, name: str) -> None:
    rng = np.random.default_rng(seed)
    confusion = rng.integers(0, 9, (2, 3, 4, 4)) * rng.integers(0, 2, (2, 3, 4, 1))
    rules = classes(4, ignore_in_score=(0,), leave_out_of_mean=(3,))
    together = score(confusion, rules, name)
    for place in np.ndindex(2, 3):
        alone = score(confusion[place], rules, name)
        for field in ("miou", "dice", "pixel_accuracy", "mean_pixel_accuracy", "iou", "in_mean", "absent"):
            np.testing.assert_array_equal(getattr(together, field)[place], getattr(alone, field))


def test_sums_of_class_counts_are_counts_of_sums(rng: np.random.Generator) -> None:
    confusion = rng.integers(0, 50, (6, 4, 4))
    rules = classes(4, ignore_in_score=(1,))
    summed = score_counts(class_counts(confusion, rules).sum(0), rules)
    assert summed.miou == score(confusion.sum(0), rules).miou


def test_nothing_to_score_is_unknown_and_warns_nobody() -> None:
    empty = score(np.zeros((3, 3), dtype=np.int64), classes(3))
    assert np.isnan(empty.miou)
    assert np.isnan(empty.pixel_accuracy)
    assert empty.absent.all()


def test_dice_of_pairs_is_a_loop_over_masks() -> None:
    pred, masks = labels(3, (5, 6, 6), 3, void=0)
    masks[0] = 0
    pred[0] = 0
    expected = []
    for one, other in zip(pred, masks, strict=True):
        pairs = []
        for k in range(3):
            total = (one == k).sum() + (other == k).sum()
            pairs.append(1.0 if total == 0 else float(2 * ((one == k) & (other == k)).sum() / total))
        expected.append(np.mean(pairs))
    counts = confusion_per_image(pred, masks, num_classes=3).numpy()
    np.testing.assert_allclose(dice_per_image_label(counts, classes(3)), expected)
    assert dice_per_image_label(counts, classes(3))[0] == 1


def contour(label: np.ndarray, k: int) -> np.ndarray:
    """Contour pixels of class k by the definition, one pixel at a time."""
    height, width = label.shape
    found = []
    for y, x in np.argwhere(label == k):
        around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        inside = [label[b, a] for b, a in around if 0 <= b < height and 0 <= a < width]
        if any(other not in (k, IGNORE_INDEX) for other in inside):
            found.append((y, x))
    return np.array(found).reshape(-1, 2)


@given(
    seed=st.integers(0, 10_000), height=st.integers(1, 12), width=st.integers(1, 12),
    tolerance=st.sampled_from([0.0, 1.0, 1.5, 3.0]),
)  # fmt: skip
def test_boundary_counts_equal_all_pairs_of_pixels(seed: int, height: int, width: int, tolerance: float) -> None:
    pred, masks = (tensor[0].numpy().astype(np.uint8) for tensor in labels(seed, (1, height, width), 3))
    counts = boundary_counts(pred, masks, num_classes=3, tolerance_px=tolerance)
    seen = np.where(masks == IGNORE_INDEX, IGNORE_INDEX, pred)
    for k in range(3):
        one, other = contour(seen, k), contour(masks, k)
        near = cdist(one, other) <= tolerance
        expected = [len(one), near.any(1).sum(), len(other), near.any(0).sum()]
        np.testing.assert_array_equal(counts[k], expected)


@pytest.mark.parametrize("tolerance", [1, 5, 17])
def test_boundary_counts_of_blocks_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch, tolerance: int) -> None:
    small = [label[0].to(torch.uint8).numpy() for label in labels(3, (1, 15, 21), num_classes=4)]
    pred, mask = (cv2.resize(label, (210, 150), interpolation=cv2.INTER_NEAREST) for label in small)
    whole = boundary_counts(pred, mask, num_classes=4, tolerance_px=tolerance)
    monkeypatch.setattr(metrics, "LARGE_BLOCK_PX", 32)
    np.testing.assert_array_equal(boundary_counts(pred, mask, num_classes=4, tolerance_px=tolerance), whole)
    assert (whole[:, 1] > 0).all()
    assert (whole[:, 1] < whole[:, 0]).any()


def test_labels_are_counted(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    mask = rng.integers(0, 256, (40, 70), dtype=np.uint8)
    expected = np.bincount(mask.ravel(), minlength=256)
    np.testing.assert_array_equal(count_labels(mask), expected)
    monkeypatch.setattr(metrics, "EXACT_IN_FLOAT32", 211)
    np.testing.assert_array_equal(count_labels(mask), expected)
    np.testing.assert_array_equal(count_labels(mask[::2, ::3]), np.bincount(mask[::2, ::3].ravel(), minlength=256))
    assert count_labels(np.zeros((0, 5), np.uint8)).sum() == 0


def test_boundary_f1_by_hand() -> None:
    mask = np.zeros((20, 20), dtype=np.uint8)
    mask[5:15, 5:15] = 1
    assert mean_boundary_f1(boundary_counts(mask, mask, num_classes=3, tolerance_px=1), classes(3)) == 1
    shifted = np.roll(mask, 4, axis=1)
    far = boundary_f1(boundary_counts(shifted, mask, num_classes=3, tolerance_px=1))
    near = boundary_f1(boundary_counts(shifted, mask, num_classes=3, tolerance_px=4))
    assert 0 < far[1] < 1
    assert near[1] == 1
    assert np.isnan(far[2])
    assert boundary_f1(np.array([[8, 4, 10, 10]]))[0] == pytest.approx(2 * 0.5 * 1 / 1.5)
    assert np.isnan(mean_boundary_f1(np.zeros((3, 4), dtype=np.int64), classes(3)))


def test_boundary_tolerance() -> None:
    assert boundary_tolerance_px(360, 480) == round(0.0075 * 600)
    assert boundary_tolerance_px(4, 4) == 1
