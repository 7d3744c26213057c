"""Maps are drawn as described, and read alike by OpenCV, torch and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from segwright.augment.device_geometry import warp_on_device
from segwright.augment.geometry import (
    LARGEST_SIDE_PX,
    draw_maps,
    warp_image_on_cpu,
    warp_mask_on_cpu,
    whole_pixel_window,
)
from segwright.augment.policy import Policy

STRONG = Policy(
    flip_horizontal=0.5,
    flip_vertical=0.5,
    quarter_turns=True,
    rotate_degrees=30.0,
    scale=(0.5, 2.0),
    shear_degrees=10.0,
    translate=0.2,
)


def smooth(rng: np.random.Generator, height: int, width: int, channels: int) -> np.ndarray:
    """A picture that changes by a few levels a pixel, so a rounded coordinate moves a value little."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 9 + k) + np.cos(y / 7 - k) + rng.random() for k in range(channels)]
    return np.stack(waves, axis=2).astype(np.float32) * 40


def read_by_scipy(image: np.ndarray, matrix: np.ndarray, crop_px: tuple[int, int], *, order: int) -> np.ndarray:
    y, x = np.mgrid[: crop_px[0], : crop_px[1]]
    places = np.tensordot(matrix, np.stack([x, y, np.ones_like(x)]), axes=1)[::-1]
    return np.stack(
        [map_coordinates(band, places, order=order, mode="mirror") for band in np.moveaxis(image, 2, 0)], axis=2
    )


@pytest.mark.parametrize("channels", [1, 3, 7])
@pytest.mark.parametrize("size", [(40, 60), (25, 90), (1, 33)])
def test_cpu_and_device_read_what_scipy_reads(rng, channels, size):
    image, crop = smooth(rng, *size, channels), (48, 52)
    maps = draw_maps(STRONG, np.array([size] * 6), crop_px=crop, rng=rng)
    stack = torch.from_numpy(np.stack([image.transpose(2, 0, 1)] * 6))
    on_device, _ = warp_on_device(stack, None, maps, crop_px=crop)
    for n, matrix in enumerate(maps):
        out = np.empty((*crop, channels), dtype=np.float32)
        warp_image_on_cpu(image, matrix, out=out)
        expected = read_by_scipy(image, matrix, crop, order=1)
        np.testing.assert_allclose(out, expected, atol=0.5)
        np.testing.assert_allclose(on_device[n].numpy().transpose(1, 2, 0), expected, atol=0.02)


def test_masks_are_read_at_the_nearest_pixel(rng):
    mask, crop = rng.integers(0, 9, (40, 60), dtype=np.uint8), (48, 52)
    maps = draw_maps(STRONG, np.array([mask.shape] * 8), crop_px=crop, rng=rng)
    zeros = torch.zeros(8, 1, 40, 60)
    _, on_device = warp_on_device(zeros, torch.from_numpy(np.stack([mask] * 8)), maps, crop_px=crop)
    assert on_device is not None
    for n, matrix in enumerate(maps):
        out = np.empty(crop, dtype=np.uint8)
        warp_mask_on_cpu(mask, matrix, out=out)
        expected = read_by_scipy(mask[:, :, None], matrix, crop, order=0)[:, :, 0]
        # Pixels halfway between two others may go either way.
        assert (out != expected).mean() < 0.005
        assert (on_device[n].numpy() != expected).mean() < 0.005


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    crop=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    seed=st.integers(0, 2**31),
)
def test_flips_turns_and_crops_never_resample(size, crop, seed):
    policy = Policy(flip_horizontal=0.5, flip_vertical=0.5, quarter_turns=True)
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (*size, 2), dtype=np.uint8)
    matrix = draw_maps(policy, np.array([size]), crop_px=crop, rng=rng)[0]
    out = np.empty((*crop, 2), dtype=np.uint8)
    warp_image_on_cpu(image, matrix, out=out)
    np.testing.assert_array_equal(out, read_by_scipy(image, matrix, crop, order=0))
    if min(size) >= max(crop):
        assert whole_pixel_window(matrix, size_px=size, crop_px=crop) is not None


def test_flips_and_turns_are_those_of_numpy(rng):
    image = rng.integers(0, 256, (16, 16, 1), dtype=np.uint8)
    policy = Policy(flip_horizontal=0.5, quarter_turns=True)
    seen = set()
    for matrix in draw_maps(policy, np.array([image.shape[:2]] * 200), crop_px=(16, 16), rng=rng):
        out = np.empty_like(image)
        warp_image_on_cpu(image, matrix, out=out)
        seen.add(out.tobytes())
    wanted = {np.rot90(base, k).tobytes() for base in (image, image[:, ::-1]) for k in range(4)}
    assert seen == wanted


def test_crops_lie_everywhere_equally_often():
    rng = np.random.default_rng(3)
    maps = draw_maps(Policy(), np.array([[10, 12]] * 8000), crop_px=(8, 8), rng=rng)
    places, counts = np.unique(maps[:, :, 2], axis=0, return_counts=True)
    assert {tuple(place) for place in places} == {(x, y) for x in range(5) for y in range(3)}
    assert counts.min() > 0.8 * 8000 / 15


def test_zoom_is_log_uniform_within_its_range():
    rng = np.random.default_rng(3)
    maps = draw_maps(Policy(scale=(0.5, 2.0)), np.array([[50, 50]] * 4000), crop_px=(50, 50), rng=rng)
    zoom = 1 / maps[:, 0, 0]
    assert zoom.min() >= 0.5
    assert zoom.max() <= 2.0
    assert abs((zoom < 1).mean() - 0.5) < 0.03


def test_a_small_image_lies_whole_in_a_large_crop(rng):
    maps = draw_maps(Policy(), np.array([[10, 12]] * 50), crop_px=(30, 20), rng=rng)
    first = -maps[:, :, 2]  # where input pixel (0, 0) lies in the crop
    assert (first >= 0).all()
    assert (first <= np.array([20 - 12, 30 - 10])).all()


@pytest.mark.parametrize("size", [(6, LARGEST_SIDE_PX + 3000), (LARGEST_SIDE_PX + 3000, 6)])
def test_sides_beyond_what_opencv_addresses(rng, size):
    image = smooth(rng, *size, 1)
    mask = (image[:, :, 0] > 0).astype(np.uint8)
    crop = (24, 30)
    policy = Policy(rotate_degrees=20.0, scale=(0.8, 1.2))
    for matrix in draw_maps(policy, np.array([size] * 4), crop_px=crop, rng=rng):
        out, labels = np.empty((*crop, 1), dtype=np.float32), np.empty(crop, dtype=np.uint8)
        warp_image_on_cpu(image, matrix, out=out)
        warp_mask_on_cpu(mask, matrix, out=labels)
        np.testing.assert_allclose(out, read_by_scipy(image, matrix, crop, order=1), atol=0.6)
        assert (labels != read_by_scipy(mask[:, :, None], matrix, crop, order=0)[:, :, 0]).mean() < 0.01


@pytest.mark.parametrize(("size", "crop"), [((70, 90), (64, 80)), ((30, 30), (20, 20)), ((300, 400), (64, 64))])
def test_colours_are_read_as_each_channel_alone(rng, size, crop):
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    for matrix in draw_maps(STRONG, np.array([size] * 4), crop_px=crop, rng=rng):
        out, alone = np.empty((*crop, 3), dtype=np.uint8), np.empty((*crop, 1), dtype=np.uint8)
        warp_image_on_cpu(image, matrix, out=out)
        for channel in range(3):
            warp_image_on_cpu(np.ascontiguousarray(image[:, :, channel : channel + 1]), matrix, out=alone)
            np.testing.assert_array_equal(out[:, :, channel], alone[:, :, 0])
