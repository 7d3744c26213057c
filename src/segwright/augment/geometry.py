"""Flip, turn, zoom, shear, shift and crop as one affine map per image, so that pixels are resampled once.

A map takes OUTPUT pixel coordinates (x, y, 1) to INPUT pixel coordinates (x, y). Coordinates are those of pixel
centres: (0, 0) is the centre of the upper left pixel, (W - 1, H - 1) that of the lower right one. Images are read
bilinearly, masks at the nearest pixel, and both are reflected about their outermost pixel centres (OpenCV's
BORDER_REFLECT_101, the "reflection" of `torch.nn.functional.grid_sample` with `align_corners=True`,
https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.grid_sample.html).

    map = 1/s F Q R K (u - centre of the crop) + centre of the image + shift
    s zoom   F flips   Q quarter turns   R rotation   K shear
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as functional
from jaxtyping import Float, Int, Integer, UInt8
from torch import Tensor

from segwright.augment.policy import Policy
from segwright.types import MaskArray, Masks

CHANNELS_AT_ONCE = 4
"""OpenCV warps at most four channels in a call."""

LARGEST_SIDE_PX = 32_766
"""OpenCV addresses the pixels of a warped image with 16 bits."""

LARGEST_COPY_PX = 4_000_000
"""Bands are copied apart where there are too many for one call; of a larger image only what the map can read."""

_QUARTER_TURNS = np.array(
    [[[1, 0], [0, 1]], [[0, -1], [1, 0]], [[-1, 0], [0, -1]], [[0, 1], [-1, 0]]], dtype=np.float64
)


def draw_maps(
    policy: Policy, sizes_px: Int[np.ndarray, "N 2"], *, crop_px: tuple[int, int], rng: np.random.Generator
) -> Float[np.ndarray, "N 2 3"]:
    """Draw one map an image.

    The crop lies anywhere in the zoomed image; along a side where the image is smaller than the crop, the image lies
    anywhere in the crop and its reflection fills the rest.

    Args:
        policy: the ranges.
        sizes_px: rows and columns of each image.
        crop_px: rows and columns of the output.
        rng: the only source of chance.
    """
    count = len(sizes_px)
    unit = rng.random((count, 11))
    linear = _linear_parts(policy, unit)
    crop_centre = (np.array(crop_px[::-1]) - 1) / 2
    sides = np.asarray(sizes_px, dtype=np.float64)[:, ::-1]

    # The window that the crop covers is measured without rotation and shear: a turned image need not be shifted.
    zoom, turns = _zooms(policy, unit), _turns(policy, unit)
    window = np.abs(turns) @ np.array(crop_px[::-1], dtype=np.float64) / zoom[:, None]
    room = np.abs(sides - window)
    whole = np.isin(linear, (-1.0, 0.0, 1.0)).all(axis=(1, 2))
    # Rounding to whole pixels would halve the chance of the first and last place, were the room not half a pixel wider.
    room[whole] += 1 - 1e-9
    shift = (2 * unit[:, 7:9] - 1) * room / 2 + (2 * unit[:, 9:11] - 1) * policy.translate * sides
    offset = (sides - 1) / 2 + shift - linear @ crop_centre
    offset[whole] = np.rint(offset[whole])
    return np.concatenate([linear, offset[:, :, None]], axis=2)


def _zooms(policy: Policy, unit: np.ndarray) -> np.ndarray:
    low, high = np.log(policy.scale)
    return np.asarray(np.exp(low + unit[:, 0] * (high - low)))


def _turns(policy: Policy, unit: np.ndarray) -> np.ndarray:
    return _QUARTER_TURNS[(unit[:, 1] * 4).astype(np.int64) * int(policy.quarter_turns)]


def _linear_parts(policy: Policy, unit: np.ndarray) -> Float[np.ndarray, "N 2 2"]:
    """The (N, 2, 2) linear parts; exact whole numbers where only flips and quarter turns are drawn."""
    count = len(unit)
    flips = np.zeros((count, 2, 2))
    flips[:, 0, 0] = np.where(unit[:, 2] < policy.flip_horizontal, -1.0, 1.0)
    flips[:, 1, 1] = np.where(unit[:, 3] < policy.flip_vertical, -1.0, 1.0)
    angle = np.deg2rad((2 * unit[:, 4] - 1) * policy.rotate_degrees)
    cos, sin = np.cos(angle), np.sin(angle)
    rotation = np.stack([np.stack([cos, -sin], axis=1), np.stack([sin, cos], axis=1)], axis=1)
    shear = np.tile(np.eye(2), (count, 1, 1))
    shear[:, 0, 1] = np.tan(np.deg2rad((2 * unit[:, 5] - 1) * policy.shear_degrees))
    shear[:, 1, 0] = np.tan(np.deg2rad((2 * unit[:, 6] - 1) * policy.shear_degrees))
    linear = flips @ _turns(policy, unit) @ rotation @ shear / _zooms(policy, unit)[:, None, None]
    return np.asarray(linear)


def warp_image_on_cpu(image: np.ndarray, matrix: Float[np.ndarray, "2 3"], *, out: np.ndarray) -> None:
    """Read an image (H, W, C) through a map into `out` (rows, columns, C), which must be contiguous."""
    window = whole_pixel_window(matrix, size_px=image.shape[:2], crop_px=out.shape[:2])
    if window is not None:
        out[...] = image[window[0]] if not window[1] else image[window[0]].swapaxes(0, 1)
        return
    image, matrix = _within_reach(image, matrix, crop_px=out.shape[:2])
    channels = image.shape[2]
    if channels == 1:
        _warp(image[:, :, 0], matrix, out=out[:, :, 0], flags=cv2.INTER_LINEAR)
    elif channels <= CHANNELS_AT_ONCE:
        _warp(image, matrix, out=out, flags=cv2.INTER_LINEAR)
    else:
        for start in range(0, channels, CHANNELS_AT_ONCE):
            piece = slice(start, start + CHANNELS_AT_ONCE)
            part = np.empty((*out.shape[:2], len(range(channels)[piece])), dtype=out.dtype)
            warp_image_on_cpu(np.ascontiguousarray(image[:, :, piece]), matrix, out=part)
            out[:, :, piece] = part


def warp_mask_on_cpu(mask: MaskArray, matrix: Float[np.ndarray, "2 3"], *, out: UInt8[np.ndarray, "h w"]) -> None:
    """Read a mask through a map at the nearest pixels into `out` (rows, columns), which must be contiguous."""
    window = whole_pixel_window(matrix, size_px=mask.shape, crop_px=out.shape)
    if window is not None:
        out[...] = mask[window[0]] if not window[1] else mask[window[0]].T
        return
    mask, matrix = _within_reach(mask, matrix, crop_px=out.shape)
    _warp(mask, matrix, out=out, flags=cv2.INTER_NEAREST)


def _warp(array: np.ndarray, matrix: np.ndarray, *, out: np.ndarray, flags: int) -> None:
    size = (out.shape[1], out.shape[0])
    result = cv2.warpAffine(
        array, matrix, size, dst=out, flags=flags | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT_101
    )
    if not np.shares_memory(result, out):  # OpenCV makes a new array where it does not like the old one
        out[...] = result.reshape(out.shape)


def whole_pixel_window(
    matrix: Float[np.ndarray, "2 3"], *, size_px: tuple[int, ...], crop_px: tuple[int, ...]
) -> tuple[tuple[slice, slice], bool] | None:
    """The slices of rows and columns, and whether to swap the two axes then; None where pixels must be resampled."""
    (a, b, x), (c, d, y) = matrix.tolist()
    swapped = a == 0 and d == 0
    step_x, step_y = (b, c) if swapped else (a, d)
    if abs(step_x) != 1 or abs(step_y) != 1 or not (swapped or (b == 0 and c == 0)) or x != int(x) or y != int(y):
        return None
    rows, columns = crop_px[::-1] if swapped else crop_px
    vertical = _run(int(y), step=int(step_y), count=rows, side=size_px[0])
    horizontal = _run(int(x), step=int(step_x), count=columns, side=size_px[1])
    return None if vertical is None or horizontal is None else ((vertical, horizontal), swapped)


def _run(start: int, *, step: int, count: int, side: int) -> slice | None:
    last = start + step * (count - 1)
    if not (0 <= start < side and 0 <= last < side):
        return None
    end = last + step
    return slice(start, end if end >= 0 else None, step)


def _within_reach(array: np.ndarray, matrix: np.ndarray, *, crop_px: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Cut a large image to the pixels that the map can read, where OpenCV cannot address or take it whole."""
    many_bands = array.ndim == 3 and array.shape[2] > CHANNELS_AT_ONCE
    copied_px = array.shape[0] * array.shape[1] if many_bands else 0
    if max(array.shape[:2]) <= LARGEST_SIDE_PX and copied_px <= LARGEST_COPY_PX:
        return array, matrix
    right, bottom = crop_px[1] - 1, crop_px[0] - 1
    corners = matrix @ np.array([[0, right, 0, right], [0, 0, bottom, bottom], [1, 1, 1, 1]], dtype=np.float64)
    starts = []
    for axis, values in ((1, corners[0]), (0, corners[1])):
        last = array.shape[axis] - 1
        low, high = int(np.floor(values.min())) - 1, int(np.ceil(values.max())) + 1
        # What lies beyond a border is read from its reflection.
        low, high = min(low, 2 * last - high), max(high, -low)
        low, high = max(low, 0), min(high, last)
        starts.append(low)
        array = array[low : high + 1] if axis == 0 else array[:, low : high + 1]
    moved = matrix.copy()
    moved[:, 2] -= starts
    return np.ascontiguousarray(array), moved


def warp_on_device(
    images: Float[Tensor, "N C H W"],
    masks: Masks | None,
    matrices: Float[np.ndarray, "N 2 3"],
    *,
    crop_px: tuple[int, int],
) -> tuple[Float[Tensor, "N C h w"], Integer[Tensor, "N h w"] | None]:
    """The same maps in torch, on the images' device; `images` are float32."""
    height, width = images.shape[-2:]
    maps = torch.from_numpy(np.ascontiguousarray(matrices, dtype=np.float32)).to(images.device, non_blocking=True)
    y = torch.arange(crop_px[0], device=images.device, dtype=torch.float32)
    x = torch.arange(crop_px[1], device=images.device, dtype=torch.float32)
    column = maps[:, :, 0, None, None] * x[None, None, None, :]
    row = maps[:, :, 1, None, None] * y[None, None, :, None]
    places = column + row + maps[:, :, 2, None, None]
    # Sides stay Python numbers: copying them to a GPU would make the host wait for it.
    across, down = 2 * places[:, 0] / max(width - 1, 1) - 1, 2 * places[:, 1] / max(height - 1, 1) - 1
    grid = torch.stack([across, down], dim=3)
    warped = functional.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=True)
    if masks is None:
        return warped, None
    nearest = torch.floor(places + 0.5).long()
    flat = _reflected(nearest[:, 1], side=height) * width + _reflected(nearest[:, 0], side=width)
    return warped, masks.flatten(1).gather(1, flat.flatten(1)).view(flat.shape)


def _reflected(index: Tensor, *, side: int) -> Tensor:
    """Indices beyond 0..side-1 come back from the border pixel, which is not repeated."""
    if side == 1:
        return torch.zeros_like(index)
    within = index.abs() % (2 * (side - 1))
    return torch.where(within > side - 1, 2 * (side - 1) - within, within)
