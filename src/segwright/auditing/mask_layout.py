"""Where what lies in a mask, as 64 numbers: masks that are nearly the same are sought by them.

Every label is given a value of its own, far from those of the labels next to it; a layout holds the means of 8x8 cells.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32

from segwright.types import MaskArray

SIDE = 8

_COARSE_PX = 256
# Multiples of the golden ratio without their whole part lie as far from one another as so many numbers can.
_VALUES = np.modf(np.arange(256) * 0.618033988749895)[0].astype(np.float32)


def mask_layout(mask: MaskArray) -> Float32[np.ndarray, " 64"]:
    """Means of cells of (H, W) labels, less the mean of all, at length 1; zeros where all cells are alike."""
    step = max(1, min(mask.shape) // _COARSE_PX)
    coarse = np.ascontiguousarray(mask[::step, ::step])
    cells = cv2.resize(cv2.LUT(coarse, _VALUES), (SIDE, SIDE), interpolation=cv2.INTER_AREA).ravel()
    cells = cells - cells.mean()
    length = float(np.linalg.norm(cells))
    return np.asarray(cells / length if length > 1e-6 else np.zeros_like(cells), dtype=np.float32)
