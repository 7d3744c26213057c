"""Move maps so that a crop shows a given pixel of its image; zoom, turn, flip and shear stay as they were drawn.

nnU-Net makes a third of its patches hold a foreground class for certain (Isensee et al. 2021,
https://doi.org/10.1038/s41592-020-01008-z). Here a crop is laid around an object, with room for chance: the pixel lies
anywhere in the middle half of the crop along each side.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from segwright.augment.geometry import kept_half_sides

JITTER = 0.25
"""Largest distance of the pixel from the middle of the crop, as a share of its side."""


def centred_maps(
    maps: Float[np.ndarray, "N 2 3"], sizes_px: Int[np.ndarray, "N 2"], *,
    crop_px: tuple[int, int], anchors: Float[np.ndarray, "N 2"], rng: np.random.Generator,
    fill: Literal["reflection", "zoom"] = "reflection", reach_px: Float[np.ndarray, "N 2"] | None = None,
) -> Float[np.ndarray, "N 2 3"]:  # fmt: skip
    """The maps with a new shift where there is an anchor.

    The crop stays within the image as far as it can, so an anchor near a border lies further from the middle; without
    rotation, shear and distortion it is in the crop for certain. An image that the crop shows whole anyway does not
    move. Where the maps were zoomed to read nothing beyond the image, they do so still.

    Args:
        maps: from pixels of the crop to those of the image (see `geometry`).
        sizes_px: rows and columns of the images.
        crop_px: rows and columns of the crop.
        anchors: row and column of a pixel of each image; NaN leaves the map alone.
        rng: the only source of chance.
        fill: how the maps were drawn (`Policy.rotate_fill`).
        reach_px: the farthest that a distortion moves a pixel, along x and y; None where there is none.
    """
    crop = np.array(crop_px[::-1], dtype=np.float64)
    place = (crop - 1) / 2 + (2 * rng.random((len(maps), 2)) - 1) * JITTER * crop
    linear, sides = maps[:, :, :2], np.asarray(sizes_px, dtype=np.float64)[:, ::-1]
    if fill == "zoom":
        kept = kept_half_sides((sides - 1) / 2, reach_px)
        room = np.maximum(kept - np.abs(linear) @ ((crop - 1) / 2), 0)
    else:
        room = np.abs(sides - (np.abs(linear) @ crop)) / 2
    # Where the crop's centre lies, measured from the centre of the image.
    turned = (linear @ ((crop - 1) / 2 - place)[:, :, None])[:, :, 0]
    shift = (anchors[:, ::-1] + turned - (sides - 1) / 2).clip(-room, room)
    offset = (sides - 1) / 2 + shift - linear @ ((crop - 1) / 2)
    # A distorted image is not copied pixel by pixel, and rounding would lead half a pixel beyond what the reach allows.
    if fill == "reflection" or reach_px is None:
        whole = np.isin(linear, (-1.0, 0.0, 1.0)).all(axis=(1, 2))
        offset[whole] = np.rint(offset[whole])
    moved = maps.copy()
    chosen = ~np.isnan(anchors).any(axis=1)
    moved[chosen, :, 2] = offset[chosen]
    return moved
