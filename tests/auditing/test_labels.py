"""Pixels and objects of a mask are those that SciPy counts."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from segwright.auditing.labels import LONGER_SIDE_PX, measure_labels


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 5), st.floats(0.02, 1), st.integers(0, 9999))
def test_as_scipy_counts(rows, columns, num_classes, density, seed):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, num_classes, (rows, columns), dtype=np.uint8)
    mask = np.where(rng.random((rows, columns)) < density, coarse, 255).astype(np.uint8)
    found = measure_labels(mask, num_classes)
    assert found.void_px == (mask == 255).sum()
    assert found.present == tuple(k for k in range(num_classes) if (mask == k).any())
    assert found.void_share == (mask == 255).mean()
    for k in range(num_classes):
        numbered, count = ndimage.label(mask == k, structure=np.ones((3, 3)))
        areas = ndimage.sum_labels(mask == k, numbered, range(1, count + 1)) if count else np.zeros(0)
        assert (found.pixels[k], found.objects[k]) == ((mask == k).sum(), count)
        np.testing.assert_array_equal(found.sizes[k], np.bincount(np.floor(np.log2(areas)).astype(int), minlength=32))


def test_objects_of_large_masks_are_counted_on_a_copy():
    mask = np.zeros((4, 2 * LONGER_SIDE_PX), dtype=np.uint8)
    mask[:, 100:132] = 1
    mask[3, 501] = 2  # falls between the rows and columns that are kept
    found = measure_labels(mask, 3)
    assert found.pixels.tolist() == [mask.size - 129, 128, 1]
    assert found.objects.tolist() == [2, 1, 0]
    assert found.sizes[1, 7] == 1  # 128 pixels


def test_values_beyond_the_classes_are_void():
    found = measure_labels(np.array([[0, 1, 2, 3]], dtype=np.uint8), 2)
    assert (found.pixels.tolist(), found.void_px) == ([1, 1], 2)
