"""Objects are laid where they may stand, whole, in their own colours, and alike on every device."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segwright.augment.mix import MixPolicy, draw_mix
from segwright.augment.paste import ON_PLACE, Cutout, Patch, feathered, lay_on_cpu, lay_on_device, place_objects
from segwright.types import IGNORE_INDEX, MaskArray

STILL = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
OBJECT = 5


def blob(rng: np.random.Generator, height: int, width: int, *, cut_off=(False, False, False, False)) -> Cutout:
    """A lumpy object whose pixels are 100 + their label; what lies around it in its box is 7."""
    shape = np.zeros((height, width), dtype=bool)
    shape[height // 5 : height - height // 5] = True
    shape[:, width // 4 : width - width // 4] = True
    shape |= rng.random((height, width)) < 0.05
    image = np.where(shape, 100 + OBJECT, 7).astype(np.uint8)[:, :, None].repeat(2, axis=2)
    return Cutout(image, shape, OBJECT, cut_off)


def ground(rng: np.random.Generator, size: tuple[int, int]) -> MaskArray:
    """Patches of 12 pixels of classes 0, 1, 2 and void."""
    tiles = rng.choice(np.array([0, 1, 1, 2, IGNORE_INDEX], dtype=np.uint8), (-(-size[0] // 12), -(-size[1] // 12)))
    return np.ascontiguousarray(np.kron(tiles, np.ones((12, 12), dtype=np.uint8))[: size[0], : size[1]])


def placed(policy: MixPolicy, mask: MaskArray, cutout: Cutout, *, seed: int, matrix=STILL, crop_px=None):
    """Patches laid into a copy of the mask, which comes too."""
    crop_px = mask.shape if crop_px is None else crop_px
    parameters = draw_mix(policy, 1, crop_px=crop_px, rng=np.random.default_rng(seed))
    after = mask.copy()
    patches = place_objects(
        policy, parameters, 0, mask=after, matrix=matrix, crop_px=crop_px, cut=lambda of_class, of_objects: cutout
    )
    return patches, after


@given(
    size=st.tuples(st.integers(20, 70), st.integers(20, 70)),
    box=st.tuples(st.integers(4, 24), st.integers(4, 24)),
    onto=st.sampled_from([(), (1,), (0, 2)]),
    flip=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_without_feather_every_pixel_and_label_come_from_one_image(size, box, onto, flip, seed):
    rng = np.random.default_rng(seed)
    mask = ground(rng, size)
    policy = MixPolicy(copy_paste=1.0, paste_labels=(OBJECT,), paste_onto=onto, paste_feather_px=0.0, paste_flip=flip)
    patches, after = placed(policy, mask, blob(rng, *box), seed=seed)
    image = mask[:, :, None].repeat(2, axis=2)
    lay_on_cpu(image, patches)
    laid = np.zeros(size, dtype=bool)
    before = mask.copy()
    for patch in patches:
        inside = patch.share > 0
        covered = before[patch.box][inside]
        assert np.isin(covered, onto or (0, 1, 2)).mean() >= ON_PLACE
        laid[patch.box] |= inside
        before[patch.box][inside] = OBJECT
    np.testing.assert_array_equal(after, np.where(laid, OBJECT, mask))
    np.testing.assert_array_equal(image[:, :, 0], np.where(laid, 100 + OBJECT, mask))
    np.testing.assert_array_equal(image[:, :, 1], image[:, :, 0])


def test_objects_are_laid_where_there_is_room_and_not_where_there_is_none(rng):
    policy = MixPolicy(copy_paste=1.0, paste_labels=(OBJECT,), paste_onto=(1,), paste_scale=(1.0, 1.0))
    counts = [
        sum(len(placed(policy, np.full((60, 60), label, np.uint8), blob(rng, 8, 8), seed=s)[0]) for s in range(30))
        for label in (0, 1, IGNORE_INDEX)
    ]
    assert counts[0] == counts[2] == 0
    assert counts[1] > 30  # two an image, and hardly one that finds no place in twenty tries
    assert placed(policy, np.ones((6, 60), np.uint8), blob(rng, 8, 8), seed=1)[0] == ()


@pytest.mark.parametrize("edge", [0, 1, 2, 3])
@pytest.mark.parametrize("flip", [False, True])
def test_what_a_border_cuts_off_lies_at_that_border_again(rng, edge, flip):
    cut_off = tuple(k == edge for k in range(4))
    policy = MixPolicy(copy_paste=1.0, paste_labels=(OBJECT,), paste_flip=flip, paste_scale=(1.0, 1.0))
    sides = set()
    for seed in range(40):
        for patch in placed(policy, np.zeros((50, 40), np.uint8), blob(rng, 12, 10, cut_off=cut_off), seed=seed)[0]:
            height, width = patch.share.shape
            ends = (patch.top == 0, patch.left == 0, patch.top + height == 50, patch.left + width == 40)
            sides |= {k for k in (edge, {1: 3, 3: 1}.get(edge, edge)) if ends[k]}
            assert ends[edge] or (flip and ends[{1: 3, 3: 1}.get(edge, edge)])
            if edge in (0, 2):  # no feather at the cut
                assert patch.share[0 if edge == 0 else -1].max() == 1.0
    assert sides == ({1, 3} if flip and edge in (1, 3) else {edge})


def test_objects_lie_where_the_crop_shows_them(rng):
    matrix = np.array([[0.5, 0.0, 60.0], [0.0, 0.5, 30.0]])  # a crop of 20 x 30 of 10 x 15 pixels at (60, 30)
    policy = MixPolicy(copy_paste=1.0, paste_labels=(OBJECT,), paste_scale=(1.0, 1.0))
    found = [
        patch
        for seed in range(30)
        for patch in placed(
            policy, np.zeros((90, 120), np.uint8), blob(rng, 6, 6), seed=seed, matrix=matrix, crop_px=(20, 30)
        )[0]
    ]
    assert len(found) > 20
    middles = np.array([(patch.left + 2.5, patch.top + 2.5) for patch in found])
    assert (middles >= [60 - 1, 30 - 1]).all()
    assert (middles <= [75 + 1, 40 + 1]).all()


def test_scale_is_log_uniform_within_its_range(rng):
    policy = MixPolicy(copy_paste=1.0, paste_labels=(OBJECT,), paste_scale=(0.5, 2.0))
    cutout = blob(rng, 20, 20)
    sides = [
        patch.share.shape[0]
        for seed in range(150)
        for patch in placed(policy, np.zeros((200, 200), np.uint8), cutout, seed=seed)[0][:1]
    ]
    assert min(sides) >= 10
    assert max(sides) <= 40
    assert abs(np.mean(np.array(sides) < 20) - 0.5) < 0.12


def test_mirrored_objects_are_mirror_images(rng):
    cutout = blob(rng, 9, 7)
    policy = MixPolicy(copy_paste=1.0, paste_labels=(OBJECT,), paste_scale=(1.0, 1.0), paste_feather_px=0.0)
    shapes = {
        (patch.share > 0).tobytes()
        for seed in range(30)
        for patch in placed(policy, np.zeros((40, 40), np.uint8), cutout, seed=seed)[0]
    }
    assert shapes == {cutout.shape.tobytes(), np.ascontiguousarray(cutout.shape[:, ::-1]).tobytes()}


def test_feather_grows_from_the_outline_inwards():
    shape = np.zeros((9, 11), dtype=bool)
    shape[1:8, 1:10] = True
    none = (False, False, False, False)
    np.testing.assert_array_equal(feathered(shape, feather_px=0.0, cut_off=none), shape)
    share = feathered(shape, feather_px=1.0, cut_off=none)
    np.testing.assert_array_equal(share > 0, shape)
    row = share[4]
    assert row[1] == 0.5
    assert (np.diff(row[:5]) >= 0).all()
    assert share[4, 5] == 1.0
    wide = feathered(shape, feather_px=3.0, cut_off=none)
    assert (wide <= share).all()
    whole = feathered(np.ones((5, 5), dtype=bool), feather_px=2.0, cut_off=(True, True, True, True))
    np.testing.assert_array_equal(whole, 1.0)


@pytest.mark.parametrize(("channels", "dtype"), [(1, np.uint8), (3, np.uint8), (7, np.float32)])
def test_devices_agree(rng, channels, dtype):
    image = (rng.random((40, 50, channels)) * 200).astype(dtype)
    mask = rng.integers(0, 3, (40, 50), dtype=np.uint8)
    parts = [
        Patch(3, 5, (rng.random((9, 8, channels)) * 200).astype(np.float32), share.astype(np.float32), OBJECT)
        for share in (rng.random((9, 8)) * (rng.random((9, 8)) < 0.7), np.ones((9, 8)))
    ]
    parts[1] = replace(parts[1], top=6, left=9)
    stack, labels = torch.from_numpy(image.transpose(2, 0, 1).copy()), torch.from_numpy(mask.copy())
    lay_on_device(stack, labels, parts)
    lay_on_cpu(image, parts)
    atol = 1 if dtype == np.uint8 else 1e-3
    np.testing.assert_allclose(stack.numpy().transpose(1, 2, 0).astype(float), image.astype(float), atol=atol)
    for patch in parts:
        mask[patch.box][patch.share > 0] = OBJECT
    np.testing.assert_array_equal(labels.numpy(), mask)
