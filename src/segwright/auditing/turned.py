"""Photos that the camera marks as turned, beside masks that were drawn on the unturned picture.

A camera held upright stores the picture lying and notes in its EXIF data how to turn it; we turn it, some labelling
programs do not. Where width and height then fit the mask only unturned, that is plain. Where both fit (a square, half a
turn, a mirror image), edges tell: the borders of a mask lie on edges of the picture it was drawn on.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Shaped, UInt8

from segwright.errors import DataError
from segwright.files import open_picture
from segwright.types import ImageArray, MaskArray

ORIENTATION = 0x0112
"""The EXIF tag, 1 to 8; 1 is upright."""

TURNS = {
    2: "mirrored", 3: "turned by half a turn", 4: "mirrored upside down", 5: "turned and mirrored",
    6: "turned by a quarter to the right", 7: "turned and mirrored", 8: "turned by a quarter to the left",
}  # fmt: skip
"""What has to be done to the stored picture so that it stands upright."""

LONGER_SIDE_PX = 512
"""Edges are compared on a copy of this size."""

CLEARLY = 1.3
"""So much stronger than the average must edges be under the borders of a mask, and than in the other position."""


def orientation_of(path: Path) -> int:
    """The EXIF orientation of a picture, 1 where it has none or cannot be read."""
    try:
        with open_picture(path, decode=False) as picture:
            if picture.format == "PNG" and "exif" not in picture.info:
                return 1  # Pillow would decode all of it to look behind the pixels
            value = picture.getexif().get(ORIENTATION, 1)
    except DataError:
        return 1
    return value if value in TURNS else 1


def unturned(image: ImageArray, orientation: int) -> Shaped[np.ndarray, "C h w"]:
    """An upright image (C, H, W) as it was stored."""
    quarter = {6: 1, 8: -1, 3: 2}
    if orientation in quarter:
        return np.rot90(image, quarter[orientation], axes=(1, 2))
    if orientation in (5, 7):
        image = image.transpose(0, 2, 1)
        return image[:, ::-1, ::-1] if orientation == 7 else image
    return {1: image, 2: image[:, :, ::-1], 4: image[:, ::-1]}[orientation]


def fits_unturned(image: ImageArray, mask: UInt8[np.ndarray, "h w"], orientation: int) -> bool:
    """Whether a mask clearly fits the picture as it was stored and not as it stands upright.

    Args:
        image: (C, H, W) upright.
        mask: (h, w) labels.
        orientation: by EXIF, 2 to 8.
    """
    stored = unturned(image, orientation)
    if stored.shape[1:] != mask.shape:
        return False
    if image.shape[1:] != mask.shape:
        return True
    upright, lying = edges_under(image, mask), edges_under(stored, mask)
    return lying > CLEARLY and lying > CLEARLY * upright


def edges_under(image: ImageArray, mask: MaskArray) -> float:
    """How strong the edges of an image are under the borders of a mask, on average, where 1 is as strong as anywhere.

    Args:
        image: (C, H, W).
        mask: (H, W) labels, of the same size.
    """
    factor = min(1.0, LONGER_SIDE_PX / max(mask.shape))
    size = tuple(max(1, round(side * factor)) for side in mask.shape[::-1])
    gray = np.ascontiguousarray(image[:3].mean(axis=0, dtype=np.float32))
    gray = cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
    labels = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)
    strength = cv2.magnitude(cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1))
    thick = np.ones((3, 3), dtype=np.uint8)
    border = cv2.dilate(labels, thick) != cv2.erode(labels, thick)
    mean = float(strength.mean())
    return float(strength[border].mean()) / mean if border.any() and mean > 0 else 1.0
