"""What is kept of an image to find its copies and its neighbours: a thumbnail and its strongest local marks.

Marks are SIFT keypoints (Lowe, "Distinctive image features from scale-invariant keypoints", IJCV 2004,
https://doi.org/10.1023/B:VISI.0000029664.99615.94) of a copy of one fixed area: crops of one picture share them
wherever they overlap. Their 128 numbers are compared by square roots (Arandjelovic and Zisserman, CVPR 2012,
https://doi.org/10.1109/CVPR.2012.6248018), of which the 32 slowest waves of a fixed cosine transform are kept: these
find as many true matches as 32 principal components of the data, without having to see the data first.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, Int8, UInt8

from segwright.auditing.tones import reduced
from segwright.types import ImageArray

THUMBNAIL_PX = 64 * 64
"""Pixels of a thumbnail, at most."""

SIDE_PX = 512
"""Photos are shrunk to this first."""

WORKING_PX = 192 * 192
"""Marks are sought at about this many pixels, so small crops are enlarged and photos are shrunk."""

ENLARGED = 3.0
"""Tiny pictures are enlarged this many times, at most: beyond that there is nothing more to see."""

MARKS = 96
"""Marks kept of one image, at most."""

CODE_LENGTH = 32
CODE_SCALE = 127.0
"""A code is a unit vector without its mean, times this."""


@dataclass(frozen=True)
class Prints:
    """What is kept of one image, about 8 kB.

    Attributes:
        size_px: rows and columns of the image.
        thumbnail: (h, w) gray in the proportions of the image, stretched from black to white, at most 4096 pixels.
        spots: (P, 4) column, row and diameter of each mark in pixels of the image, and its angle in degrees.
        codes: (P, 32) what each mark looks like; the strongest first.
    """

    size_px: tuple[int, int]
    thumbnail: UInt8[np.ndarray, "h w"]
    spots: Float32[np.ndarray, "P 4"]
    codes: Int8[np.ndarray, "P 32"]


def fingerprint(image: ImageArray) -> Prints:
    """Thumbnail and marks of an image (C, H, W) of any numeric type; some 6 ms of one core at 256 x 256."""
    gray = grayscale(image, side_px=SIDE_PX)
    rows, columns = image.shape[1:]
    working = scaled(gray, min(ENLARGED, (WORKING_PX / gray.size) ** 0.5))
    found, codes = _finder().detectAndCompute(working, None)
    kept = np.argsort([-spot.response for spot in found], kind="stable")[:MARKS] if found else np.zeros(0, np.int64)
    right, down = columns / working.shape[1], rows / working.shape[0]
    spots = [(found[i].pt[0] * right, found[i].pt[1] * down, found[i].size * right, found[i].angle) for i in kept]
    return Prints(
        size_px=(rows, columns),
        thumbnail=scaled(gray, min(1.0, (THUMBNAIL_PX / gray.size) ** 0.5)),
        spots=np.array(spots, dtype=np.float32).reshape(-1, 4),
        codes=_shortened(codes[kept]) if found else np.zeros((0, CODE_LENGTH), np.int8),
    )


def grayscale(image: ImageArray, *, side_px: int) -> UInt8[np.ndarray, "h w"]:
    """Gray copy with at most `side_px` a side, stretched so that half a percent is black and as much is white."""
    small = reduced(image, side_px=side_px)
    gray = small if small.ndim == 2 else cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    low, high = np.percentile(gray, (0.5, 99.5))
    if high <= low:
        return np.zeros(gray.shape, dtype=np.uint8)
    return np.asarray(np.clip((gray - low) * (255 / (high - low)), 0, 255), dtype=np.uint8)


def scaled(gray: UInt8[np.ndarray, "H W"], factor: float) -> UInt8[np.ndarray, "h w"]:
    """The same picture, smaller or larger."""
    columns, rows = (max(1, int(side * factor)) for side in gray.shape[::-1])
    return np.asarray(
        cv2.resize(gray, (columns, rows), interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
    )


class _Finders(threading.local):
    """OpenCV's finders are not made to be shared between threads: each has its own."""

    def __init__(self) -> None:
        self.finder: cv2.SIFT = cv2.SIFT_create(nfeatures=MARKS, contrastThreshold=0.02)  # type: ignore[attr-defined]  # not in the stub


_FINDERS = _Finders()


def _finder() -> cv2.SIFT:
    return _FINDERS.finder


def _slow_waves() -> Float32[np.ndarray, "32 128"]:
    """Rows of the cosine transform of 4 x 4 cells and the Fourier transform of 8 directions, slowest first, no mean."""
    cell = np.array([[np.cos(np.pi * (x + 0.5) * u / 4) for x in range(4)] for u in range(4)])
    turns = 2 * np.pi * np.arange(8) / 8
    waves = [(0, np.ones(8)), *((k, wave(k * turns)) for k in (1, 2, 3) for wave in (np.cos, np.sin))]
    waves.append((4, np.cos(4 * turns)))
    found = [
        (u + v + k, np.einsum("a,b,c->abc", cell[u], cell[v], wave).reshape(-1))
        for u in range(4)
        for v in range(4)
        for k, wave in waves
    ]
    found.sort(key=lambda pair: pair[0])
    kept = np.array([row for _, row in found[1 : CODE_LENGTH + 1]])
    return np.asarray(kept / np.linalg.norm(kept, axis=1, keepdims=True), dtype=np.float32)


_WAVES = _slow_waves()


def _shortened(codes: Float32[np.ndarray, "P 128"]) -> Int8[np.ndarray, "P 32"]:
    roots = np.sqrt(codes / np.maximum(codes.sum(axis=1, keepdims=True), 1e-6))
    return np.asarray(np.rint(np.clip(roots @ _WAVES.T, -1, 1) * CODE_SCALE), dtype=np.int8)
