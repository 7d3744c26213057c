"""What one mask holds: pixels and connected objects of each class, counted while the mask is in memory.

An object is a set of pixels of one class that touch, corners included. Their sizes are kept as a histogram by powers
of two, so that a mask of noise takes no more room than any other.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from jaxtyping import Float32, Int

from segwright.auditing.mask_layout import mask_layout
from segwright.metrics import count_labels
from segwright.types import MaskArray

SIZE_BINS = 32
"""Bin b counts objects of 2**b to 2**(b+1) - 1 pixels."""

LONGER_SIDE_PX = 2048
"""Objects of larger masks are counted on a copy that leaves out rows and columns."""


@dataclass(frozen=True)
class Labels:
    """Counts of one mask.

    Attributes:
        pixels: (K,) pixels of each class.
        void_px: pixels that are no class.
        objects: (K,) connected objects of each class.
        sizes: (K, 32) the same by size; see `SIZE_BINS`.
        layout: (64,) where what lies; see `mask_layout`.
    """

    pixels: Int[np.ndarray, " K"]
    void_px: int
    objects: Int[np.ndarray, " K"]
    sizes: Int[np.ndarray, "K 32"]
    layout: Float32[np.ndarray, " 64"] = field(default_factory=lambda: np.zeros(64, dtype=np.float32))

    @property
    def present(self) -> tuple[int, ...]:
        """The classes that the mask holds."""
        return tuple(np.flatnonzero(self.pixels).tolist())

    @property
    def void_share(self) -> float:
        """The part of the pixels that is no class."""
        return self.void_px / max(self.void_px + int(self.pixels.sum()), 1)


def measure_labels(mask: MaskArray, num_classes: int) -> Labels:
    """Count pixels and objects.

    Args:
        mask: (H, W) labels 0..K-1; all else is void.
        num_classes: K.
    """
    counts = count_labels(mask)
    step = -(-max(mask.shape) // LONGER_SIDE_PX)
    coarse = np.ascontiguousarray(mask[::step, ::step])
    sizes = np.zeros((num_classes, SIZE_BINS), dtype=np.int32)
    for label in np.flatnonzero(counts[:num_classes]).tolist():
        areas = _areas(coarse, label) * step**2
        sizes[label] = np.bincount(np.frexp(areas.astype(np.float64))[1] - 1, minlength=SIZE_BINS)[:SIZE_BINS]
    pixels = counts[:num_classes].astype(np.int64)
    return Labels(pixels, int(mask.size - pixels.sum()), sizes.sum(axis=1), sizes, mask_layout(mask))


def _areas(mask: MaskArray, label: int) -> Int[np.ndarray, " objects"]:
    """Pixels of each object of a class."""
    there = np.asarray(mask == label).view(np.uint8)
    left, top, width, height = cv2.boundingRect(there)
    if width == 0:
        return np.zeros(0, dtype=np.int64)
    # A quarter of the pixels at most are objects, so that small cuts need no more than 16 bits: twice as fast.
    bits = cv2.CV_16U if width * height < 4 * 65_000 else cv2.CV_32S
    _, numbered = cv2.connectedComponents(there[top : top + height, left : left + width], connectivity=8, ltype=bits)
    return np.bincount(numbered.reshape(-1))[1:]
