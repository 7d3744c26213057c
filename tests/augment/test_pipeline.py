"""Image and mask stay together, both paths agree, and nothing is drawn outside `draw`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segwright.augment import PRESETS, Draw, Policy, augment_on_cpu, augment_on_device, draw
from segwright.errors import RecipeError

# Enlarging only: so every pixel that the bilinear reading mixes in is also some nearest pixel close by.
GEOMETRY = Policy(
    flip_horizontal=0.5,
    flip_vertical=0.5,
    quarter_turns=True,
    rotate_degrees=40.0,
    scale=(1.6, 1.9),
    shear_degrees=5.0,
    translate=0.1,
)
LABELS = np.array([0, 1, 2, 7, 255], dtype=np.uint8)


def blocks(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A mask of rectangles of 8 pixels."""
    return np.kron(rng.choice(LABELS, (-(-height // 8), -(-width // 8))), np.ones((8, 8), np.uint8))[:height, :width]


@given(
    size=st.tuples(st.integers(9, 60), st.integers(9, 60)),
    crop=st.tuples(st.integers(16, 48), st.integers(16, 48)),
    seed=st.integers(0, 2**31),
)
def test_an_image_that_shows_its_labels_stays_aligned(size, crop, seed):
    rng = np.random.default_rng(seed)
    mask = blocks(rng, *size)
    image = np.stack([mask, 255 - mask])
    parameters = draw(GEOMETRY, np.array([size]), crop_px=crop, channels=2, rng=rng)
    stacks = [
        augment_on_cpu([image], [mask], parameters, crop_px=crop),
        augment_on_device(torch.from_numpy(image)[None], torch.from_numpy(mask)[None].long(), parameters, crop_px=crop),
    ]
    for images, masks in stacks:
        assert masks is not None
        assert masks.dtype == torch.int64
        assert set(masks.unique().tolist()) <= set(np.unique(mask).tolist())
        calm = _far_from_borders(masks[0].numpy())
        np.testing.assert_array_equal(images[0, 0].numpy()[calm], masks[0].numpy()[calm])
        np.testing.assert_array_equal(images[0, 1].numpy()[calm], 255 - masks[0].numpy()[calm])


def _far_from_borders(mask: np.ndarray) -> np.ndarray:
    padded = np.pad(mask, 2, constant_values=-1)  # beyond the crop nobody knows
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5))
    return (windows == mask[:, :, None, None]).all(axis=(2, 3))


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("preset", ["none", "light", "medium", "strong"])
def test_cpu_and_device_agree(rng, preset, channels):
    y, x = np.mgrid[:44, :58]
    images = np.stack(
        [np.stack([127 + 80 * np.sin(x / 8 + n) * np.cos(y / 9 + c) for c in range(channels)]) for n in range(12)]
    )
    images = images.astype(np.uint8)
    masks = np.stack([blocks(rng, 44, 58) for _ in range(12)])
    parameters = draw(PRESETS[preset], np.array([[44, 58]] * 12), crop_px=(40, 48), channels=channels, rng=rng)
    on_cpu, cpu_masks = augment_on_cpu(list(images), list(masks), parameters, crop_px=(40, 48))
    on_device, device_masks = augment_on_device(
        torch.from_numpy(images), torch.from_numpy(masks), parameters, crop_px=(40, 48)
    )
    difference = (on_cpu.float() - on_device.float()).abs()
    assert on_cpu.dtype == on_device.dtype == torch.uint8
    assert difference.mean() < 1.0
    assert difference.max() <= 8
    assert cpu_masks is not None
    assert device_masks is not None
    assert (cpu_masks != device_masks).float().mean() < 0.005


def test_no_change_is_the_same_pixels(rng):
    images = [rng.integers(0, 256, (3, 20, 30), dtype=np.uint8) for _ in range(3)]
    masks = [blocks(rng, 20, 30) for _ in range(3)]
    parameters = draw(PRESETS["none"], np.array([[20, 30]] * 3), crop_px=(20, 30), channels=3, rng=rng)
    out, labels = augment_on_cpu(images, masks, parameters, crop_px=(20, 30))
    np.testing.assert_array_equal(out.numpy(), np.stack(images))
    assert labels is not None
    np.testing.assert_array_equal(labels.numpy(), np.stack(masks))
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_the_same_seed_gives_the_same_batch(rng):
    images = [rng.integers(0, 256, (3, 40, 30), dtype=np.uint8) for _ in range(4)]

    def once(seed: int) -> torch.Tensor:
        parameters = draw(
            PRESETS["strong"], np.array([[40, 30]] * 4), crop_px=(24, 24), channels=3, rng=np.random.default_rng(seed)
        )
        return augment_on_cpu(images, None, parameters, crop_px=(24, 24))[0]

    assert torch.equal(once(1), once(1))
    assert not torch.equal(once(1), once(2))


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_other_types_pass_through(rng, dtype):
    image = (rng.random((2, 30, 40)) * 4000).astype(dtype)
    image.flags.writeable = False
    parameters = draw(PRESETS["strong"], np.array([[30, 40]]), crop_px=(16, 20), channels=2, rng=rng)
    out, masks = augment_on_cpu([image], None, parameters, crop_px=(16, 20))
    assert out.numpy().dtype == dtype
    assert out.shape == (1, 2, 16, 20)
    assert masks is None
    plain: Draw = replace(
        parameters, color=draw(PRESETS["none"], np.array([[30, 40]]), crop_px=(16, 20), channels=2, rng=rng).color
    )
    moved, _ = augment_on_cpu([image], None, plain, crop_px=(16, 20))
    there, _ = augment_on_device(torch.from_numpy(image.copy())[None], None, plain, crop_px=(16, 20))
    # OpenCV places pixels to 1/32, and neighbours here differ by up to 4000.
    assert np.abs(moved.numpy().astype(float) - there.numpy().astype(float)).mean() < 60


def test_images_of_any_sizes_share_a_batch(rng):
    sizes = [(20, 30), (64, 10), (7, 7)]
    images = [rng.integers(0, 256, (1, *size), dtype=np.uint8) for size in sizes]
    parameters = draw(PRESETS["strong"], np.array(sizes), crop_px=(32, 16), channels=1, rng=rng)
    out, _ = augment_on_cpu(images, None, parameters, crop_px=(32, 16))
    assert out.shape == (3, 1, 32, 16)


@pytest.mark.parametrize("scale", [(0.0, 1.0), (1.2, 0.8), (-1.0, 1.0)])
def test_zoom_factors_are_checked(scale):
    with pytest.raises(RecipeError, match="smaller factor first"):
        Policy(scale=scale)
