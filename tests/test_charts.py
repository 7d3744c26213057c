"""Charts show what they claim, and a browser can read them."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from segwright.charts import _PAGE_COLORS, class_bars, confusion_matrix, curves, histogram, learning_curve, share_curves

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
        learning_curve(
            [(10, 0.4, None), (20, 0.5, 0.01)], [(10, 0.4, 0.3, 0.5), (20, 0.5, 0.4, 0.6), (30, 0.55, 0.4, 0.7)]
        ),
    ],
)
def test_charts_take_the_colours_of_the_page(chart: str) -> None:
    texts(chart)
    assert 'viewBox="' in chart
    assert "var(--" in chart
    for inner in (*_PAGE_COLORS, "<style", "<script", "font-family", "<metadata"):
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
    chart = share_curves([0, 85, 170, 255], shares, title="brightness (0 to 255)")
    assert {"brightness (0 to 255)", "training", "test", "250", "60%"} <= set(texts(chart))
    assert "--series-2" in chart
