"""A mask beside many different pictures is found, equal or nearly; copies and simple masks are none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from segwright.auditing.labels import measure_labels
from segwright.auditing.shared_masks import breaks, find_shared_masks, nearly_equal, same_layout
from segwright.auditing.survey import Look, Survey
from segwright.auditing.tones import LAYOUT, measure
from segwright.data.packing import pixel_digest
from segwright.data.synthetic import TERRAIN_COLORS, TERRAIN_NAMES, terrain_stack
from segwright.types import ClassSet

COUNT = 40
Surveyed = Callable[[np.ndarray, np.ndarray], Survey]


@pytest.fixture(scope="module")
def photos() -> tuple[np.ndarray, np.ndarray]:
    images, masks = terrain_stack(COUNT, size=(48, 64), seed=4)
    return images.transpose(0, 2, 3, 1), masks


@pytest.fixture
def nonsense() -> np.ndarray:
    mask = (np.indices((48, 64)).sum(axis=0) // 8 % 2 * 3).astype(np.uint8)
    cv2.circle(mask, (30, 24), 13, 4, -1)
    return mask


@pytest.fixture
def surveyed(monkeypatch: pytest.MonkeyPatch) -> Surveyed:
    """A survey of arrays (N, H, W, 3) and (N, H, W), without the records that other questions need."""

    def of(images: np.ndarray, masks: np.ndarray) -> Survey:
        planes = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        monkeypatch.setattr(Survey, "read", lambda _, position: (planes[position], masks[position]))
        looks = (
            Look(
                f"{i:05d}", "", "m", size_px=(48, 64), image_digest=pixel_digest(image), mask_digest=pixel_digest(mask),
                tones=measure(image), labels=measure_labels(mask, 5),
            )
            for i, (image, mask) in enumerate(zip(planes, masks, strict=True))
        )  # fmt: skip
        return Survey(Path("data"), None, ClassSet(TERRAIN_NAMES, TERRAIN_COLORS), tuple(looks))

    return of


def names(*positions: int) -> set[str]:
    return {f"{i:05d}" for i in positions}


def test_plain_data_share_no_mask(surveyed: Surveyed, photos: tuple[np.ndarray, np.ndarray]) -> None:
    assert find_shared_masks(surveyed(*photos)) == []


def test_one_mask_beside_many_pictures_is_dropped(
    surveyed: Surveyed, photos: tuple[np.ndarray, np.ndarray], nonsense: np.ndarray
) -> None:
    images, masks = photos[0], photos[1].copy()
    masks[5:12] = nonsense
    [finding] = find_shared_masks(surveyed(images, masks))
    assert set(finding.drop) == set(finding.ids) == names(*range(5, 12))
    assert finding.gravity == "mend"
    assert [set(group) for group in finding.groups] == [names(*range(5, 12))]
    assert all(one not in note for one, note in finding.notes.items())


def test_noise_pictures_with_one_mask_count_as_different(
    surveyed: Surveyed, photos: tuple[np.ndarray, np.ndarray], nonsense: np.ndarray, rng: np.random.Generator
) -> None:
    images, masks = photos[0].copy(), photos[1].copy()
    images[:6] = rng.integers(0, 256, images[:6].shape)
    masks[:6] = nonsense
    [finding] = find_shared_masks(surveyed(images, masks))
    assert set(finding.drop) == names(*range(6))


def test_the_one_photo_among_noise_with_its_mask_stays(
    surveyed: Surveyed, photos: tuple[np.ndarray, np.ndarray], rng: np.random.Generator
) -> None:
    images, masks = photos[0].copy(), photos[1].copy()
    images[1:4] = rng.integers(0, 256, images[1:4].shape)
    masks[1:4] = masks[0]
    [finding] = find_shared_masks(surveyed(images, masks))
    assert set(finding.ids) == names(0, 1, 2, 3)
    assert set(finding.drop) == names(1, 2, 3)
    masks[2:4] = photos[1][2:4]
    assert find_shared_masks(surveyed(images, masks)) == []


def test_nearly_equal_masks_are_found(
    surveyed: Surveyed, photos: tuple[np.ndarray, np.ndarray], nonsense: np.ndarray, rng: np.random.Generator
) -> None:
    images, masks = photos[0], photos[1].copy()
    for i in range(8, 14):
        masks[i] = nonsense
        masks[i].ravel()[rng.choice(nonsense.size, 12, replace=False)] = rng.integers(0, 5, 12)
    [finding] = find_shared_masks(surveyed(images, masks))
    assert set(finding.drop) == names(*range(8, 14))


def test_two_pictures_with_one_mask_are_worth_a_look(surveyed: Surveyed, photos: tuple[np.ndarray, np.ndarray]) -> None:
    images, masks = photos[0], photos[1].copy()
    masks[9] = masks[3]
    [finding] = find_shared_masks(surveyed(images, masks))
    assert (finding.gravity, finding.drop) == ("look", {})
    assert set(finding.ids) == names(3, 9)


def test_copies_in_other_light_may_share_their_mask(surveyed: Surveyed, photos: tuple[np.ndarray, np.ndarray]) -> None:
    images, masks = photos[0].copy(), photos[1].copy()
    masks[1:5] = masks[0]
    images[1] = np.clip(images[0].astype(int) + 30, 0, 255)
    images[2] = images[0] * 0.7
    images[3] = 255 * (images[0] / 255) ** 1.8
    coded = cv2.imencode(".jpg", np.ascontiguousarray(images[0]), [cv2.IMWRITE_JPEG_QUALITY, 70])[1]
    images[4] = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    assert find_shared_masks(surveyed(images, masks)) == []


@pytest.mark.parametrize(("count", "expected"), [(4, []), (12, ["mend"])])
def test_a_simple_mask_may_come_again_by_chance(
    surveyed: Surveyed, photos: tuple[np.ndarray, np.ndarray], count: int, expected: list[str]
) -> None:
    images, masks = photos[0], photos[1].copy()
    masks[:count] = 1
    masks[:count, 10:20, 30:50] = 2
    assert [finding.gravity for finding in find_shared_masks(surveyed(images, masks))] == expected


def test_where_most_masks_are_shared_nothing_is_dropped(
    surveyed: Surveyed, photos: tuple[np.ndarray, np.ndarray]
) -> None:
    images, masks = photos[0], photos[1].copy()
    masks[:24] = np.repeat(masks[:8], 3, axis=0)
    [finding] = find_shared_masks(surveyed(images, masks))
    assert (finding.gravity, finding.drop, len(finding.groups)) == ("look", {}, 8)


def test_masks_of_one_class_are_a_finding_only_where_it_never_fills_a_picture(
    surveyed: Surveyed, photos: tuple[np.ndarray, np.ndarray]
) -> None:
    images, masks = photos[0], photos[1].copy()
    masks[:5] = 1  # soil, which fills most pictures
    assert find_shared_masks(surveyed(images, masks)) == []
    masks[:5] = 4  # a boulder, which is small in all others
    [finding] = find_shared_masks(surveyed(images, masks))
    assert (finding.gravity, finding.drop, set(finding.ids)) == ("look", {}, names(*range(5)))


def test_masks_agree_where_they_say_something() -> None:
    a = np.zeros((40, 40), dtype=np.uint8)
    a[10:20, 10:20] = 1
    b = a.copy()
    b[10, 10] = 0
    assert nearly_equal(a, b)
    assert not nearly_equal(a, np.roll(a, 3, axis=1))
    assert not nearly_equal(a, np.zeros_like(a))
    assert breaks(a) == 4
    assert breaks(np.zeros_like(a)) == 0


def test_pictures_under_one_lamp_are_told_apart(rng: np.random.Generator) -> None:
    lamp = 160 - 90 * np.hypot(*np.meshgrid(np.linspace(-1, 1, 64), np.linspace(-1, 1, 48)))
    plates = [lamp + cv2.resize(rng.normal(0, 6, (9, 12)), (64, 48)) for _ in range(12)]
    plates.append(0.8 * plates[0] + 20)
    layouts = np.stack([measure(plate.astype(np.uint8)[None]).descriptor[:LAYOUT] for plate in plates]).astype(float)
    assert same_layout(layouts).all(), "the lamp hides the plates"
    same = same_layout(layouts, usual=layouts.mean(axis=0))
    assert same[0, 12]
    assert same.sum() == 13 + 2
