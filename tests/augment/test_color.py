"""Colour changes follow their formula on both paths and leave alone what they must."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from segwright.augment.color import (
    NOISE_BANK,
    color_float_on_cpu,
    color_on_device,
    color_uint8_on_cpu,
    draw_color,
    mixing_matrices,
    noise_bank,
    tone_tables,
)
from segwright.augment.policy import PRESETS, Policy

EVERYTHING = Policy(
    brightness=0.2, contrast=0.3, gamma=0.3, hue_degrees=30.0, saturation=0.4, blur_sigma_px=2.0, noise=0.05
)


def by_formula(image: np.ndarray, color, n: int) -> np.ndarray:
    """The docstring of the module in float64."""
    value = image.astype(np.float64)
    if color.blur_sigma_px is not None and color.blur_sigma_px[n] > 0:
        value = gaussian_filter(value, (color.blur_sigma_px[n],) * 2 + (0,), mode="mirror")
    value /= 255
    if color.mixing is not None:
        value = np.einsum("ij,hwj->hwi", color.mixing[n], value)
    value = np.clip(value * color.gain[n] + color.offset[n], 0, 1) ** color.gamma[n]
    if color.noise is not None:
        start = color.noise_start[n]
        value += color.noise[n] * np.take(noise_bank(), np.arange(start, start + value.size), mode="wrap").reshape(
            value.shape
        )
    return np.clip(255 * value, 0, 255)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_both_paths_follow_the_formula(rng, channels):
    count = 24
    noisy = rng.integers(40, 216, (count, 31, 37, channels), dtype=np.uint8)
    color = draw_color(EVERYTHING, count, channels=channels, rng=rng)
    assert color.blur_sigma_px is not None
    assert color.noise is not None
    tables = tone_tables(color)
    on_device = color_on_device(torch.from_numpy(noisy).permute(0, 3, 1, 2).float(), color, full_scale=255.0)
    for n in range(count):
        expected = by_formula(noisy[n], color, n)
        changed = noisy[n].copy()
        color_uint8_on_cpu(changed, color, n, table=None if tables is None else tables[n])
        # Rounding before a power below 1 is magnified in the dark.
        assert np.abs(changed - expected).mean() < 1.0
        assert np.abs(changed - expected).max() < 12
        torched = on_device[n].permute(1, 2, 0).clamp(0, 255).numpy()
        assert np.abs(torched - expected).max() < 0.6


def test_noise_wraps_at_the_end_of_its_bank(rng):
    color = draw_color(Policy(noise=0.1), 64, channels=1, rng=rng)
    assert color.noise is not None
    color.noise_start[:] = NOISE_BANK - 50
    n = int(np.argmax(color.noise))
    image = np.full((20, 20, 1), 128, dtype=np.uint8)
    color_uint8_on_cpu(image, color, n, table=None)
    assert np.abs(image - by_formula(np.full((20, 20, 1), 128), color, n)).max() <= 0.51
    assert abs((image.astype(float) - 128).std() / 255 - color.noise[n]) < 0.02


def test_gray_and_brightness_survive_hue_and_saturation():
    mixing = mixing_matrices(hue_degrees=np.linspace(-180, 180, 13), saturation=np.linspace(0, 2, 13))
    np.testing.assert_allclose(mixing.sum(axis=2), 1, atol=1e-9)
    np.testing.assert_allclose(
        np.array([0.213, 0.715, 0.072]) @ mixing, np.tile([0.213, 0.715, 0.072], (13, 1)), atol=1e-3
    )


def test_hue_turns_add_up_and_a_full_turn_is_none():
    half, whole, full = mixing_matrices(hue_degrees=np.array([40.0, 80.0, 360.0]), saturation=np.ones(3))
    np.testing.assert_allclose(half @ half, whole, atol=2e-3)
    np.testing.assert_allclose(full, np.eye(3), atol=1e-9)


def test_no_saturation_makes_gray():
    pixel = mixing_matrices(hue_degrees=np.zeros(1), saturation=np.zeros(1))[0] @ np.array([0.9, 0.2, 0.4])
    np.testing.assert_allclose(pixel, 0.213 * 0.9 + 0.715 * 0.2 + 0.072 * 0.4)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3, 6])
def test_other_types_keep_their_own_range(rng, dtype, channels):
    image = (rng.random((30, 40, channels)) * 3000 + 500).astype(dtype)
    calm = Policy(brightness=0.2, contrast=0.3, gamma=0.3, hue_degrees=20.0, saturation=0.3)
    color = draw_color(calm, 8, channels=channels, rng=rng)
    stack = torch.from_numpy(np.stack([image.astype(np.float32).transpose(2, 0, 1)] * 8))
    on_device = color_on_device(stack, color, full_scale=None)
    for n in range(8):
        changed = image.copy()
        color_float_on_cpu(changed, color, n)
        assert changed.dtype == dtype
        assert image.min() - 1 <= changed.min()
        assert changed.max() <= image.max() + 1
        assert not np.array_equal(changed, image)
        np.testing.assert_allclose(changed, on_device[n].permute(1, 2, 0).numpy(), atol=1.0)


def test_a_constant_float_image_does_not_divide_by_zero(rng):
    image = np.full((8, 8, 2), 7.0, dtype=np.float32)
    color_float_on_cpu(image, draw_color(PRESETS["strong"], 1, channels=2, rng=rng), 0)
    assert np.isfinite(image).all()


def test_nothing_is_drawn_that_is_off(rng):
    color = draw_color(PRESETS["none"], 5, channels=3, rng=rng)
    assert color.changes_nothing
    assert tone_tables(color) is None
    assert draw_color(PRESETS["medium"], 5, channels=1, rng=rng).mixing is None
