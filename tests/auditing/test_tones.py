"""Measures of one picture against plain references, and on every type and size that pictures come in."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.color import rgb2hsv
from skimage.measure import shannon_entropy

from segwright.auditing.tones import DESCRIPTOR_LENGTH, LAYOUT, TEXTURE, Tones, grain_window, measure, reduced
from segwright.data.packing import neighbour_correlation
from segwright.data.synthetic import terrain


def numbers(tones: Tones) -> dict[str, float]:
    return {field.name: getattr(tones, field.name) for field in dataclasses.fields(Tones) if field.name != "descriptor"}


@pytest.fixture
def photo(rng: np.random.Generator) -> np.ndarray:
    return terrain(rng, (96, 128))[0]


def test_light_and_colour_are_those_of_plain_references(photo: np.ndarray) -> None:
    tones = measure(photo)
    gray = np.tensordot(np.array([0.299, 0.587, 0.114]), photo.astype(np.float64), 1).round()
    rows = photo.transpose(1, 2, 0)
    assert tones.brightness == pytest.approx(gray.mean(), abs=0.1)
    assert tones.contrast == pytest.approx(gray.std(), abs=0.1)
    assert tones.entropy == pytest.approx(shannon_entropy(gray.astype(np.uint8)), abs=0.02)
    assert tones.saturation == pytest.approx(rgb2hsv(rows)[..., 1].mean(), abs=1e-4)
    assert (tones.red, tones.green, tones.blue) == pytest.approx(tuple(photo.mean(axis=(1, 2))), abs=1e-3)
    assert (tones.darkest, tones.brightest) == pytest.approx(tuple(np.quantile(gray, (0.01, 0.99))), abs=1)
    assert tones.neighbour_correlation == pytest.approx(
        neighbour_correlation(cv2.cvtColor(rows, cv2.COLOR_RGB2GRAY)[..., None])
    )


def test_white_noise_is_as_flat_as_theory_says(rng: np.random.Generator) -> None:
    tones = measure(rng.normal(128, 30, (1, 256, 256)).astype(np.float32))
    # Bins of a periodogram of white noise are exponential: their geometric mean is exp(-gamma) of their mean.
    assert tones.spectral_flatness == pytest.approx(np.exp(-np.euler_gamma), abs=0.02)
    assert abs(tones.neighbour_correlation) < 0.02
    assert abs(tones.coarse_correlation) < 0.05


@pytest.mark.parametrize(
    "stored",
    [
        lambda image: image.astype(np.uint16) * 257,
        lambda image: (image / 255).astype(np.float32),
        lambda image: image.astype(np.float32),
        lambda image: np.concatenate([image, image[:1]]),
    ],
    ids=["16 bit", "shares", "float levels", "with alpha"],
)
def test_a_picture_measures_the_same_however_it_is_stored(stored, photo: np.ndarray) -> None:
    expected, found = numbers(measure(photo)), numbers(measure(stored(photo)))
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=0.02, abs=0.02), name


def test_gray_is_measured_like_equal_channels(photo: np.ndarray) -> None:
    one, three = measure(photo[:1]), measure(np.repeat(photo[:1], 3, axis=0))
    assert numbers(one) == pytest.approx(numbers(three))
    np.testing.assert_allclose(one.descriptor, three.descriptor, atol=0.01)
    assert one.red == one.brightness


def test_sharpness_falls_with_blur_and_not_with_contrast(photo: np.ndarray) -> None:
    plain = measure(photo).sharpness
    soft = measure(np.stack([cv2.GaussianBlur(plane, (0, 0), 1.0) for plane in photo])).sharpness
    pale = measure((100 + photo * 0.4).astype(np.float32)).sharpness
    assert soft < 0.7 * plain
    assert pale == pytest.approx(plain, rel=0.05)


def test_a_large_photo_keeps_its_light_and_its_grain(photo: np.ndarray) -> None:
    large = np.tile(photo, (1, 8, 8))
    small, big = measure(photo), measure(large)
    assert big.brightness == pytest.approx(small.brightness, abs=0.1)
    assert big.sharpness == pytest.approx(small.sharpness, rel=0.25)
    assert reduced(large, side_px=256).shape == (192, 256, 3)
    assert grain_window(large).shape == (256, 256)


def test_a_copy_has_nearly_the_same_descriptor_and_another_picture_has_not(rng: np.random.Generator) -> None:
    first, other = (terrain(rng, (96, 128))[0] for _ in range(2))
    rows = np.ascontiguousarray(first.transpose(1, 2, 0))
    again = cv2.imdecode(cv2.imencode(".jpg", rows, [cv2.IMWRITE_JPEG_QUALITY, 70])[1], cv2.IMREAD_COLOR)
    points = [measure(image).descriptor for image in (first, again.transpose(2, 0, 1).copy(), other)]
    assert np.linalg.norm(points[0] - points[1]) < 0.3 * np.linalg.norm(points[0] - points[2])
    assert len(points[0]) == DESCRIPTOR_LENGTH > LAYOUT + TEXTURE


def test_fill_values_count_as_black() -> None:
    image = np.full((1, 20, 20), 0.5, dtype=np.float32)
    image[0, :10] = np.nan
    assert measure(image).brightness == pytest.approx(63.75)


def test_an_empty_picture_is_no_noise() -> None:
    tones = measure(np.full((3, 40, 40), 7, dtype=np.uint8))
    assert (tones.brightness, tones.contrast, tones.entropy, tones.sharpness, tones.spectral_flatness) == (
        7,
        0,
        0,
        0,
        0,
    )
    assert tones.neighbour_correlation == tones.coarse_correlation == 1.0


@given(
    channels=st.integers(1, 7),
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    dtype=st.sampled_from([np.uint8, np.uint16, np.int16, np.float32, np.float64, np.bool_]),
    seed=st.integers(0, 9),
)
def test_every_picture_can_be_measured(channels: int, rows: int, columns: int, dtype: type, seed: int) -> None:
    values = np.random.default_rng(seed).uniform(0, 1000, (channels, rows, columns))
    tones = measure(values.astype(dtype))
    assert np.isfinite(list(numbers(tones).values())).all()
    assert np.isfinite(tones.descriptor).all()
    assert tones.descriptor.shape == (DESCRIPTOR_LENGTH,)
    assert 0 <= tones.spectral_flatness <= 1 + 1e-6
