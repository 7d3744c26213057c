"""A mask that fits the photo only as it was stored is told, by its size or by the edges of the picture."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageOps

from segwright.auditing.turned import TURNS, edges_under, fits_unturned, orientation_of, unturned
from segwright.data.synthetic import terrain


def photo(seed: int, size: tuple[int, int] = (64, 64)) -> tuple[np.ndarray, np.ndarray]:
    return terrain(np.random.default_rng(seed), size)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_back_undoes_what_pillow_does(tmp_path, orientation):
    image, _ = photo(0, (32, 48))
    exif = Image.Exif()
    exif[0x0112] = orientation
    for ending in ("png", "jpg", "webp"):
        path = tmp_path / f"a.{ending}"
        Image.fromarray(image.transpose(1, 2, 0)).save(path, exif=exif)
        with Image.open(path) as picture:
            stored, upright = np.array(picture), np.array(ImageOps.exif_transpose(picture))
        np.testing.assert_array_equal(unturned(upright.transpose(2, 0, 1), orientation), stored.transpose(2, 0, 1))
        assert orientation_of(path) == orientation
    Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / "a.tif", exif=exif)  # which Pillow turns by itself
    assert orientation_of(tmp_path / "a.tif") == orientation


def test_no_orientation(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    Image.new("RGB", (4, 4)).save(tmp_path / "plain.jpg")
    assert [orientation_of(tmp_path / name) for name in ("broken.jpg", "plain.jpg", "gone.jpg")] == [1, 1, 1]


@pytest.mark.parametrize("orientation", sorted(TURNS))
def test_edges_tell_where_sizes_do_not(orientation):
    """A square photo, stored lying, seen upright: the mask drawn on either one fits that one."""
    wrong = 0
    found = 0
    for seed in range(8):
        stored, lying = photo(seed)
        # What undoes an orientation is the orientation itself, except for quarter turns.
        upright = unturned(stored, {6: 8, 8: 6}.get(orientation, orientation))
        standing = unturned(lying[None], {6: 8, 8: 6}.get(orientation, orientation))[0]
        found += fits_unturned(upright, np.ascontiguousarray(lying), orientation)
        wrong += fits_unturned(upright, np.ascontiguousarray(standing), orientation)
    assert wrong == 0
    assert found >= 6


def test_sizes_tell_where_they_differ():
    image, _ = photo(1, (32, 48))
    assert fits_unturned(image, np.zeros((48, 32), np.uint8), 6)
    assert not fits_unturned(image, np.zeros((32, 48), np.uint8), 6)
    assert not fits_unturned(image, np.zeros((9, 9), np.uint8), 6)


def test_a_mask_without_borders_tells_nothing():
    image, _ = photo(2)
    assert edges_under(image, np.zeros((64, 64), np.uint8)) == 1.0
    assert not fits_unturned(image, np.zeros((64, 64), np.uint8), 3)
