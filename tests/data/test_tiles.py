"""Tiles cover an image, overlap enough, and each pixel belongs to the tile that it lies most central in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segwright.data import tiles as tiles_module
from segwright.data.tiles import STEP_PX, is_large, tile_batches, tiles_of
from segwright.errors import RecipeError

SIDES = st.integers(1, 900)


@given(height=SIDES, width=SIDES, tile_px=st.integers(64, 400))
def test_cores_part_the_image(height: int, width: int, tile_px: int) -> None:
    owner = np.zeros((height, width), dtype=np.int64)
    for tile in tiles_of(height, width, tile_px=tile_px):
        owner[tile.core] += 1
        assert max(tile.size) <= tile_px
        assert tile.rows[0] % STEP_PX == tile.columns[0] % STEP_PX == 0
        assert tile.rows[1] <= height
        assert tile.columns[1] <= width
        whole = np.arange(height * width).reshape(height, width)
        np.testing.assert_array_equal(whole[tile.window][tile.inner], whole[tile.core])
    assert (owner == 1).all()


@given(width=SIDES, tile_px=st.integers(64, 400))
def test_each_pixel_lies_most_central_where_it_belongs(width: int, tile_px: int) -> None:
    tiles = tiles_of(1, width, tile_px=tile_px)
    margins = np.full((len(tiles), width), -1.0)
    owner = np.zeros(width, dtype=np.int64)
    for row, tile in enumerate(tiles):
        first, last = tile.columns
        # An end of the image is no end of the view: nothing is missing there.
        before = np.inf if first == 0 else np.arange(first, last) - first + 0.5
        after = np.inf if last == width else last - np.arange(first, last) - 0.5
        margins[row, first:last] = np.minimum(before, after)
        owner[tile.core[1]] = row
    chosen = margins[owner, np.arange(width)]
    assert (chosen >= margins.max(axis=0) - 1).all()
    assert chosen.min() >= max(STEP_PX, tile_px // STEP_PX // 4 * STEP_PX) / 2 - 0.5


def test_tiles_of_one_size_share_batches() -> None:
    tiles = tiles_of(3000, 4000)
    assert len(tiles) == 20
    batches = tile_batches(tiles, most=8)
    assert sorted(tile.window[0].start for batch in batches for tile in batch) == sorted(t.rows[0] for t in tiles)
    for batch in batches:
        assert len({tile.size for tile in batch}) == 1
        assert sum(tile.size[0] * tile.size[1] for tile in batch) <= tiles_module.BATCH_PX
    assert len(batches) <= 11
    assert all(len(batch) == 1 for batch in tile_batches(tiles, most=1))


def test_only_large_images_are_cut() -> None:
    assert is_large(2000, 2001, tile_px=512)
    assert not is_large(2000, 2000, tile_px=512)
    assert not is_large(30000, 30000, tile_px=None)
    assert len(tiles_of(500, 1024)) == 1


def test_tiles_that_could_not_overlap_are_refused() -> None:
    with pytest.raises(RecipeError, match="tiles of 63 pixels"):
        tiles_of(100, 100, tile_px=63)
