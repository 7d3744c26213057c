"""Pictures show what they claim: colours of classes, wrong pixels, and charts that a browser can read."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from segwright import pictures
from segwright.pictures import (
    VOID,
    WRONG,
    as_rgb,
    class_bars,
    colored,
    confusion_matrix,
    curves,
    error_map,
    histogram,
    overlay,
    to_png,
    to_webp,
)

PALETTE = np.array([[0, 0, 0], [250, 100, 50]], dtype=np.uint8)


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_any_image_can_be_shown(bands: int, dtype: type, rng: np.random.Generator) -> None:
    image = (rng.random((bands, 9, 12)) * (1 if dtype == np.float32 else 255)).astype(dtype)
    shown = as_rgb(image)
    assert shown.shape == (9, 12, 3)
    assert shown.dtype == np.uint8
    assert shown.std() > 30
    if dtype == np.uint8:
        np.testing.assert_array_equal(shown[..., 0], image[0])


def test_unknown_values_and_flat_images_can_be_shown() -> None:
    image = np.full((1, 4, 4), np.nan, dtype=np.float32)
    assert as_rgb(image).shape == (4, 4, 3)
    assert as_rgb(np.full((3, 4, 4), 1000, dtype=np.uint16)).max() == 0


def test_overlay_mixes_by_alpha_and_leaves_void_alone() -> None:
    image = np.full((3, 2, 2), 100, dtype=np.uint8)
    mask = np.array([[0, 1], [255, 1]], dtype=np.uint8)
    shown = overlay(image, mask, PALETTE, alpha=0.4)
    np.testing.assert_array_equal(shown[0, 0], [60, 60, 60])
    np.testing.assert_array_equal(shown[0, 1], [160, 100, 80])
    np.testing.assert_array_equal(shown[1, 0], [100, 100, 100])
    np.testing.assert_array_equal(overlay(image, mask, PALETTE, alpha=1)[0, 1], PALETTE[1])
    np.testing.assert_array_equal(colored(mask, PALETTE)[1, 0], VOID)


def test_error_map_marks_wrong_pixels_only() -> None:
    image = np.full((1, 2, 2), 80, dtype=np.uint8)
    mask = np.array([[0, 1], [255, 1]], dtype=np.uint8)
    pred = np.array([[0, 0], [1, 1]], dtype=np.uint8)
    shown = error_map(image, mask, pred)
    np.testing.assert_array_equal(shown[0, 1], WRONG)
    np.testing.assert_array_equal(shown[1, 0], VOID)
    for right in (shown[0, 0], shown[1, 1]):
        assert right.min() == right.max() > 150


def test_pictures_survive_their_files(rng: np.random.Generator) -> None:
    photo = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(to_png(photo)))), photo)
    smooth = np.broadcast_to(np.linspace(0, 255, 30).astype(np.uint8)[None, :, None], (20, 30, 3))
    back = np.asarray(Image.open(io.BytesIO(to_webp(np.ascontiguousarray(smooth)))).convert("RGB")).astype(int)
    assert np.abs(back - smooth).mean() < 4


ROWS = [{"epoch": k, "train_loss": 2 / (k + 1), "val_loss": 2.2 / (k + 1), "val_miou": k / 10} for k in range(8)]


def texts(svg: str) -> list[str]:
    """The words of a chart; parsing fails where the SVG is damaged."""
    return [node.text for node in ET.fromstring(svg).iter() if node.tag.endswith("text") and node.text]


@pytest.mark.parametrize(
    "chart",
    [
        curves(ROWS, {"train_loss": "training", "val_loss": "validation"}, y_label="loss", best="min"),
        curves(ROWS, {"val_miou": "validation"}, y_label="mIoU", best="max"),
        curves(ROWS[:1], {"val_miou": "validation"}, y_label="mIoU", best="max"),
        curves([{"epoch": 1}], {"val_miou": "validation"}, y_label="mIoU", best="max"),
        histogram(np.array([0.1, 0.4, np.nan]), x_label="mIoU"),
        histogram(np.array([]), x_label="mIoU"),
        confusion_matrix(np.eye(3, dtype=np.int64), ["a", "b", "c"]),
        confusion_matrix(np.zeros((2, 2), dtype=np.int64), ["a", "b"]),
        class_bars({"truth": [0.2, 0.8], "prediction": [0.3, 0.7]}, ["a", "b"]),
    ],
)
def test_charts_take_the_colours_of_the_page(chart: str) -> None:
    texts(chart)
    assert 'viewBox="' in chart
    assert "var(--" in chart
    for inner in (*pictures._PAGE_COLORS, "<style", "<script", "font-family", "<metadata"):
        assert inner not in chart


def test_charts_say_what_they_show() -> None:
    words = texts(curves(ROWS, {"val_miou": "validation"}, y_label="mean IoU", best="max"))
    assert "0.700 at 7" in words
    assert {"mean IoU", "epoch"} <= set(words)
    assert {"truth", "prediction"} <= set(texts(class_bars({"truth": [1.0], "prediction": [1.0]}, ["a"])))
    assert "median 0.300" in texts(histogram(np.array([0.2, 0.3, 0.9, np.nan]), x_label="mIoU"))


def test_the_best_of_losses_is_the_lowest() -> None:
    words = texts(curves(ROWS, {"train_loss": "training", "val_loss": "validation"}, y_label="loss", best="min"))
    assert "0.250 at 7" in words


def test_confusion_shows_shares_of_the_row() -> None:
    words = texts(confusion_matrix(np.array([[75, 25], [0, 0]]), ["a", "b"]))
    assert {"75", "25"} <= set(words)
    assert "0" not in words


def test_names_are_texts_not_markup() -> None:
    names = ["<script>alert(1)</script>", "$x_1$ & #010101"]
    for chart in (confusion_matrix(np.eye(2, dtype=np.int64), names), class_bars({"truth": [0.5, 0.5]}, names)):
        assert "<script>" not in chart
        assert set(names) <= set(texts(chart))


def test_charts_are_the_same_every_time() -> None:
    assert histogram(np.array([0.5]), x_label="x") == histogram(np.array([0.5]), x_label="x")


def test_share_curves_draw_both_sets_over_their_scale() -> None:
    shares = {"training": [0.5, 0.5, 0.0], "test": [0.0, 0.25, 0.75]}
    chart = pictures.share_curves([0, 85, 170, 255], shares, title="brightness (0 to 255)")
    assert {"brightness (0 to 255)", "training", "test", "250", "60%"} <= set(texts(chart))
    assert "--series-2" in chart
