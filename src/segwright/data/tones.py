"""Tones of a set of pictures: of the training images, kept with the model, and of pictures that training matches.

What is kept of an image is its quantile function, 256 numbers a channel (see `segwright.augment.matching`).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int, Shaped

from segwright.augment.matching import reference_of, tones_of
from segwright.data.pack import Pack
from segwright.data.packing import in_form
from segwright.data.sources import open_source
from segwright.errors import DataError
from segwright.types import ImageArray

LARGEST_SET = 100
"""Of more pictures, so many are looked at, evenly chosen."""


def pack_reference(pack: Pack, indices: Int[np.ndarray, " M"]) -> Float32[np.ndarray, "C 256"]:
    """The mean tones of some images of a pack.

    Raises:
        DataError: there is no image.
    """
    return reference_of(pack.image(int(indices[i])) for i in _even(len(indices)))


@functools.lru_cache(maxsize=4)
def tones_below(path: Path, *, channels: int, dtype: str) -> Float32[np.ndarray, "R C 256"]:
    """The tones of each picture of a set, in a pack's channels and type; the test side where the set names one.

    Raises:
        DataError: there is no picture, or one has other channels or another type.
    """
    source = open_source(path, masks=False)
    samples = [sample for sample in source.samples if sample.split == "test"] or list(source.samples)
    if not samples:
        raise DataError("holds no pictures to match", mend="give a picture, a folder of pictures or an npz", file=path)
    images = (source.read_image(samples[i]) for i in _even(len(samples)))
    return np.stack([tones_of(_like(image, channels, np.dtype(dtype), path)) for image in images])


def _like(image: Shaped[np.ndarray, "C0 H W"], channels: int, dtype: np.dtype[Any], path: Path) -> ImageArray:
    fits = len(image) in (1, channels) or (len(image), channels) == (4, 3)
    if not fits or not (image.dtype == dtype or (image.dtype == np.uint8 and dtype == np.uint16)):
        has, wanted = f"{len(image)} channels of {image.dtype}", f"{channels} of {dtype}"
        mend = "match pictures of the same camera, or leave augment.match out"
        raise DataError(f"a picture has {has}, the images to train on {wanted}", mend=mend, file=path)
    return in_form(image.transpose(1, 2, 0), channels=channels, dtype=dtype).transpose(2, 0, 1)


def _even(count: int) -> Iterator[int]:
    chosen = np.unique(np.linspace(0, count - 1, min(count, LARGEST_SET)).astype(int))
    return iter(chosen.tolist())
