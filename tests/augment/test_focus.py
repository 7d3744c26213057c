"""Crops are moved onto a pixel and stay within the image; nothing but the shift changes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from segwright.augment import draw
from segwright.augment.focus import JITTER, centred_maps
from segwright.augment.geometry import draw_maps
from segwright.augment.policy import Policy

UPRIGHT = Policy(flip_horizontal=0.5, flip_vertical=0.5, quarter_turns=True, scale=(0.5, 2.0))


def place_in_crop(matrix: np.ndarray, anchor: np.ndarray) -> np.ndarray:
    """Column and row of a pixel of the image in the crop."""
    return np.linalg.solve(matrix[:, :2], anchor[::-1] - matrix[:, 2])


@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    crop=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    zoomed=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_the_pixel_is_in_the_crop_and_the_crop_in_the_image(size, crop, zoomed, seed):
    rng = np.random.default_rng(seed)
    sizes = np.array([size] * 6)
    policy = UPRIGHT if zoomed else Policy(flip_horizontal=0.5, quarter_turns=True)
    maps = draw_maps(policy, sizes, crop_px=crop, rng=rng)
    anchors = np.stack([rng.integers(0, side, 6) for side in size], axis=1).astype(np.float64)
    moved = centred_maps(maps, sizes, crop_px=crop, anchors=anchors, rng=rng)
    np.testing.assert_array_equal(moved[:, :, :2], maps[:, :, :2])
    for matrix, anchor in zip(moved, anchors, strict=True):
        # A pixel counts as shown where its middle lies in the crop; whole-pixel maps may be rounded by half a pixel.
        spare = 0.5 + (0.5 if not zoomed else 0.5 / abs(matrix[:, :2]).max() + 1e-6)
        place = place_in_crop(matrix, anchor)
        assert (place >= -spare).all()
        assert (place <= np.array(crop[::-1]) - 1 + spare).all()
        corners = matrix @ np.array([[-0.5, crop[1] - 0.5], [-0.5, crop[0] - 0.5], [1, 1]])
        low, high = corners.min(axis=1), corners.max(axis=1)
        fits = high - low <= np.array(size[::-1])
        assert (low[fits] >= -1 - 1e-6).all()
        assert (high[fits] <= np.array(size[::-1])[fits] + 1e-6).all()


def test_far_from_borders_the_pixel_lies_anywhere_in_the_middle_half():
    rng = np.random.default_rng(0)
    sizes, crop = np.array([(400, 500)] * 2000), (40, 60)
    policy = Policy(rotate_degrees=40.0, shear_degrees=8.0, scale=(0.8, 1.5), translate=0.1)
    maps = draw_maps(policy, sizes, crop_px=crop, rng=rng)
    anchors = np.full((2000, 2), 200.0)
    moved = centred_maps(maps, sizes, crop_px=crop, anchors=anchors, rng=rng)
    places = np.stack([place_in_crop(matrix, anchors[0]) for matrix in moved]) - [29.5, 19.5]
    assert (abs(places) <= np.array([60, 40]) * JITTER + 1e-6).all()
    np.testing.assert_allclose(places.std(axis=0), np.array([60, 40]) * JITTER / np.sqrt(3), rtol=0.05)


def test_maps_without_an_anchor_stay(rng):
    sizes = np.array([(50, 50)] * 4)
    maps = draw_maps(Policy(rotate_degrees=10.0), sizes, crop_px=(20, 20), rng=rng)
    anchors = np.array([[np.nan, np.nan], [3.0, 3.0], [np.nan, np.nan], [40.0, 2.0]])
    moved = centred_maps(maps, sizes, crop_px=(20, 20), anchors=anchors, rng=rng)
    np.testing.assert_array_equal(moved[[0, 2]], maps[[0, 2]])
    assert (moved[[1, 3]] != maps[[1, 3]]).any(axis=(1, 2)).all()


@given(
    size=st.tuples(st.integers(20, 80), st.integers(20, 80)),
    crop=st.tuples(st.integers(8, 40), st.integers(8, 40)),
    turned=st.booleans(),
    distorted=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_what_was_filled_by_zoom_stays_filled(size, crop, turned, distorted, seed):
    rng = np.random.default_rng(seed)
    policy = Policy(
        flip_horizontal=0.5, quarter_turns=True, rotate_degrees=60.0 * turned, scale=(0.5, 1.5) if turned else (1, 1),
        elastic_px=3.0 * distorted, grid_distortion=0.1 * distorted, rotate_fill="zoom",
    )  # fmt: skip
    sizes = np.array([size] * 8)
    parameters = draw(policy, sizes, crop_px=crop, channels=1, rng=rng)
    reach = None if parameters.distortion is None else parameters.distortion.reach_px()
    # The corners of an image are the hardest to come near.
    anchors = np.array([[row, column] for row in (0.0, size[0] - 1) for column in (0.0, size[1] - 1)] * 2)
    moved = centred_maps(
        parameters.matrices, sizes, crop_px=crop, anchors=anchors, rng=rng, fill="zoom", reach_px=reach
    )
    down, across = np.mgrid[: crop[0], : crop[1]]
    pixels = np.stack([across, down, np.ones_like(down)]).reshape(3, -1)
    read = (moved @ pixels).reshape(8, 2, *crop)
    if parameters.distortion is not None:
        read = read + parameters.distortion.fields(crop).transpose(0, 3, 1, 2)
        small = (reach > (np.array(size[::-1]) - 1) / 4).any(axis=1)  # half of a tiny image stays, and may be reflected
        read = read[~small]
    assert (read > -1e-4).all()
    assert (read < np.array(size[::-1])[None, :, None, None] - 1 + 1e-4).all()
