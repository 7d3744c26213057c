"""Bring any image into the form that a model was trained on: channels, bit depth, working size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Shaped
from PIL import Image

from segwright.augment.matching import LEVELS, Matching, ToneArray
from segwright.data.tiles import TILE_PX, is_large
from segwright.errors import DataError, RecipeError, RunError
from segwright.files import read_image
from segwright.models import ModelSpec
from segwright.types import ImageArray

AnyImage = Shaped[np.ndarray, "..."] | Image.Image | Path | str
"""An array (H, W), (C, H, W) or (H, W, C), a Pillow image, or the path of a picture."""

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow and OpenCV turn colours to gray
_CHANNELS_AT_ONCE = 4  # OpenCV's limit
_DTYPES = {255.0: np.uint8, 65535.0: np.uint16, 1.0: np.float32}


def as_image(image: AnyImage, *, in_channels: int) -> ImageArray:
    """Any image as (C, H, W). An array that could be read both ways is taken as (C, H, W).

    Raises:
        DataError: the array is empty, has no two or three axes, or no axis that could be the channels.
    """
    if isinstance(image, (str, Path)):
        return read_image(Path(image))
    if isinstance(image, Image.Image):
        image = np.asarray(image if image.mode in ("L", "RGB", "RGBA", "I;16", "F") else image.convert("RGB"))
    if image.ndim not in (2, 3) or image.size == 0:
        raise DataError(f"an array of shape {image.shape} is no image", mend="give (H, W), (C, H, W) or (H, W, C)")
    if image.ndim == 2:
        return image[None]
    usual = (in_channels,) if in_channels in (image.shape[0], image.shape[2]) else (1, 3, 4)
    if image.shape[0] in usual:
        return image
    if image.shape[2] in usual:
        return np.ascontiguousarray(image.transpose(2, 0, 1))
    raise DataError(
        f"an array of shape {image.shape} has no axis of {in_channels} channels", mend=f"give ({in_channels}, H, W)"
    )


def fit(image: Shaped[np.ndarray, "C0 H W"], spec: ModelSpec) -> ImageArray:
    """Turn an image into the channels and the bit depth that a model was trained on.

    Gray becomes colour by repetition, colour becomes gray by luma, an alpha channel is dropped.

    Raises:
        DataError: that is not possible without guessing.
    """
    channels, wanted = image.shape[0], spec.in_channels
    if channels == 4 and wanted in (1, 3):
        image, channels = image[:3], 3
    if channels == 1 and wanted == 3:
        image = np.repeat(image, 3, axis=0)
    elif channels == 3 and wanted == 1:
        gray = np.tensordot(np.array(_LUMA), image.astype(np.float64), axes=1)[None]
        image = gray.astype(image.dtype) if image.dtype.kind == "f" else np.rint(gray).astype(image.dtype)
    elif channels != wanted:
        mend = f"give images of {wanted} channels"
        raise DataError(f"the image has {channels} channels, the model takes {wanted}", mend=mend)
    return _fit_depth(image, scale=spec.scale)


def fit_small(image: Shaped[np.ndarray, "C0 H W"], spec: ModelSpec) -> ImageArray:
    """An image as the model takes it; a large one as it is, only checked: its pieces are fitted when they are needed.

    Raises:
        DataError: as `fit`.
    """
    if not is_large(*image.shape[1:], tile_px=TILE_PX):
        return fit(image, spec)
    fit(image[:, :1, :1], spec)
    return image


def _fit_depth(image: ImageArray, *, scale: float) -> ImageArray:
    wanted = np.dtype(_DTYPES.get(float(scale), np.float32))
    if image.dtype == wanted:
        return image
    if image.dtype == np.uint8 and wanted == np.uint16:
        return image.astype(np.uint16) * np.uint16(257)
    if image.dtype == np.uint16 and wanted == np.uint8:
        return np.rint(image / 257).astype(np.uint8)
    if wanted == np.float32 and image.dtype.kind == "f":
        return image.astype(np.float32)
    mend = f"give the values in the range and type of the training images ({wanted})"
    raise DataError(f"the image holds {image.dtype}, the model was trained on {wanted}", mend=mend)


def reference_in(info: Mapping[str, Any], *, match: Matching) -> ToneArray | None:
    """The tones of the images that a bundle's model was trained on; None where nothing is to be matched.

    Raises:
        RecipeError: the bundle keeps none.
        RunError: they are damaged.
    """
    if match == "none":
        return None
    told = (info.get("input") or {}).get("tones")
    if told is None:
        problem = "the model keeps no tones of its training images, so there is nothing to match"
        raise RecipeError(problem, mend="leave match out, or train again with this segwright")
    try:
        tones = np.asarray(told, dtype=np.float32)
    except (TypeError, ValueError):
        tones = np.zeros(0, dtype=np.float32)
    if tones.ndim != 2 or tones.shape[1] != LEVELS or not np.isfinite(tones).all():
        raise RunError("the tones in bundle.json are damaged", mend="copy the bundle again")
    return tones


def scale_down(image: Shaped[np.ndarray, "C H0 W0"], *, longer_side_px: int | None) -> ImageArray:
    """Scale an image down by area so that its longer side is at most that; smaller ones are left alone."""
    _, height, width = image.shape
    if longer_side_px is None or max(height, width) <= longer_side_px:
        return image
    factor = longer_side_px / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    pixels = image.transpose(1, 2, 0)
    if pixels.flags.c_contiguous and pixels.shape[2] <= _CHANNELS_AT_ONCE:
        small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        return small.reshape(*size[::-1], -1).transpose(2, 0, 1)
    return np.stack([cv2.resize(band, size, interpolation=cv2.INTER_AREA) for band in image])
