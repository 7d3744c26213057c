"""Pictures of images and masks: overlays, error maps, outlines.

They come out as arrays (H, W, 3) uint8. Wrong pixels differ in lightness as well as in hue (Okabe & Ito 2008,
https://jfly.uni-koeln.de/color/), so that colour-blind readers and gray printers keep them.

    C channels   H, W rows and columns in pixels   K classes
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Literal

import numpy as np
from jaxtyping import Integer, Shaped, UInt8
from PIL import Image

from segwright.types import IGNORE_INDEX

Picture = UInt8[np.ndarray, "H W 3"]

WRONG = (213, 94, 0)
VOID = (148, 156, 168)


def as_rgb(image: Shaped[np.ndarray, "C H W"]) -> Picture:
    """Show an image of any bands and depth: gray is repeated, of many bands the first three are taken.

    Values other than uint8 are stretched between their 1st and 99th percentile.
    """
    bands = {1: [0, 0, 0], 2: [0, 1, 1]}.get(len(image), [0, 1, 2])
    chosen = image[bands].transpose(1, 2, 0)
    if chosen.dtype == np.uint8:
        return np.ascontiguousarray(chosen)
    values = np.nan_to_num(chosen.astype(np.float32))
    low, high = np.percentile(values, [1, 99])
    stretched: np.ndarray = np.clip((values - low) / max(float(high - low), 1e-12), 0, 1)
    return (stretched * 255).round().astype(np.uint8)


def colored(mask: Integer[np.ndarray, "H W"], palette: UInt8[np.ndarray, "K 3"]) -> Picture:
    """A mask in its class colours; void is gray."""
    table = np.full((256, 3), VOID, dtype=np.uint8)
    table[: len(palette)] = palette
    return np.asarray(table[mask.astype(np.uint8)])


def overlay(
    image: Shaped[np.ndarray, "C H W"],
    mask: Integer[np.ndarray, "H W"],
    palette: UInt8[np.ndarray, "K 3"],
    alpha: float = 0.5,
) -> Picture:
    """The image with the mask's colours laid over it; void shows the image alone."""
    photo = as_rgb(image).astype(np.float32)
    share = np.where(mask == IGNORE_INDEX, 0.0, alpha).astype(np.float32)[..., None]
    return (photo * (1 - share) + colored(mask, palette) * share).round().astype(np.uint8)


def error_map(
    image: Shaped[np.ndarray, "C H W"], mask: Integer[np.ndarray, "H W"], pred: Integer[np.ndarray, "H W"]
) -> Picture:
    """Where the prediction is wrong: the image pale and gray, wrong pixels in vermilion, void in flat gray."""
    pale = 150 + as_rgb(image).mean(-1, keepdims=True) * (105 / 255)
    shown = np.repeat(pale, 3, axis=-1)
    shown[(mask != pred) & (mask != IGNORE_INDEX)] = WRONG
    shown[mask == IGNORE_INDEX] = VOID
    return shown.round().astype(np.uint8)


def outlined(
    image: Shaped[np.ndarray, "C H W"], masks: Mapping[tuple[int, int, int], Integer[np.ndarray, "H W"]]
) -> Picture:
    """The image with the borders between the labels of masks, each mask in its own colour, the last on top."""
    shown = as_rgb(image).copy()
    for color, mask in masks.items():
        shown[_borders(mask)] = color
    return shown


def _borders(mask: Integer[np.ndarray, "H W"]) -> np.ndarray:
    """Pixels on both sides of a border."""
    found = np.zeros(mask.shape, dtype=bool)
    down, right = mask[1:] != mask[:-1], mask[:, 1:] != mask[:, :-1]
    found[1:] |= down
    found[:-1] |= down
    found[:, 1:] |= right
    found[:, :-1] |= right
    return found


def to_png(picture: UInt8[np.ndarray, "H W 3"] | UInt8[np.ndarray, "H W"]) -> bytes:
    """Lossless; for masks and small pictures."""
    return _encoded(picture, format="PNG")


def to_webp(picture: Picture, *, quality: int = 82) -> bytes:
    """A tenth of a PNG's size, for photographs in a page."""
    return _encoded(picture, format="WEBP", quality=quality)


def _encoded(picture: np.ndarray, *, format: Literal["PNG", "WEBP"], quality: int = 100) -> bytes:  # noqa: A002
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(stream, format=format, quality=quality)
    return stream.getvalue()
