"""Noise is told from texture, dark pictures with few cells and empty frames; masks of noise from true ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from segwright.auditing.noise import agreement, find_noise, find_noise_masks, noise_like
from segwright.auditing.survey import Look, Survey, take_survey
from segwright.auditing.tones import measure
from segwright.data.synthetic import fractal_noise, terrain_stack
from segwright.types import ClassSet


def survey_of(images: Sequence[np.ndarray], *, masked: bool = True) -> Survey:
    looks = (
        Look(f"p{i}", "", "m.png" if masked else None, size_px=image.shape[1:], tones=measure(image))
        for i, image in enumerate(images)
    )
    return Survey(Path("data"), None, ClassSet(("a",), ((0, 0, 0),)), tuple(looks))


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    return list(terrain_stack(12, size=(64, 96), seed=1)[0])


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    rows = np.ascontiguousarray(image.transpose(1, 2, 0))
    coded = cv2.imencode(".jpg", rows, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.ascontiguousarray(cv2.imdecode(coded, cv2.IMREAD_COLOR).transpose(2, 0, 1))


def test_noise_of_every_sort_is_found_and_nothing_else(photos: list[np.ndarray], rng: np.random.Generator) -> None:
    size = (3, 64, 96)
    bell = np.clip(rng.normal(120, 40, size), 0, 255).astype(np.uint8)
    noise = [
        rng.integers(0, 256, size, dtype=np.uint8),
        bell,
        jpeg(bell, 30),
        np.broadcast_to((rng.random(size[1:]) < 0.5).astype(np.uint8) * 255, size),
        np.where(rng.random(size) < 0.1, 255, 90).astype(np.uint8),
    ]
    finding = find_noise(survey_of([*photos, *noise]))
    assert finding is not None
    assert set(finding.ids) == set(finding.drop) == {f"p{i}" for i in range(12, 17)}
    assert finding.gravity == "mend"
    assert "5 of 17" in finding.summary


def test_texture_dark_cells_and_empty_frames_are_no_noise(photos: list[np.ndarray], rng: np.random.Generator) -> None:
    dark = rng.normal(12, 2.2, (256, 256))
    for row, column in ((20, 30), (200, 230), (240, 12)):
        cv2.circle(dark, (column, row), 9, 45, -1)
    empty = rng.normal(12, 2.2, (256, 256))
    sand = 128 + 40 * fractal_noise(rng, (256, 256), cell_px=2.5, octaves=1)
    stripes = 128 + 100 * np.sin(np.arange(256) * 1.9)[None] * np.ones((256, 1)) + rng.normal(0, 10, (256, 256))
    frames = [np.clip(one, 0, 255).astype(np.uint8)[None] for one in (dark, empty, sand, stripes)]
    assert noise_like(survey_of([*photos, *frames])) == ()


def test_pictures_that_are_grainy_by_nature_stay(rng: np.random.Generator) -> None:
    radar = [rng.integers(0, 256, (1, 40, 40), dtype=np.uint8) for _ in range(8)]
    finding = find_noise(survey_of([*radar, *terrain_stack(3, size=(40, 40))[0]]))
    assert finding is not None
    assert finding.gravity == "look"
    assert not finding.drop
    assert len(finding.ids) == 8


def test_noise_without_a_mask_is_named_and_not_dropped(photos: list[np.ndarray], rng: np.random.Generator) -> None:
    finding = find_noise(survey_of([*photos, rng.integers(0, 256, (1, 40, 40), dtype=np.uint8)], masked=False))
    assert finding is not None
    assert finding.ids == ("p12",)
    assert not finding.drop


def test_tiny_pictures_are_not_judged(rng: np.random.Generator) -> None:
    assert noise_like(survey_of([rng.integers(0, 256, (1, 8, 8), dtype=np.uint8) for _ in range(3)])) == ()
    assert noise_like(survey_of([])) == ()


def test_masks_of_noise_are_found_and_specks_in_one_class_are_not(tmp_path: Path, rng: np.random.Generator) -> None:
    images, masks = terrain_stack(12, size=(48, 64), seed=3)
    masks[0] = rng.choice(5, masks[0].shape, p=(0.8, 0.05, 0.05, 0.05, 0.05))
    masks[1] = rng.random(masks[1].shape) < 0.1
    masks[2] = 1
    masks[2].ravel()[rng.choice(masks[2].size, 30, replace=False)] = 3
    np.savez(tmp_path / "set.npz", images=images.transpose(0, 2, 3, 1), masks=masks)
    finding = find_noise_masks(take_survey(tmp_path / "set.npz", progress=False))
    assert finding is not None
    assert set(finding.ids) == set(finding.drop) == {"00000", "00001"}
    assert "2 of 12" in finding.summary


@pytest.mark.parametrize("classes", [2, 5, 12])
def test_neighbours_in_a_mask_of_noise_agree_by_chance(classes: int, rng: np.random.Generator) -> None:
    assert abs(agreement(rng.integers(0, classes, (200, 200), dtype=np.uint8))) < 0.02


def test_neighbours_in_a_drawn_mask_agree() -> None:
    assert agreement(np.repeat(np.arange(4, dtype=np.uint8), 16)[:, None] * np.ones((1, 64), np.uint8)) > 0.95
    assert agreement(np.zeros((9, 9), dtype=np.uint8)) == 1.0
