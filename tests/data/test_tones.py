"""Tones of packs and of sets of pictures."""

from __future__ import annotations

import numpy as np
import pytest

from segwright.augment.matching import reference_of, tones_of
from segwright.data.pack import pack_arrays
from segwright.data.synthetic import write_terrain
from segwright.data.tones import LARGEST_SET, pack_reference, tones_below
from segwright.errors import DataError
from segwright.files import read_image, save_image


def test_a_packs_reference_is_that_of_its_images(rng):
    images = [rng.integers(0, 200, (2, 16, 20), dtype=np.uint8) for _ in range(5)]
    pack = pack_arrays(images)
    np.testing.assert_array_equal(pack_reference(pack, np.array([1, 3])), reference_of([images[1], images[3]]))


def test_the_test_side_is_taken_where_the_set_names_one(tmp_path):
    photos = write_terrain(tmp_path / "photos", images=12, size=(24, 32), layout="sides")
    names = sorted((photos / "test" / "images").iterdir())
    tones = tones_below(photos, channels=3, dtype="uint8")
    np.testing.assert_array_equal(tones, np.stack([tones_of(read_image(name)) for name in names]))


def test_gray_pictures_fit_colours_and_others_are_refused(tmp_path, rng):
    for n in range(3):
        save_image(tmp_path / f"{n}", rng.integers(0, 255, (1, 8, 9), dtype=np.uint8))
    tones = tones_below(tmp_path, channels=3, dtype="uint8")
    assert tones.shape == (3, 3, 256)
    np.testing.assert_array_equal(tones[:, 0], tones[:, 2])
    with pytest.raises(DataError, match="2 of float32"):
        tones_below(tmp_path, channels=2, dtype="float32")


def test_of_many_pictures_some_are_looked_at(tmp_path):
    pictures = np.arange(LARGEST_SET + 50, dtype=np.uint8)[:, None, None] * np.ones((1, 6, 7), np.uint8)
    np.savez(tmp_path / "many.npz", images=pictures)
    assert len(tones_below(tmp_path / "many.npz", channels=1, dtype="uint8")) == LARGEST_SET
