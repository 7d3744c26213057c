"""What would poison a training is found in a pack alone, and clean data pass."""

from __future__ import annotations

import numpy as np
import pytest

from segwright.auditing.poison import find_poison
from segwright.data.pack import Pack, pack_arrays
from segwright.data.synthetic import TERRAIN_COLORS, TERRAIN_NAMES, terrain_stack
from segwright.types import ClassSet, SplitName

CLASSES = ClassSet(TERRAIN_NAMES, TERRAIN_COLORS)


@pytest.fixture(scope="module")
def clean() -> tuple[np.ndarray, np.ndarray]:
    return terrain_stack(40, size=(48, 64), seed=3)


def kinds(images: np.ndarray, masks: np.ndarray, *, split: dict[str, SplitName] | None = None) -> dict[str, list[str]]:
    pack = pack_arrays(list(images), list(masks))
    return {one.kind: sorted(one.ids) for one in find_poison(pack, split or sides(pack), CLASSES)}


def sides(pack: Pack) -> dict[str, SplitName]:
    return {name: "val" if i % 5 == 0 else "train" for i, name in enumerate(pack.ids)}


def noise(rng: np.random.Generator, like: np.ndarray) -> np.ndarray:
    return rng.integers(0, 256, like.shape, dtype=np.uint8)


def test_clean_pictures_pass(clean: tuple[np.ndarray, np.ndarray]) -> None:
    assert kinds(*clean) == {}


def test_noise_is_found_and_nothing_else(clean: tuple[np.ndarray, np.ndarray], rng: np.random.Generator) -> None:
    images, masks = clean[0].copy(), clean[1]
    images[[3, 7, 31]] = noise(rng, images[:3])
    assert kinds(images, masks) == {"noise_image": ["00003", "00007", "00031"]}


def test_where_all_pictures_are_grainy_none_is_noise(
    clean: tuple[np.ndarray, np.ndarray], rng: np.random.Generator
) -> None:
    assert kinds(noise(rng, clean[0]), clean[1]) == {}


def test_the_grain_of_an_empty_frame_is_no_noise(
    clean: tuple[np.ndarray, np.ndarray], rng: np.random.Generator
) -> None:
    images = clean[0].copy()
    images[5] = 20 + rng.integers(0, 3, images[5].shape)
    assert kinds(images, clean[1]) == {}


def test_one_mask_beside_many_pictures_is_found(clean: tuple[np.ndarray, np.ndarray]) -> None:
    images, masks = clean[0], clean[1].copy()
    masks[10:16] = masks[10]
    assert kinds(images, masks) == {"shared_mask": [f"{i:05d}" for i in range(10, 16)]}


def test_copies_in_another_light_may_share_their_mask(clean: tuple[np.ndarray, np.ndarray]) -> None:
    images, masks = clean[0].copy(), clean[1].copy()
    for step in range(1, 6):
        images[10 + step], masks[10 + step] = (images[10] * (1 - 0.05 * step)).astype(np.uint8), masks[10]
    assert kinds(images, masks) == {}


def test_masks_of_one_class_and_plain_boxes_may_be_equal_by_chance(clean: tuple[np.ndarray, np.ndarray]) -> None:
    images, masks = clean[0], clean[1].copy()
    masks[10:16] = 1
    masks[20:26] = 1
    masks[20:26, 10:20, 10:20] = 2
    assert kinds(images, masks) == {}


def test_where_sharing_is_the_rule_it_is_no_slip(clean: tuple[np.ndarray, np.ndarray]) -> None:
    images, masks = clean[0], np.repeat(clean[1][:8], 5, axis=0)
    assert "shared_mask" not in kinds(images, masks)


def test_masks_without_content_and_classes_without_examples_are_named(clean: tuple[np.ndarray, np.ndarray]) -> None:
    images, masks = clean[0], clean[1].copy()
    masks[masks == 4] = 3
    masks[12] = 255
    assert kinds(images, masks) == {"empty_mask": ["00012"], "absent_class": []}


def test_images_on_no_side_are_not_looked_at(clean: tuple[np.ndarray, np.ndarray], rng: np.random.Generator) -> None:
    images, masks = clean[0].copy(), clean[1]
    images[3] = noise(rng, images[3])
    split = sides(pack_arrays(list(images), list(masks)))
    del split["00003"]
    assert kinds(images, masks, split=split) == {}


def test_every_id_to_drop_has_its_reason(clean: tuple[np.ndarray, np.ndarray], rng: np.random.Generator) -> None:
    images, masks = clean[0].copy(), clean[1].copy()
    images[3] = noise(rng, images[3])
    masks[10:16] = masks[10]
    pack = pack_arrays(list(images), list(masks))
    for finding in find_poison(pack, sides(pack), CLASSES):
        assert set(finding.drop) == set(finding.ids)
        assert all(finding.drop.values())
