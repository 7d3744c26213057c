"""Objects are the connected regions that SciPy finds, and come out of their box as they went in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from segwright.augment.mix import MixPolicy
from segwright.data.objects import find_objects
from segwright.data.pack import Pack, pack_arrays
from segwright.data.pasting import Pasting
from segwright.errors import RecipeError


def scattered(rng: np.random.Generator, count: int, *, size: tuple[int, int] = (30, 40)) -> Pack:
    """Masks of three classes in rough patches; an image shows its labels and its number."""
    masks = [
        np.digitize(ndimage.gaussian_filter(rng.standard_normal(size), 1.5), [-0.1, 0.12]).astype(np.uint8)
        for _ in range(count)
    ]
    images = [np.stack([mask, np.full(size, n, np.uint8)]) for n, mask in enumerate(masks)]
    return pack_arrays(images, masks)


@given(seed=st.integers(0, 2**31), least_px=st.sampled_from([1, 12]))
def test_scipy_finds_the_same_objects(seed, least_px):
    pack = scattered(np.random.default_rng(seed), 3)
    objects = find_objects(pack, np.array([2, 0]), labels=(0, 2), least_px=least_px)
    found = set(zip(objects.row, objects.label, map(tuple, objects.box), objects.pixels, strict=True))
    expected = set()
    for row in (0, 2):
        for label in (0, 2):
            named, _ = ndimage.label(pack.mask(row) == label, structure=np.ones((3, 3)))
            for k, (rows, columns) in enumerate(ndimage.find_objects(named), start=1):
                pixels = int((named == k).sum())
                if pixels >= least_px:
                    expected.add((row, label, (rows.start, columns.start, rows.stop, columns.stop), pixels))
    assert found == expected
    assert (np.diff(objects.row) >= 0).all()
    for row, label, anchor in zip(objects.row, objects.label, objects.anchor, strict=True):
        assert pack.mask(int(row))[tuple(anchor)] == label


def test_anchors_are_pixels_of_objects_as_often_as_asked():
    rng = np.random.default_rng(0)
    pack = scattered(rng, 4)
    objects = find_objects(pack, np.array([0, 2]), labels=(2,))
    rows = np.tile([0, 1, 2, 3], 500)
    anchors = objects.anchors(rows, share=0.3, rng=rng)
    there = ~np.isnan(anchors).any(axis=1)
    assert not there[rows % 2 == 1].any()
    assert abs(there[rows % 2 == 0].mean() - 0.3) < 0.05
    for row in (0, 2):
        of_row = {tuple(anchor) for anchor in objects.anchor[objects.row == row]}
        assert {tuple(anchor) for anchor in anchors[there & (rows == row)].astype(int)} == of_row


def test_an_object_is_cut_out_along_its_own_outline():
    """Another object of the class may reach into its box."""
    mask = np.zeros((20, 20), dtype=np.uint8)
    mask[3:17, 4] = mask[3, 4:15] = 1  # an angle
    mask[8:15, 9:13] = 1  # inside of its box
    pack = pack_arrays([np.stack([mask, mask])], [mask])
    objects = find_objects(pack, np.array([0]), labels=(1,))
    assert len(objects) == 2
    pasting = Pasting(pack, objects, policy=MixPolicy(copy_paste=1.0, paste_labels=(1,)))
    cutouts = [pasting._cut(0.0, share) for share in (0.0, 0.99)]
    assert sorted(int(cutout.shape.sum()) for cutout in cutouts) == sorted(objects.pixels.tolist()) == [24, 28]
    for cutout in cutouts:
        assert (cutout.image[cutout.shape] == 1).all()
        assert cutout.cut_off == (False, False, False, False)


def test_classes_are_equally_likely_and_objects_without_an_end_are_left_out():
    mask = np.zeros((20, 40), dtype=np.uint8)
    mask[2:6, 2:6] = mask[2:6, 20:24] = mask[10:14, 20:24] = 1
    mask[0:20, 30:33] = 2  # from top to bottom
    mask[16:20, 0:4] = 2
    pack = pack_arrays([mask[None]], [mask])
    objects = find_objects(pack, np.array([0]), labels=(1, 2))
    assert len(objects) == 5
    pasting = Pasting(pack, objects, policy=MixPolicy(copy_paste=1.0, paste_labels=(1, 2)))
    first, second = pasting._cut(0.49, 0.5), pasting._cut(0.51, 0.99)
    assert (first.label, second.label) == (1, 2)
    assert second.cut_off == (False, True, True, False)
    with pytest.raises(RecipeError, match="copy_paste"):
        Pasting(pack, objects.where(objects.pixels == 60), policy=MixPolicy(copy_paste=1.0, paste_labels=(2,)))
