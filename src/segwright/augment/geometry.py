"""Flip, turn, zoom, shear, shift and crop as one affine map per image, so that pixels are resampled once.

A map takes OUTPUT pixel coordinates (x, y, 1) to INPUT pixel coordinates (x, y). Coordinates are those of pixel
centres: (0, 0) is the centre of the upper left pixel, (W - 1, H - 1) that of the lower right one. Images are read
bilinearly, masks at the nearest pixel, and both are reflected about their outermost pixel centres (OpenCV's
BORDER_REFLECT_101, the "reflection" of `torch.nn.functional.grid_sample` with `align_corners=True`,
https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.grid_sample.html).

    map = 1/s F Q R K (u - centre of the crop) + centre of the image + shift
    s zoom   F flips   Q quarter turns   R rotation   K shear

Filling by zoom: an image is enlarged further by z, the least factor at which the crop reads nothing beyond the image.
With A = F Q R K / s, half sides of crop and image (h, H) measured between pixel centres, and m the farthest that a
distortion moves a pixel, the crop's parallelogram reaches |A| h along x and y, so

    z = max(1, (|A| h)_x / (H_x - m_x), (|A| h)_y / (H_y - m_y))

which for an image of W x H pixel steps that is turned by t is cos t + max(W/H, H/W) sin t. What is left of the room may
be used by the shift. It is exact: a parallelogram lies in an upright rectangle where its corners do.

A displacement (see `distortion`) is added to the map before the pixels are read.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from segwright.augment.policy import Policy
from segwright.types import MaskArray

CHANNELS_AT_ONCE = 4
"""OpenCV warps at most four channels in a call."""

LARGEST_SIDE_PX = 32_766
"""OpenCV addresses the pixels of a warped image with 16 bits."""

LARGEST_COPY_PX = 4_000_000
"""Bands are copied apart where there are too many for one call; of a larger image only what the map can read."""

LEAST_FOURTH_PX = 4096
"""Smaller crops gain nothing from a fourth channel."""

_QUARTER_TURNS = np.array(
    [[[1, 0], [0, 1]], [[0, -1], [1, 0]], [[-1, 0], [0, -1]], [[0, 1], [-1, 0]]], dtype=np.float64
)


def draw_maps(
    policy: Policy,
    sizes_px: Int[np.ndarray, "N 2"],
    *,
    crop_px: tuple[int, int],
    rng: np.random.Generator,
    reach_px: Float[np.ndarray, "N 2"] | None = None,
) -> Float[np.ndarray, "N 2 3"]:
    """Draw one map an image.

    The crop lies anywhere in the zoomed image; along a side where the image is smaller than the crop, the image lies
    anywhere in the crop and its reflection fills the rest.

    Args:
        policy: the ranges.
        sizes_px: rows and columns of each image.
        crop_px: rows and columns of the output.
        rng: the only source of chance.
        reach_px: the farthest that a distortion moves a pixel, along x and y; None where there is none.
    """
    count = len(sizes_px)
    unit = rng.random((count, 11))
    linear = _linear_parts(policy, unit)
    crop_centre = (np.array(crop_px[::-1]) - 1) / 2
    sides = np.asarray(sizes_px, dtype=np.float64)[:, ::-1]

    whole = np.isin(linear, (-1.0, 0.0, 1.0)).all(axis=(1, 2))
    if policy.rotate_fill == "zoom":
        linear, room = _filled(linear, crop_centre, half_sides=(sides - 1) / 2, reach_px=reach_px)
        whole &= np.isin(linear, (-1.0, 0.0, 1.0)).all(axis=(1, 2))
        # A distorted image is resampled anyway, and rounding would lead half a pixel beyond what the reach allows.
        if reach_px is not None:
            whole = np.zeros_like(whole)
    else:
        # The window that the crop covers is measured without rotation and shear: a turned image need not be shifted.
        zoom, turns = _zooms(policy, unit), _turns(policy, unit)
        window = np.abs(turns) @ np.array(crop_px[::-1], dtype=np.float64) / zoom[:, None]
        room = np.abs(sides - window)
    # Rounding to whole pixels would halve the chance of the first and last place, were the room not half a pixel wider.
    room[whole] += 1 - 1e-9
    shift = (2 * unit[:, 7:9] - 1) * room / 2 + (2 * unit[:, 9:11] - 1) * policy.translate * sides
    if policy.rotate_fill == "zoom":
        shift = np.clip(shift, -room / 2, room / 2)
    offset = (sides - 1) / 2 + shift - linear @ crop_centre
    offset[whole] = np.rint(offset[whole])
    return np.concatenate([linear, offset[:, :, None]], axis=2)


def _filled(
    linear: Float[np.ndarray, "N 2 2"],
    half_crop: Float[np.ndarray, " 2"],
    *,
    half_sides: Float[np.ndarray, "N 2"],
    reach_px: Float[np.ndarray, "N 2"] | None,
) -> tuple[Float[np.ndarray, "N 2 2"], Float[np.ndarray, "N 2"]]:
    """Linear parts with just enough zoom that the image fills the crop, and the room for shifts then."""
    kept = kept_half_sides(half_sides, reach_px)
    extent = np.abs(linear) @ half_crop
    needed = np.divide(extent, kept, out=np.full_like(extent, np.inf), where=kept > 0)
    zoom = np.maximum(np.where(extent > 0, needed, 1.0).max(axis=1), 1.0)[:, None]
    return linear / zoom[:, :, None], np.maximum(2 * (kept - extent / zoom), 0)


def kept_half_sides(
    half_sides: Float[np.ndarray, "N 2"], reach_px: Float[np.ndarray, "N 2"] | None
) -> Float[np.ndarray, "N 2"]:
    """How far from the middle of its image a map may read, so that no distortion leads beyond the image.

    Args:
        half_sides: between the middle and the outermost pixel centres, along x and y.
        reach_px: the farthest that a distortion moves a pixel; None where there is none.
    """
    # Of a tiny image a wide distortion would leave one pixel; at least half of it stays, and may be reflected.
    return half_sides if reach_px is None else np.maximum(half_sides - reach_px, half_sides / 2)


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


def warp_image_on_cpu(
    image: np.ndarray,
    matrix: Float[np.ndarray, "2 3"],
    *,
    out: np.ndarray,
    displaced: Float[np.ndarray, "h w 2"] | None = None,
) -> None:
    """Read an image (H, W, C) through a map into `out` (rows, columns, C), which must be contiguous.

    Where there is a distortion, `displaced` holds how far each pixel of `out` is read from its place.
    """
    if displaced is not None:
        _warp_displaced(image, matrix, displaced, out=out, flags=cv2.INTER_LINEAR)
        return
    window = whole_pixel_window(matrix, size_px=image.shape[:2], crop_px=out.shape[:2])
    if window is not None:
        out[...] = image[window[0]] if not window[1] else image[window[0]].swapaxes(0, 1)
        return
    image, matrix = _within_reach(image, matrix, crop_px=out.shape[:2])
    channels = image.shape[2]
    if channels == 1:
        _warp(image[:, :, 0], matrix, out=out[:, :, 0], flags=cv2.INTER_LINEAR)
    elif channels == 3 and image.dtype == np.uint8 and _pays_a_fourth(image, out):
        four = np.empty((*out.shape[:2], 4), dtype=np.uint8)
        _warp(cv2.cvtColor(image, cv2.COLOR_RGB2RGBA), matrix, out=four, flags=cv2.INTER_LINEAR)
        cv2.cvtColor(four, cv2.COLOR_RGBA2RGB, dst=out)
    elif channels <= CHANNELS_AT_ONCE:
        _warp(image, matrix, out=out, flags=cv2.INTER_LINEAR)
    else:
        for start in range(0, channels, CHANNELS_AT_ONCE):
            piece = slice(start, start + CHANNELS_AT_ONCE)
            part = np.empty((*out.shape[:2], len(range(channels)[piece])), dtype=out.dtype)
            warp_image_on_cpu(np.ascontiguousarray(image[:, :, piece]), matrix, out=part)
            out[:, :, piece] = part


def _pays_a_fourth(image: np.ndarray, out: np.ndarray) -> bool:
    """OpenCV reads four bytes a pixel twice as fast as three; an image much larger than its crop costs more to copy."""
    pixels, read = out.shape[0] * out.shape[1], image.shape[0] * image.shape[1]
    return bool(pixels >= LEAST_FOURTH_PX and read <= 2 * pixels)


def warp_mask_on_cpu(
    mask: MaskArray,
    matrix: Float[np.ndarray, "2 3"],
    *,
    out: UInt8[np.ndarray, "h w"],
    displaced: Float[np.ndarray, "h w 2"] | None = None,
) -> None:
    """Read a mask through a map at the nearest pixels into `out` (rows, columns), which must be contiguous."""
    if displaced is not None:
        _warp_displaced(mask[:, :, None], matrix, displaced, out=out[:, :, None], flags=cv2.INTER_NEAREST)
        return
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


def _warp_displaced(
    array: np.ndarray,
    matrix: Float[np.ndarray, "2 3"],
    displaced: Float[np.ndarray, "h w 2"],
    *,
    out: np.ndarray,
    flags: int,
) -> None:
    reach = float(np.abs(displaced).max())
    array, matrix = _within_reach(array, matrix, crop_px=out.shape[:2], slack_px=reach)
    places = places_of(matrix, crop_px=out.shape[:2]) + displaced
    for start in range(0, array.shape[2], CHANNELS_AT_ONCE):
        part = array[:, :, start : start + CHANNELS_AT_ONCE]
        read = cv2.remap(  # type: ignore[call-overload]  # the stub does not know that one map will do
            np.ascontiguousarray(part), places, None, flags, borderMode=cv2.BORDER_REFLECT_101
        )
        out[:, :, start : start + CHANNELS_AT_ONCE] = read.reshape(*out.shape[:2], -1)


def places_of(matrix: Float[np.ndarray, "2 3"], *, crop_px: tuple[int, ...]) -> Float[np.ndarray, "h w 2"]:
    """Where each pixel of the crop is read, (x, y)."""
    y, x = (np.arange(side, dtype=np.float64) for side in crop_px)
    (a, b, right), (c, d, down) = matrix.tolist()
    across = np.add.outer(b * y, a * x + right)
    return np.stack([across, np.add.outer(d * y, c * x + down)], axis=2).astype(np.float32)


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


def _within_reach(
    array: np.ndarray, matrix: np.ndarray, *, crop_px: tuple[int, ...], slack_px: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
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
        low, high = int(np.floor(values.min() - slack_px)) - 1, int(np.ceil(values.max() + slack_px)) + 1
        # What lies beyond a border is read from its reflection.
        low, high = min(low, 2 * last - high), max(high, -low)
        low, high = max(low, 0), min(high, last)
        starts.append(low)
        array = array[low : high + 1] if axis == 0 else array[:, low : high + 1]
    moved = matrix.copy()
    moved[:, 2] -= starts
    return np.ascontiguousarray(array), moved
