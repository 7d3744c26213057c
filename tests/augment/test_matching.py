"""Tones: what is measured, what matching makes of it, on both paths."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.exposure import match_histograms

from segwright.augment import Policy, augment_on_cpu, augment_on_device, draw
from segwright.augment.matching import match_histogram, match_moments, match_on_device, matched, reference_of, tones_of
from segwright.errors import DataError, RecipeError


def picture(rng: np.random.Generator, *, channels: int = 3, low: float = 20, high: float = 120) -> np.ndarray:
    return rng.uniform(low, high, (channels, 60, 80)).astype(np.uint8)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_tones_are_the_quantiles(rng, dtype):
    image = (rng.random((2, 50, 64)) * 250).astype(dtype)
    shares = (np.arange(256) + 0.5) / 256
    wanted = np.quantile(image.reshape(2, -1), shares, axis=1, method="inverted_cdf").T
    np.testing.assert_allclose(tones_of(image), wanted, atol=1.01 if dtype != np.float32 else 0.5)


def test_of_large_images_few_pixels_are_looked_at(rng):
    rows = np.arange(2000, dtype=np.uint16)[None, :, None] * np.ones((1, 1, 1500), np.uint16)
    np.testing.assert_allclose(tones_of(rows)[0], np.linspace(0, 2000, 256), atol=12)


def test_the_mean_tones_of_two_shifted_images_are_those_between(rng):
    dark = picture(rng)
    np.testing.assert_allclose(reference_of([dark, dark + 60]), tones_of(dark) + 30, atol=1e-4)
    with pytest.raises(DataError, match="no image"):
        reference_of([])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_moments_are_those_of_the_reference(rng, dtype):
    image, other = picture(rng).astype(dtype), picture(rng, low=90, high=200).astype(dtype)
    out = match_moments(image, tones_of(other))
    assert out.dtype == dtype
    np.testing.assert_allclose(out.mean((1, 2)), other.mean((1, 2)), atol=0.6)
    np.testing.assert_allclose(out.std((1, 2)), other.std((1, 2)), atol=0.6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_histograms_are_those_of_the_reference(rng, dtype, channels):
    image = (picture(rng, channels=channels) / 120.0) ** 2 * 120
    other = picture(rng, channels=channels, low=60, high=230)
    out = match_histogram(image.astype(dtype), tones_of(other.astype(dtype)))
    wanted = match_histograms(image.astype(dtype), other.astype(dtype), channel_axis=0)
    assert out.dtype == dtype
    assert np.abs(out.astype(float) - wanted.astype(float)).mean() < 1.5
    np.testing.assert_allclose(tones_of(out), tones_of(other), atol=4)


def test_an_image_matched_to_itself_stays(rng):
    image = picture(rng)
    assert np.abs(match_histogram(image, tones_of(image)).astype(int) - image).max() <= 1
    assert np.abs(match_moments(image, tones_of(image)).astype(int) - image).max() <= 1
    assert matched(image, tones_of(image), how="none") is image


@pytest.mark.parametrize("how", ["moments", "histogram"])
def test_one_flat_colour_is_no_trouble(rng, how):
    flat = np.full((3, 8, 9), 77, dtype=np.uint8)
    out = matched(flat, tones_of(picture(rng)), how=how)
    assert (out == out[:, :1, :1]).all()
    with pytest.raises(DataError, match="3 channels"):
        matched(flat, tones_of(picture(rng, channels=1)), how=how)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_device_matches_alike(rng, dtype):
    images = np.stack([picture(rng, low=k, high=100 + 20 * k) for k in range(4)]).astype(dtype)
    tones = np.stack([tones_of(picture(rng, low=70, high=200 + k).astype(dtype)) for k in range(4)])
    full_scale = 255.0 if dtype == np.uint8 else None
    there = match_on_device(torch.from_numpy(images).float(), tones, full_scale=full_scale).numpy()
    here = np.stack([match_histogram(image, one) for image, one in zip(images, tones, strict=True)])
    # Where several quantiles are one value, either of their places may be taken.
    assert np.abs(here.astype(float) - there).max() <= (0.51 if dtype == np.uint8 else 3)


def test_training_images_take_over_tones_as_often_as_asked(rng):
    images = np.stack([picture(rng) for _ in range(60)])
    targets = np.stack([tones_of(picture(rng, low=200, high=240)), tones_of(picture(rng, low=150, high=190))])
    policy = Policy(match=0.5, match_to=targets)
    parameters = draw(policy, np.array([[60, 80]] * 60), crop_px=(60, 80), channels=3, rng=rng)
    assert 15 < parameters.toned.sum() < 45
    assert (parameters.part(slice(10, 30)).toned == parameters.toned[10:30]).all()
    on_cpu, _ = augment_on_cpu(list(images), None, parameters, crop_px=(60, 80))
    on_device, _ = augment_on_device(torch.from_numpy(images), None, parameters, crop_px=(60, 80))
    assert (on_cpu.float() - on_device.float()).abs().max() <= 1
    for n, toned in enumerate(parameters.toned):
        assert (on_cpu[n].numpy().min() >= 149) if toned else np.array_equal(on_cpu[n].numpy(), images[n])


def test_matching_needs_something_to_match():
    with pytest.raises(RecipeError, match="match_to"):
        Policy(match=0.3)
