"""Masks that lie beside what they mark: the move is measured, and nothing else is called moved."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segwright.auditing.alignment import align, examine
from segwright.auditing.survey import take_survey

SIZE = (160, 200)


def scene(seed: int, *, size: tuple[int, int] = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """A noisy picture (3, H, W) of things on a floor, and its mask."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(size, dtype=np.uint8)
    for label in (1, 2, 1, 2, 1):
        place = (int(rng.integers(20, size[1] - 20)), int(rng.integers(20, size[0] - 20)))
        axes = (int(rng.integers(8, 30)), int(rng.integers(8, 30)))
        cv2.ellipse(mask, place, axes, float(rng.integers(0, 180)), 0, 360, label, -1)
    tones = np.array([[70, 80, 60], [150, 120, 90], [40, 60, 140]])[mask] + rng.normal(0, 12, (*size, 3))
    return tones.clip(0, 255).astype(np.uint8).transpose(2, 0, 1), mask


def moved(mask: np.ndarray, right: int, down: int) -> np.ndarray:
    """The mask aside; what is left bare is drawn on from the border."""
    return cv2.warpAffine(
        mask, np.float32([[1, 0, right], [0, 1, down]]), mask.shape[::-1], flags=cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip


@settings(deadline=None, max_examples=25)
@given(right=st.integers(-5, 5), down=st.integers(-5, 5), seed=st.integers(0, 99))
def test_a_move_is_measured(right: int, down: int, seed: int) -> None:
    image, mask = scene(seed)
    found = align(image, moved(mask, right, down), num_classes=3)
    assert found is not None
    assert abs(found.move_px[0] + right) <= 1
    assert abs(found.move_px[1] + down) <= 1
    assert found.is_moved or max(abs(right), abs(down)) < 4
    assert not found.is_moved or max(abs(right), abs(down)) >= 2


@pytest.mark.parametrize("channels", [1, 3, 7])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_any_kind_of_picture(channels: int, dtype: type) -> None:
    image, mask = scene(3)
    bands = np.concatenate([image] * 3)[:channels].astype(np.float32)
    found = align((bands * (257 if dtype == np.uint16 else 1)).astype(dtype), moved(mask, 4, -3), num_classes=3)
    assert found is not None
    assert found.is_moved
    assert found.move_px == (-4, 3)


def test_a_move_is_told_in_pixels_of_a_large_picture() -> None:
    image, mask = scene(4, size=(1200, 2048))
    found = align(image, moved(mask, 12, 0), num_classes=3)
    assert found is not None
    assert found.move_px[0] == pytest.approx(-12, abs=2)


def test_noise_void_and_empty_masks_are_not_called_moved() -> None:
    image, mask = scene(5)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 3, SIZE).astype(np.uint8)
    assert not [a for a in (align(image, noise, num_classes=3),) if a is not None and a.is_moved]
    assert align(image, np.zeros(SIZE, np.uint8), num_classes=3) is None
    assert align(image, np.full(SIZE, 255, np.uint8), num_classes=3) is None
    flat = align(np.full_like(image, 9), mask, num_classes=3)
    assert flat is None or not flat.is_moved


def test_a_mask_that_covers_too_much_is_not_called_moved() -> None:
    image, mask = scene(6)
    grown = cv2.dilate(mask, np.ones((7, 7), np.uint8))
    found = align(image, grown, num_classes=3)
    assert found is not None
    assert not found.is_moved


def test_the_answer_names_the_moved_ones(tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for i in range(8):
        image, mask = scene(i)
        drawn = moved(mask, 4, -3) if i == 2 else mask
        Image.fromarray(drawn).save(tmp_path / "masks" / f"{i}.png")
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / "images" / f"{i}.png")
    answer = examine(take_survey(tmp_path, progress=False))
    assert answer.facts["looked_at"] == 8
    (finding,) = answer.findings
    assert (finding.kind, finding.ids) == ("shifted_mask", ("2",))
    assert finding.notes["2"] == "would fit better 4 pixels left and 3 pixels down"
