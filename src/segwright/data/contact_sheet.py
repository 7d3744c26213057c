"""A contact sheet: originals and their copies side by side, each with its mask laid over it."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import UInt8

from segwright.pictures import overlay
from segwright.types import ImageArray, MaskArray

PAIRS = 24
"""Originals on a sheet, each with a copy to its right."""

COLUMNS = 8
TILE_PX = 160
"""Longer side of a picture on the sheet."""

GAP_PX = 6
ALPHA = 0.35

Labelled = tuple[ImageArray, MaskArray]


class ContactSheet:
    """Collects up to 24 pairs out of many, evenly spread.

    Args:
        palette: colour of each class.
        count: how many pairs will be offered.
    """

    def __init__(self, palette: UInt8[np.ndarray, "K 3"], *, count: int) -> None:
        self._palette = palette
        self._wanted = set(np.linspace(0, count - 1, min(PAIRS, count)).astype(int).tolist())
        self._tiles: list[np.ndarray] = []

    def offer(self, number: int, original: Labelled, copy: Labelled) -> None:
        """Show a pair, where its number is one of those that are shown."""
        if number in self._wanted:
            self._tiles += [self._tile(*original), self._tile(*copy)]

    def picture(self) -> UInt8[np.ndarray, "H W 3"]:
        """The sheet, on white."""
        rows = max(1, -(-len(self._tiles) // COLUMNS))
        height = max((tile.shape[0] for tile in self._tiles), default=1) + GAP_PX
        width = max((tile.shape[1] for tile in self._tiles), default=1) + GAP_PX
        sheet = np.full((rows * height + GAP_PX, COLUMNS * width + GAP_PX, 3), 255, dtype=np.uint8)
        for place, tile in enumerate(self._tiles):
            top, left = GAP_PX + place // COLUMNS * height, GAP_PX + place % COLUMNS * width
            sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
        return sheet

    def _tile(self, image: ImageArray, mask: MaskArray) -> UInt8[np.ndarray, "_ _ 3"]:
        shown = overlay(image, mask, self._palette, ALPHA)
        factor = TILE_PX / max(mask.shape)
        size = (max(1, round(mask.shape[1] * factor)), max(1, round(mask.shape[0] * factor)))
        return np.asarray(cv2.resize(shown, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_NEAREST))
