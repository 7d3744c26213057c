"""Masks that lie some pixels beside what they mark, told by the pictures alone.

What people outline has edges, so the borders of a mask lie on edges of its picture. With g the strength of the edges,
less its local mean, and b the borders of the mask,

    fit(dx, dy) = the mean of g under b moved by (dx, dy)

is highest where the mask belongs; all moves at once are a cross-correlation, taken by FFT. A mask is called moved where
the best fit is a clear peak (`CLEAR_PEAK` standard deviations of the fits above their mean), stands at least
`LEAST_PX` away, and beats every fit within a pixel of where the mask is by `CLEAR_GAIN` standard deviations. Noise has
no peak, and a mask that covers too much or too little has its peak at home. A whole set that lies one pixel aside, as
some labelling programs leave it, is not reported.

That images and outlines are aligned by their edges is as old as chamfer matching: Barrow 1977,
https://www.ijcai.org/Proceedings/77-2/Papers/024.pdf.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8
from scipy import fft

from segwright.auditing.findings import Answer, Finding
from segwright.auditing.survey import Survey
from segwright.data.ahead import in_order
from segwright.errors import DataError
from segwright.types import ImageArray

LONGER_SIDE_PX = 1024
"""Larger pictures are measured on a copy of this size."""

REACH = 0.03
"""Of the longer side; at least 4 and at most 16 pixels of the measured copy."""

LEAST_PX = 2.0
"""Of the picture itself; less is within what people draw."""

CLEAR_PEAK, CLEAR_GAIN = 3.5, 0.5

MOST_LOOKED_AT = 3_000
"""Of more images so many are looked at, evenly spaced."""

LEAST_BORDER_PX = 50
_NEAR_PX = 31


@dataclass(frozen=True)
class Alignment:
    """Where a mask would fit best.

    Attributes:
        gain: of the best fit over the best within a pixel, in standard deviations of all fits.
        peak: of the best fit over the mean of all, likewise.
        move_px: columns and rows by which the mask should move, in pixels of the picture.
    """

    gain: float
    peak: float
    move_px: tuple[float, float]

    @property
    def is_moved(self) -> bool:
        far = max(map(abs, self.move_px)) >= LEAST_PX
        return far and self.gain >= CLEAR_GAIN and self.peak >= CLEAR_PEAK


def examine(survey: Survey) -> Answer:
    """Look for masks that lie beside what they mark."""
    chosen = _spaced(survey.usable)
    found = zip(chosen, in_order(lambda i: _of(survey, i), chosen, text="", progress=False), strict=True)
    moved = {survey.looks[i].id: one for i, one in found if one is not None and one.is_moved}
    names = sorted(moved, key=lambda name: -moved[name].gain)
    facts = {
        "looked_at": len(chosen),
        "moved": {name: {"gain": round(moved[name].gain, 3), "px": moved[name].move_px} for name in names},
    }
    if not names:
        return Answer(facts, ())
    count = "1 mask" if len(names) == 1 else f"{len(names)} masks"
    summary = f"In {count} what is marked seems to lie some pixels beside the thing itself."
    notes = {name: _note(moved[name]) for name in names}
    return Answer(facts, (Finding("shifted_mask", summary, tuple(names), notes),))


def _spaced(usable: Sequence[int]) -> list[int]:
    places = np.linspace(0, len(usable) - 1, min(len(usable), MOST_LOOKED_AT)).round().astype(int)
    return [usable[i] for i in places]


def _of(survey: Survey, position: int) -> Alignment | None:
    try:
        image, mask = survey.read(position)
    except DataError:  # told by the integrity of the files
        return None
    return None if mask is None else align(image, mask, num_classes=survey.classes.num_classes)


def align(image: ImageArray, mask: UInt8[np.ndarray, "H W"], *, num_classes: int) -> Alignment | None:
    """Where a mask would fit best.

    Args:
        image: (C, H, W), of any type.
        mask: (H, W) labels 0..K-1; all else is void and has no borders.
        num_classes: K.

    Returns:
        None where the mask has too few borders to tell.
    """
    factor = min(1.0, LONGER_SIDE_PX / max(mask.shape))
    width, height = (max(8, round(side * factor)) for side in mask.shape[::-1])
    picture = np.ascontiguousarray(image.transpose(1, 2, 0))
    if factor < 1:
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA).reshape(height, width, -1)
        mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
    border = _borders(mask, num_classes=num_classes)
    if border.sum() < LEAST_BORDER_PX:
        return None
    reach = int(np.clip(round(REACH * max(width, height)), 4, 16))
    fits = _fits(_edges(picture), border, reach=reach)
    spread = float(fits.std())
    if spread == 0:
        return None
    row, column = np.unravel_index(int(fits.argmax()), fits.shape)
    best = float(fits[row, column])
    near = float(fits[reach - 1 : reach + 2, reach - 1 : reach + 2].max())
    move = (float(int(column) - reach) / factor, float(int(row) - reach) / factor)
    return Alignment((best - near) / spread, (best - float(fits.mean())) / spread, move)


def _edges(picture: np.ndarray) -> Float32[np.ndarray, "h w"]:
    """Strength of the strongest edge in any channel (of Lab, for colours), less its mean around."""
    if picture.shape[2] == 3 and picture.dtype == np.uint8:
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2LAB)
    strength = np.zeros(picture.shape[:2], dtype=np.float32)
    for channel in np.moveaxis(picture, 2, 0):
        smooth = cv2.GaussianBlur(channel.astype(np.float32), (0, 0), 1.0)
        across, down = (cv2.Sobel(smooth, cv2.CV_32F, *axis, ksize=3) for axis in ((1, 0), (0, 1)))
        np.maximum(strength, np.hypot(across, down), out=strength)
    return np.asarray(strength - cv2.blur(strength, (_NEAR_PX, _NEAR_PX)))


def _borders(mask: UInt8[np.ndarray, "h w"], *, num_classes: int) -> Float32[np.ndarray, "h w"]:
    """1 at pixels on either side of a change from one class to another."""
    border = np.zeros(mask.shape, dtype=np.float32)
    valid = mask < num_classes
    for axis in (0, 1):
        a, b = (np.s_[1:], np.s_[:-1]) if axis == 0 else (np.s_[:, 1:], np.s_[:, :-1])
        change = (mask[a] != mask[b]) & valid[a] & valid[b]
        border[a] = np.maximum(border[a], change)
        border[b] = np.maximum(border[b], change)
    return border


def _fits(
    edges: Float32[np.ndarray, "h w"], border: Float32[np.ndarray, "h w"], *, reach: int
) -> Float[np.ndarray, "moves moves"]:
    """Mean of the edges under the borders for every move of up to `reach`, over what stays in the picture."""
    shape = [fft.next_fast_len(side + reach, real=True) for side in edges.shape]
    there = np.conj(fft.rfft2(border, shape))
    total = fft.irfft2(fft.rfft2(edges, shape) * there, shape)
    pixels = fft.irfft2(fft.rfft2(np.ones_like(edges), shape) * there, shape)
    moves = np.arange(-reach, reach + 1)
    window = np.ix_(moves, moves)
    return np.asarray(total[window] / np.maximum(pixels[window], 1), dtype=np.float64)


def _note(one: Alignment) -> str:
    right, down = (round(value) for value in one.move_px)
    parts = [f"{abs(right)} pixels {'right' if right > 0 else 'left'}"] if right else []
    parts += [f"{abs(down)} pixels {'down' if down > 0 else 'up'}"] if down else []
    return f"would fit better {' and '.join(parts)}"
