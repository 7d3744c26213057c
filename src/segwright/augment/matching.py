"""Bring the tones of an image to those of others: by mean and deviation, or by the whole histogram.

`tones_of` an image are its quantile functions, one a channel: the values at the shares (i + 1/2) / 256 of its sorted
pixels. The mean of quantile functions is the usual middle of histograms (their Wasserstein barycentre), where a mean of
histograms would be wider than any of them; so tones of many images are simply averaged.

    moments     v' = (v - mean) std_ref / std + mean_ref                  (Reinhard et al. 2001, Color Transfer between
                                                                          Images, https://doi.org/10.1109/38.946629)
    histogram   v' = Q_ref(F(v)), F the share of pixels up to v, half of those at v counted
                                    (Gonzalez & Woods, Digital Image Processing, chapter 3, histogram specification)

Both are one table of 256 values a channel where pixels are bytes. Other pixels are looked up between the quantiles.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32, Shaped
from torch import Tensor

from segwright.errors import DataError
from segwright.types import ImageArray

Matching = Literal["none", "moments", "histogram"]

LEVELS = 256
"""Values of a quantile function."""

PIXELS = 250_000
"""Of larger images, about so many pixels are looked at, evenly spread."""

_SHARES = (np.arange(LEVELS) + 0.5) / LEVELS

ToneArray = Float32[np.ndarray, "C 256"]


def tones_of(image: ImageArray) -> ToneArray:
    """The quantile function of each channel, in the image's own units."""
    step = max(1, int((image.shape[1] * image.shape[2] / PIXELS) ** 0.5))
    pixels = image[:, ::step, ::step]
    if image.dtype == np.uint8:  # counting is thirty times as fast as sorting
        ends = [np.cumsum(np.bincount(np.ascontiguousarray(band).reshape(-1), minlength=256)) for band in pixels]
        found = [np.searchsorted(end, (_SHARES * end[-1]).astype(np.int64), side="right") for end in ends]
        return np.asarray(np.stack(found), dtype=np.float32)
    values = np.sort(pixels.reshape(len(image), -1), axis=1)
    places = np.minimum((_SHARES * values.shape[1]).astype(np.int64), values.shape[1] - 1)
    return np.asarray(values[:, places], dtype=np.float32)


def reference_of(images: Iterable[Shaped[np.ndarray, "_ _ _"]]) -> ToneArray:
    """The mean tones of images, which all have the same channels.

    Raises:
        DataError: there is no image.
    """
    total: np.ndarray | None = None
    count = 0
    for image in images:
        tones = tones_of(image).astype(np.float64)
        total, count = tones if total is None else total + tones, count + 1
    if total is None:
        raise DataError("there is no image whose tones could be matched", mend="give at least one")
    return np.asarray(total / count, dtype=np.float32)


def matched(image: ImageArray, reference: Float32[np.ndarray, "_ 256"], *, how: Matching) -> ImageArray:
    """An image with the tones of the reference, in its own type; the image itself where `how` is none.

    Raises:
        DataError: the reference is of other channels.
    """
    if how == "none":
        return image
    if len(reference) != len(image):
        problem = f"the image has {len(image)} channels, the tones to match {len(reference)}"
        raise DataError(problem, mend="match images of the same channels")
    return match_moments(image, reference) if how == "moments" else match_histogram(image, reference)


def match_moments(image: ImageArray, reference: ToneArray) -> ImageArray:
    """Give each channel the mean and the standard deviation of the reference."""
    tones = tones_of(image)
    deviation = tones.std(axis=1)
    gain = np.where(deviation > 0, reference.std(axis=1) / np.where(deviation > 0, deviation, 1), 1)
    offset = reference.mean(axis=1) - gain * tones.mean(axis=1)
    if image.dtype == np.uint8:
        levels = gain[:, None] * np.arange(256) + offset[:, None]
        return _looked_up(image, levels)
    return _as_type(image * gain[:, None, None] + offset[:, None, None], image.dtype)


def match_histogram(image: ImageArray, reference: ToneArray) -> ImageArray:
    """Give each channel the histogram of the reference."""
    if image.dtype == np.uint8:
        return _looked_up(image, histogram_tables(image, reference))
    levels = np.arange(LEVELS)
    pairs = zip(image, tones_of(image), reference, strict=True)
    bands = [np.interp(_places(band, own), levels, wanted) for band, own, wanted in pairs]
    return _as_type(np.stack(bands), image.dtype)


def _places(values: np.ndarray, own: Float32[np.ndarray, " Q"]) -> np.ndarray:
    """Where values stand among the levels of a quantile function; in the middle of those that are equal to them."""
    before, after = np.searchsorted(own, values, side="left"), np.searchsorted(own, values, side="right")
    low, high = own[np.maximum(before - 1, 0)], own[np.minimum(before, LEVELS - 1)]
    share = (values - low) / np.where(high > low, high - low, 1)
    return np.where(after > before, (before + after - 1) / 2, before - 1 + share)


def histogram_tables(image: ImageArray, reference: ToneArray) -> Float[np.ndarray, "C 256"]:
    """What each of the 256 values of a uint8 image becomes, channel by channel; not rounded."""
    tables = np.empty((len(image), 256))
    for channel, band in enumerate(image):
        counts = np.bincount(np.ascontiguousarray(band).reshape(-1), minlength=256)
        tables[channel] = np.interp((np.cumsum(counts) - counts / 2) / band.size, _SHARES, reference[channel])
    return tables


def _looked_up(image: np.ndarray, levels: Float[np.ndarray, "C 256"]) -> np.ndarray:
    tables = np.rint(levels).clip(0, 255).astype(np.uint8)
    rows = np.ascontiguousarray(image.transpose(1, 2, 0))
    if len(tables) == 1:
        return np.asarray(cv2.LUT(rows[:, :, 0], tables[0]))[None]
    # As a view of (H, W, C), which is how images lie in a pack.
    return np.asarray(cv2.LUT(rows, np.ascontiguousarray(tables.T)[None])).transpose(2, 0, 1)


def _as_type(values: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    whole = values if dtype.kind == "f" else np.clip(np.rint(values), 0, np.iinfo(dtype).max)
    return np.asarray(whole, dtype=dtype)


def match_on_device(
    images: Float[Tensor, "N C H W"], reference: Float[np.ndarray, "N C 256"], *, full_scale: float | None
) -> Float[Tensor, "N C H W"]:
    """`match_histogram` in torch, each image to its own reference.

    Args:
        images: values as stored, not yet normalised.
        reference: tones, one an image.
        full_scale: 255 for uint8, whose values are counted; None looks between the quantiles.
    """
    count, channels, height, width = images.shape
    flat = images.reshape(count * channels, height * width)
    wanted = torch.from_numpy(np.ascontiguousarray(reference, dtype=np.float32)).to(images.device).flatten(0, 1)
    if full_scale is not None:
        level = flat.round().clamp(0, 255).long()
        counts = torch.zeros(len(flat), 256, device=images.device)
        counts.scatter_add_(1, level, torch.ones_like(flat))
        share = (counts.cumsum(1) - counts / 2) / flat.shape[1]
        table = _between(wanted, share * LEVELS - 0.5)
        return table.gather(1, level).view(images.shape)
    places = (torch.from_numpy(_SHARES).to(images.device) * flat.shape[1]).long().clamp(max=flat.shape[1] - 1)
    own = flat.sort(dim=1).values[:, places].contiguous()
    before, after = torch.searchsorted(own, flat), torch.searchsorted(own, flat, right=True)
    low = own.gather(1, (before - 1).clamp(min=0))
    high = own.gather(1, before.clamp(max=LEVELS - 1))
    part = (flat - low) / torch.where(high > low, high - low, torch.ones_like(low))
    found = torch.where(after > before, (before + after - 1) / 2, before - 1 + part)
    return _between(wanted, found).view(images.shape)


def _between(values: Float[Tensor, "R 256"], places: Float[Tensor, "R P"]) -> Float[Tensor, "R P"]:
    """Values at places between the levels; beyond the ends, those of the ends."""
    inside = places.clamp(0, LEVELS - 1)
    low = inside.floor().long()
    high = (low + 1).clamp(max=LEVELS - 1)
    return torch.lerp(values.gather(1, low), values.gather(1, high), inside - low)
