"""Elastic and grid distortion: smooth, as large as asked, alike on both paths, and aligned with the masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, map_coordinates

from segwright.augment import Policy, augment_on_cpu, augment_on_device, draw
from segwright.augment.distortion import GRID_CELLS, Distortion, draw_distortion
from segwright.augment.geometry import places_of, warp_image_on_cpu, warp_mask_on_cpu
from segwright.errors import RecipeError


def test_nothing_is_drawn_where_nothing_is_distorted():
    rng = np.random.default_rng(1)
    assert draw_distortion(Policy(), 4, crop_px=(20, 30), rng=rng) is None
    assert rng.random() == np.random.default_rng(1).random()


@pytest.mark.parametrize("sigma", [2.0, 8.0, 100.0])
def test_an_elastic_field_is_as_large_as_drawn_and_no_larger(rng, sigma):
    policy = Policy(elastic_px=6.0, elastic_sigma_px=sigma)
    drawn = draw_distortion(policy, 200, crop_px=(40, 60), rng=rng)
    assert drawn is not None
    fields = drawn.fields((40, 60))
    largest = np.linalg.norm(fields, axis=3).max(axis=(1, 2))
    assert largest.max() <= 6.0 + 1e-4
    assert abs(largest.mean() - 3.0) < 0.5
    assert (np.abs(fields).max(axis=(1, 2)) <= drawn.reach_px() + 1e-5).all()


def test_an_elastic_field_is_as_smooth_as_white_noise_after_the_gaussian():
    policy, size = Policy(elastic_px=1.0, elastic_sigma_px=6.0), (240, 240)
    drawn = draw_distortion(policy, 12, crop_px=size, rng=np.random.default_rng(2))
    assert drawn is not None
    noise = np.random.default_rng(3).uniform(-1, 1, (12, *size))
    smoothed = np.stack([gaussian_filter(one, 6.0) for one in noise])

    def correlation(fields: np.ndarray, lag: int) -> float:
        return float(np.corrcoef(fields[:, :, :-lag].ravel(), fields[:, :, lag:].ravel())[0, 1])

    for lag in (4, 8, 14):
        assert abs(correlation(drawn.fields(size)[..., 0], lag) - correlation(smoothed, lag)) < 0.08


def test_grid_nodes_move_by_a_share_of_a_cell(rng):
    size = (51, 101)
    drawn = draw_distortion(Policy(grid_distortion=0.3), 50, crop_px=size, rng=rng)
    assert drawn is not None
    assert drawn.grid is not None
    fields = drawn.fields(size)
    at_nodes = fields[:, :: 50 // GRID_CELLS, :: 100 // GRID_CELLS]
    np.testing.assert_allclose(at_nodes, drawn.grid, atol=1e-4)
    assert np.abs(fields[..., 0]).max() <= 0.3 * 100 / GRID_CELLS
    assert np.abs(fields[..., 1]).max() <= 0.3 * 50 / GRID_CELLS
    assert np.abs(fields[..., 1]).max() > 0.28 * 50 / GRID_CELLS


def test_parts_are_those_of_the_whole(rng):
    policy = Policy(elastic_px=4.0, elastic_sigma_px=5.0, grid_distortion=0.2)
    drawn = draw_distortion(policy, 6, crop_px=(30, 40), rng=rng)
    assert drawn is not None
    np.testing.assert_array_equal(drawn.part(slice(2, 5)).fields((30, 40)), drawn.fields((30, 40))[2:5])


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_a_displaced_image_is_what_scipy_reads(rng, channels):
    size, crop = (50, 70), (44, 60)
    y, x = np.mgrid[: size[0], : size[1]]
    image = np.stack([40 * np.sin(x / 9 + k) + 30 * np.cos(y / 7) for k in range(channels)], axis=2).astype(np.float32)
    mask = (image[:, :, 0] > 0).astype(np.uint8)
    policy = Policy(rotate_degrees=20.0, scale=(0.7, 1.5), elastic_px=5.0, elastic_sigma_px=6.0)
    parameters = draw(policy, np.array([size] * 4), crop_px=crop, channels=channels, rng=rng)
    assert parameters.distortion is not None
    for matrix, displaced in zip(parameters.matrices, parameters.distortion.fields(crop), strict=True):
        out, labels = np.empty((*crop, channels), dtype=np.float32), np.empty(crop, dtype=np.uint8)
        warp_image_on_cpu(image, matrix, out=out, displaced=displaced)
        warp_mask_on_cpu(mask, matrix, out=labels, displaced=displaced)
        places = (places_of(matrix, crop_px=crop) + displaced)[..., ::-1].transpose(2, 0, 1)
        wanted = np.stack([map_coordinates(band, places, order=1, mode="mirror") for band in np.moveaxis(image, 2, 0)])
        np.testing.assert_allclose(out, wanted.transpose(1, 2, 0), atol=0.6)
        assert (labels != map_coordinates(mask, places, order=0, mode="mirror")).mean() < 0.005


LABELS = np.array([0, 1, 2, 7, 255], dtype=np.uint8)


@given(
    size=st.tuples(st.integers(40, 60), st.integers(40, 60)),
    crop=st.tuples(st.integers(16, 40), st.integers(16, 40)),
    fill=st.sampled_from(["reflection", "zoom"]),
    seed=st.integers(0, 2**31),
)
def test_an_image_that_shows_its_labels_stays_aligned(size, crop, fill, seed):
    rng = np.random.default_rng(seed)
    mask = np.kron(rng.choice(LABELS, (8, 8)), np.ones((8, 8), np.uint8))[: size[0], : size[1]]
    image = np.stack([mask, 255 - mask])
    # Enlarged, and by gentle fields: what the bilinear reading mixes in is a nearest pixel close by.
    policy = Policy(
        flip_horizontal=0.5, flip_vertical=0.5, quarter_turns=True, rotate_degrees=40.0, scale=(1.9, 2.3),
        shear_degrees=5.0, translate=0.1, rotate_fill=fill, elastic_px=1.5, elastic_sigma_px=8.0, grid_distortion=0.1,
    )  # fmt: skip
    parameters = draw(policy, np.array([size]), crop_px=crop, channels=2, rng=rng)
    stack = torch.from_numpy(image.copy())[None], torch.from_numpy(mask.copy())[None]
    for images, masks in (
        augment_on_cpu([image], [mask], parameters, crop_px=crop),
        augment_on_device(*stack, parameters, crop_px=crop),
    ):
        assert masks is not None
        labels = masks[0].numpy()
        assert set(np.unique(labels)) <= set(np.unique(mask).tolist())
        padded = np.pad(labels, 4, constant_values=-1)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (9, 9))
        calm = (windows == labels[:, :, None, None]).all(axis=(2, 3))
        np.testing.assert_array_equal(images[0, 0].numpy()[calm], labels[calm])
        np.testing.assert_array_equal(images[0, 1].numpy()[calm], 255 - labels[calm])


@pytest.mark.parametrize("channels", [1, 3])
def test_cpu_and_device_agree(rng, channels):
    y, x = np.mgrid[:64, :80]
    images = np.stack(
        [np.stack([127 + 80 * np.sin(x / 9 + n) * np.cos(y / 8 + c) for c in range(channels)]) for n in range(8)]
    ).astype(np.uint8)
    masks = (images[:, 0] > 128).astype(np.uint8)
    policy = Policy(rotate_degrees=15.0, scale=(0.8, 1.3), elastic_px=6.0, grid_distortion=0.3, contrast=0.2)
    parameters = draw(policy, np.array([[64, 80]] * 8), crop_px=(56, 72), channels=channels, rng=rng)
    on_cpu, labels = augment_on_cpu(list(images), list(masks), parameters, crop_px=(56, 72))
    on_device, there = augment_on_device(
        torch.from_numpy(images), torch.from_numpy(masks), parameters, crop_px=(56, 72)
    )
    assert labels is not None
    assert there is not None
    difference = (on_cpu.float() - on_device.float()).abs()
    assert difference.mean() < 1.0
    assert difference.max() <= 8
    assert (labels != there).float().mean() < 0.005


def test_a_field_without_width_is_refused():
    with pytest.raises(RecipeError, match="elastic_sigma_px"):
        Policy(elastic_px=3.0, elastic_sigma_px=0.5)


def test_a_distortion_without_nodes_is_our_own_mistake():
    with pytest.raises(AssertionError):
        Distortion(None, None, 4.0).fields((4, 4))
