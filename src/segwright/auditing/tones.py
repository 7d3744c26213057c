"""Light, contrast, grain and colour of one picture, as plain numbers that can be compared over a whole data set.

Everything is measured while the pixels are in memory anyway, in a few milliseconds. Mean and spread come from all
pixels, grain from a window of full resolution in the middle, the rest from reduced copies: so a large photo costs
little more than a small one, and noise stays noise, which shrinking would smooth.

Spectral flatness is the geometric over the arithmetic mean of the power spectrum (Johnston 1988,
https://doi.org/10.1109/49.608): about 0.56 for white noise, whose periodogram is exponential, and below 0.2 for photos.
Values are in 0..255: uint8 as it is, other whole numbers by the full scale of their type, fractions up to 2 as shares
of full scale, and larger fractions as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import scipy.fft
from jaxtyping import Float32

from segwright.data.packing import neighbour_correlation
from segwright.types import ImageArray

WINDOW_PX = 256
"""Grain is measured in the middle of a picture, up to this many rows and columns."""

SMALL_PX = 256
"""Colours and the descriptor are measured on a copy with at most this many pixels along the longer side."""

COARSE_PX = 64

LARGEST_SHARE = 2.0
"""Fractions up to this are shares of full scale: reflectance may exceed 1 a little."""

_CELLS = 4
_TINY = 8
_ANGLES = 8
_LEVELS = 8

LAYOUT = _TINY * _TINY
"""So many first numbers of the descriptor are the layout of the picture."""

TEXTURE = 8
"""So many last ones are its texture."""

DESCRIPTOR_LENGTH = LAYOUT + _CELLS * _CELLS * _ANGLES + 3 * _LEVELS + TEXTURE


@dataclass(frozen=True)
class Tones:
    """What was measured of one picture.

    Attributes:
        brightness: mean gray level, 0..255.
        contrast: standard deviation of the gray level.
        darkest, brightest: the 1st and 99th hundredth of the gray levels.
        entropy: of the histogram of gray levels, in bits, 0..8.
        spectral_flatness: 0..1, about 0.56 for white noise.
        neighbour_correlation: see `packing.neighbour_correlation`; about 0 for noise.
        coarse_correlation: the same of a copy of at most `COARSE_PX` pixels a side. What grain hides in a dark picture
            stands out there; noise stays noise.
        sharpness: spread of the Laplacian over the contrast; falls with blur, whatever the contrast.
        saturation: mean of (largest - smallest) / largest channel, 0..1; 0 for gray pictures.
        red, green, blue: channel means, 0..255; the gray mean where there are fewer than three channels.
        descriptor: (`DESCRIPTOR_LENGTH`,) layout, edges, colours and texture; pictures that look alike lie close.
    """

    brightness: float
    contrast: float
    darkest: float
    brightest: float
    entropy: float
    spectral_flatness: float
    neighbour_correlation: float
    coarse_correlation: float
    sharpness: float
    saturation: float
    red: float
    green: float
    blue: float
    descriptor: Float32[np.ndarray, " D"]


def measure(image: ImageArray) -> Tones:
    """Measure a picture.

    Args:
        image: (C, H, W) of any numeric type; the first three of several channels are taken for red, green and blue.
    """
    planes, scale = _planes(image)
    gray = _gray(planes)
    level, spread = (float(part.item()) * scale for part in cv2.meanStdDev(gray))
    histogram = _histogram(gray, scale)
    window = _middle(gray)
    small = _reduced(planes, scale, side_px=SMALL_PX)
    saturation = _saturation(small)
    channels = [level] * 3 if planes.ndim == 2 else [scale * float(mean) for mean in cv2.mean(planes)[:3]]
    darkest, brightest = np.searchsorted(np.cumsum(histogram), (0.01, 0.99))
    return Tones(
        brightness=level,
        contrast=spread,
        darkest=float(darkest),
        brightest=float(brightest),
        entropy=_entropy(histogram),
        spectral_flatness=_spectral_flatness(window),
        neighbour_correlation=neighbour_correlation(gray[:, :, None]),
        coarse_correlation=neighbour_correlation(_shrunk(_gray(small), COARSE_PX)[:, :, None]),
        sharpness=sharpness(window),
        saturation=saturation,
        red=channels[0],
        green=channels[1],
        blue=channels[2],
        descriptor=_descriptor(small, saturation=saturation),
    )


def reduced(image: ImageArray, *, side_px: int) -> Float32[np.ndarray, "h w *3"]:
    """A copy (h, w) or (h, w, 3) of an image (C, H, W) in 0..255 with at most `side_px` along the longer side."""
    planes, scale = _planes(image)
    return _reduced(planes, scale, side_px=side_px)


def grain_window(image: ImageArray) -> np.ndarray:
    """The gray window (h, w) of an image (C, H, W) that grain is measured in, in uint8 or float32."""
    return _middle(_gray(_planes(image)[0]))


def sharpness(gray: np.ndarray) -> float:
    """Spread of the Laplacian over the spread of the values of (H, W); 0 for a constant picture."""
    spread = float(cv2.meanStdDev(gray)[1].item())
    if spread == 0:
        return 0.0
    return float(cv2.meanStdDev(cv2.Laplacian(gray, cv2.CV_32F))[1].item()) / spread


def _planes(image: ImageArray) -> tuple[np.ndarray, float]:
    """As (H, W) or (H, W, 3) in uint8 or float32, and the factor that brings the values to 0..255."""
    planes, scale = image[: 3 if len(image) >= 3 else 1], 1.0
    if planes.dtype == np.bool_:
        planes = planes.view(np.uint8)
        scale = 255.0
    elif planes.dtype.kind in "iu":
        scale = 255.0 / np.iinfo(planes.dtype).max
    if planes.dtype != np.uint8:
        fractions = planes.dtype.kind == "f"
        planes = planes.astype(np.float32)
        if fractions:
            planes = np.nan_to_num(planes, posinf=0.0, neginf=0.0)
            scale = 255.0 if float(planes.max()) <= LARGEST_SHARE else 1.0
    if len(planes) == 1:
        return np.ascontiguousarray(planes[0]), scale
    return np.asarray(cv2.merge([np.ascontiguousarray(plane) for plane in planes])), scale


def _gray(planes: np.ndarray) -> np.ndarray:
    return planes if planes.ndim == 2 else np.asarray(cv2.cvtColor(planes, cv2.COLOR_RGB2GRAY))


def _histogram(gray: np.ndarray, scale: float) -> np.ndarray:
    """Shares of the gray levels 0..255."""
    if gray.dtype != np.uint8:
        gray = np.clip(np.rint(gray * np.float32(scale)), 0, 255).astype(np.uint8)
    counts = cv2.calcHist([gray], [0], None, [256], [0.0, 256.0]).ravel()
    return np.asarray(counts / counts.sum(), dtype=np.float64)


def _entropy(shares: np.ndarray) -> float:
    found = shares[shares > 0]
    return max(0.0, -float(found @ np.log2(found)))


def _middle(gray: np.ndarray) -> np.ndarray:
    top, left = (max(0, (side - WINDOW_PX) // 2) for side in gray.shape)
    return np.ascontiguousarray(gray[top : top + WINDOW_PX, left : left + WINDOW_PX])


def _spectral_flatness(gray: np.ndarray) -> float:
    """Of (H, W) under a Hann window, which keeps the borders from looking like edges; 0 for a constant picture."""
    rows, columns = (np.hanning(side + 2)[1:-1].astype(np.float32) for side in gray.shape)
    values = gray.astype(np.float32)
    taper = rows[:, None] * columns
    values = (values - float((values * taper).sum() / taper.sum())) * taper
    power = np.abs(scipy.fft.rfft2(values)) ** 2
    power = power.ravel()[1:]
    mean = float(power.mean()) if power.size else 0.0
    if mean <= 1e-6:
        return 0.0
    # The floor stands for rounding: frequencies that hold nothing at all must not make the mean of the logarithms -inf.
    return float(np.exp(np.log(np.maximum(power, 1e-9 * mean)).mean()) / mean)


def _reduced(planes: np.ndarray, scale: float, *, side_px: int) -> np.ndarray:
    return _shrunk(planes, side_px).astype(np.float32) * np.float32(scale)


def _shrunk(planes: np.ndarray, side_px: int) -> np.ndarray:
    factor = side_px / max(planes.shape[:2])
    if factor >= 1:
        return planes
    height, width = (max(1, round(side * factor)) for side in planes.shape[:2])
    return np.asarray(cv2.resize(planes, (width, height), interpolation=cv2.INTER_AREA))


def _saturation(small: np.ndarray) -> float:
    if small.ndim == 2:
        return 0.0
    red, green, blue = cv2.split(small)  # NumPy's maximum along a short axis is fifty times slower
    largest = cv2.max(cv2.max(red, green), blue)
    smallest = cv2.min(cv2.min(red, green), blue)
    return float(np.mean((largest - smallest) / np.maximum(largest, 1.0)))


def _descriptor(small: np.ndarray, *, saturation: float) -> Float32[np.ndarray, " D"]:
    """Each part is scaled so that a large change of it is about 1.

    Layout (8x8 gray), edges by direction in 4x4 cells, shares of eight levels in each channel, and texture: the spread
    of what is lost between one halving and the next, and mean, spread and colourfulness.
    """
    gray = _gray(small)
    tiny = cv2.resize(gray, (_TINY, _TINY), interpolation=cv2.INTER_AREA).ravel() / 255
    levels = [_levels(gray)] * 3 if small.ndim == 2 else [_levels(plane) for plane in cv2.split(small)]
    texture = _texture(gray, saturation=saturation)
    parts = [tiny * (4 / _TINY), _edges(gray), np.concatenate(levels), texture]
    return np.concatenate(parts).astype(np.float32)


def _levels(plane: np.ndarray) -> np.ndarray:
    counts = cv2.calcHist([plane], [0], None, [_LEVELS], [0.0, 256.0]).ravel()
    return np.asarray(np.sqrt(counts / plane.size))


def _edges(gray: np.ndarray) -> np.ndarray:
    """Histograms of edge directions, weighted by strength, in cells; their sum is 1, or 0 without edges."""
    side = (16 * _CELLS, 16 * _CELLS)
    even = cv2.resize(gray, side, interpolation=cv2.INTER_AREA)
    right, down = (cv2.Sobel(even, cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))
    strength, angle = cv2.cartToPolar(right, down)
    bins = np.minimum((angle * (_ANGLES / np.pi)).astype(np.int64) % _ANGLES, _ANGLES - 1)
    rows, columns = np.mgrid[: side[0], : side[1]] // 16
    place = (rows * _CELLS + columns) * _ANGLES + bins
    counts = np.bincount(place.ravel(), weights=strength.ravel(), minlength=_CELLS * _CELLS * _ANGLES)
    total = float(counts.sum())
    return np.sqrt(counts / total) if total > 0 else counts


def _texture(gray: np.ndarray, *, saturation: float) -> np.ndarray:
    found = []
    coarse = cv2.resize(gray, (128, 128), interpolation=cv2.INTER_AREA)
    for _ in range(4):
        smooth = cv2.pyrDown(coarse)
        found.append(float((coarse - cv2.pyrUp(smooth)).std()))
        coarse = smooth
    spread = float(gray.std())
    mean = float(gray.mean())
    apart = gray - mean
    skew = float((apart * apart * apart).mean()) / max(spread, 1.0) ** 3  # a power is thirty times slower
    return np.array([*(np.log1p(found) / 4), np.log1p(spread) / 4, mean / 255, np.tanh(skew / 2), saturation])
