"""Overlapping tiles of a large image, so that a model never sees more of it at once than the memory takes.

The tiles of an image are of one size (but for the rest at its right and lower edge) and spread evenly. Each pixel
belongs to the core of exactly one tile, the one that it lies most central in: neighbouring cores meet in the middle of
the overlap (the overlap-tile strategy of Ronneberger 2015, https://arxiv.org/abs/1505.04597). Tiles start at multiples
of `STEP_PX`, where strided networks have the same grid as in the whole image. So a network whose view is no wider than
half the overlap answers as on the whole image; one that looks further, or that pools over the whole image, answers
almost so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from segwright.errors import RecipeError

LARGE_IMAGE_PX = 4_000_000
"""Images of more pixels are looked at in tiles."""

TILE_PX = 1024
"""Side of a tile; tiles overlap by a quarter of it, so that each pixel is seen with an eighth of it on all sides."""

BATCH_PX = 2 * TILE_PX**2
"""Tiles that go through a model together have about so many pixels; more take memory and save no time."""

STEP_PX = 32
"""Tiles start at multiples of this and are as long, as the strides of encoders want it."""


@dataclass(frozen=True)
class Tile:
    """A window of an image, and the core of it that the window answers for.

    Attributes:
        rows, columns: first and last-but-one of the window, in the image.
        core_rows, core_columns: of the core, in the image.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]
    core_rows: tuple[int, int]
    core_columns: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the window."""
        return self.rows[1] - self.rows[0], self.columns[1] - self.columns[0]

    @property
    def window(self) -> tuple[slice, slice]:
        """Of the image's rows and columns."""
        return slice(*self.rows), slice(*self.columns)

    @property
    def core(self) -> tuple[slice, slice]:
        """Of the image's rows and columns."""
        return slice(*self.core_rows), slice(*self.core_columns)

    @property
    def inner(self) -> tuple[slice, slice]:
        """The core, of the window's rows and columns."""
        top, left = self.rows[0], self.columns[0]
        return (
            slice(self.core_rows[0] - top, self.core_rows[1] - top),
            slice(self.core_columns[0] - left, self.core_columns[1] - left),
        )


def is_large(height: int, width: int, *, tile_px: int | None) -> bool:
    """Whether an image is looked at in tiles; never with `tile_px` None."""
    return tile_px is not None and height * width > LARGE_IMAGE_PX


def tiles_of(height: int, width: int, *, tile_px: int = TILE_PX) -> tuple[Tile, ...]:
    """Tiles that cover an image, row by row, no side longer than `tile_px` (rounded down to a multiple of `STEP_PX`).

    Raises:
        RecipeError: tiles are too small.
    """
    check_tile(tile_px)
    rows, columns = _runs(height, tile_px=tile_px), _runs(width, tile_px=tile_px)
    return tuple(Tile(row, column, core_row, core_column) for row, core_row in rows for column, core_column in columns)


def check_tile(tile_px: int | None) -> None:
    """Refuse tiles that are too small to overlap.

    Raises:
        RecipeError: they are.
    """
    if tile_px is not None and tile_px < 2 * STEP_PX:
        raise RecipeError(f"tiles of {tile_px} pixels", mend=f"use {2 * STEP_PX} or more; {TILE_PX} is usual")


def _runs(side: int, *, tile_px: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """First and last-but-one pixel of each tile along a side, and of its core."""
    longest = tile_px // STEP_PX
    overlap = max(1, longest // 4)
    steps = math.ceil(side / STEP_PX)
    if steps <= longest:
        return [((0, side), (0, side))]
    # In whole steps, neighbours overlap by no less than was asked for.
    count = math.ceil((steps - overlap) / (longest - overlap))
    length = math.ceil((steps + (count - 1) * overlap) / count)
    starts = [STEP_PX * (k * (steps - length) // (count - 1)) for k in range(count)]
    ends = [min(start + STEP_PX * length, side) for start in starts]
    borders = [0, *((start + end) // 2 for start, end in zip(starts[1:], ends[:-1], strict=True)), side]
    return list(zip(zip(starts, ends, strict=True), pairwise(borders), strict=True))


def tile_batches(tiles: Sequence[Tile], *, most: int) -> list[tuple[Tile, ...]]:
    """Tiles of one size together, in even batches of at most `most` tiles and about `BATCH_PX` pixels."""
    alike: dict[tuple[int, int], list[Tile]] = {}
    for tile in tiles:
        alike.setdefault(tile.size, []).append(tile)
    batches = []
    for (height, width), group in alike.items():
        at_once = max(1, min(most, BATCH_PX // (height * width)))
        even = math.ceil(len(group) / math.ceil(len(group) / at_once))
        batches += [tuple(group[start : start + even]) for start in range(0, len(group), even)]
    return batches
