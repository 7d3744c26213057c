"""Pictures show what they claim: colours of classes, and wrong pixels."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from segwright.pictures import (
    VOID,
    WRONG,
    as_rgb,
    colored,
    error_map,
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
