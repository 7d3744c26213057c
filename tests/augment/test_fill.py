"""Filling by zoom: never a reflected pixel, and no more zoom than the formula says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segwright.augment import Policy, augment_on_cpu, augment_on_device, draw
from segwright.augment.geometry import draw_maps

ANY = Policy(
    flip_horizontal=0.5, flip_vertical=0.5, quarter_turns=True, rotate_degrees=180.0, scale=(0.5, 1.5),
    shear_degrees=15.0, translate=0.5, rotate_fill="zoom",
)  # fmt: skip


def corners(maps: np.ndarray, crop: tuple[int, int]) -> np.ndarray:
    """Where the four corners of the crop are read, (N, 2, 4)."""
    x, y = crop[1] - 1, crop[0] - 1
    return maps @ np.array([[0, x, 0, x], [0, 0, y, y], [1, 1, 1, 1]], dtype=np.float64)


@given(
    size=st.tuples(st.integers(2, 80), st.integers(2, 80)),
    crop=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    seed=st.integers(0, 2**31),
)
def test_no_corner_is_read_beyond_the_image(size, crop, seed):
    maps = draw_maps(ANY, np.array([size] * 20), crop_px=crop, rng=np.random.default_rng(seed))
    read = corners(maps, crop)
    assert read.min() > -1e-6
    assert (read[:, 0] < size[1] - 1 + 1e-6).all()
    assert (read[:, 1] < size[0] - 1 + 1e-6).all()


@given(size=st.tuples(st.integers(30, 60), st.integers(30, 60)), seed=st.integers(0, 2**31))
def test_a_distortion_of_an_image_without_turn_leads_nowhere_beyond_it(size, seed):
    policy, reach = Policy(flip_horizontal=0.5, translate=0.5, rotate_fill="zoom"), 2.3
    maps = draw_maps(
        policy,
        np.array([size] * 20),
        crop_px=(16, 20),
        rng=np.random.default_rng(seed),
        reach_px=np.full((20, 2), reach),
    )
    read = corners(maps, (16, 20))
    assert np.isin(maps[:, :, :2], (-1.0, 0.0, 1.0)).all(), "there is room for the reach without zoom"
    assert read.min() > reach - 1e-6
    assert (read[:, 0] < size[1] - 1 - reach + 1e-6).all()
    assert (read[:, 1] < size[0] - 1 - reach + 1e-6).all()


@pytest.mark.parametrize("size", [(61, 61), (41, 101), (101, 41)])
def test_the_zoom_is_that_of_the_formula(size):
    policy = Policy(rotate_degrees=60.0, rotate_fill="zoom")
    maps = draw_maps(policy, np.array([size] * 50), crop_px=size, rng=np.random.default_rng(0))
    zoom = 1 / np.sqrt(np.abs(np.linalg.det(maps[:, :, :2])))
    angle = np.abs(np.arctan2(maps[:, 1, 0], maps[:, 0, 0]))
    width, height = size[1] - 1, size[0] - 1
    np.testing.assert_allclose(zoom, np.cos(angle) + max(width / height, height / width) * np.sin(angle), rtol=1e-9)
    # No more than needed: some corner lies on a border of the image.
    read = corners(maps, size)
    gaps = np.minimum(read, np.array([width, height])[None, :, None] - read)
    np.testing.assert_allclose(gaps.min(axis=(1, 2)), 0, atol=1e-9)


def test_an_image_without_turn_keeps_its_pixels(rng):
    image = rng.integers(0, 256, (1, 20, 30), dtype=np.uint8)
    policy = Policy(flip_horizontal=0.5, translate=0.4, rotate_fill="zoom")
    parameters = draw(policy, np.array([[20, 30]] * 10), crop_px=(20, 30), channels=1, rng=rng)
    out, _ = augment_on_cpu([image] * 10, None, parameters, crop_px=(20, 30))
    for one in out.numpy():
        assert np.array_equal(one, image) or np.array_equal(one, image[:, :, ::-1])


@pytest.mark.parametrize("policy", [ANY, Policy(rotate_degrees=30.0, rotate_fill="zoom", elastic_px=4.0)])
def test_each_pixel_shows_the_place_it_is_read_from(policy):
    """Reflection would fold the picture: where coordinates are its values, it would show the wrong ones."""
    size, crop, count = (60, 90), (60, 90), 24
    rng = np.random.default_rng(4)
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    image = np.stack([x, y])
    parameters = draw(policy, np.array([size] * count), crop_px=crop, channels=2, rng=rng)
    down, across = np.mgrid[: crop[0], : crop[1]]
    places = np.stack([across, down, np.ones_like(down)]).reshape(3, -1)
    wanted = (parameters.matrices @ places).reshape(count, 2, *crop)
    if parameters.distortion is not None:
        wanted = wanted + parameters.distortion.fields(crop).transpose(0, 3, 1, 2)
    on_cpu, _ = augment_on_cpu([image] * count, None, parameters, crop_px=crop)
    on_device, _ = augment_on_device(torch.from_numpy(np.stack([image] * count)), None, parameters, crop_px=crop)
    np.testing.assert_allclose(on_cpu.numpy(), wanted, atol=0.04)
    np.testing.assert_allclose(on_device.numpy(), wanted, atol=0.01)


def test_reflection_is_what_zoom_avoids(rng):
    size = (60, 90)
    maps = draw_maps(Policy(rotate_degrees=40.0), np.array([size] * 20), crop_px=size, rng=rng)
    assert corners(maps, size).min() < -1
