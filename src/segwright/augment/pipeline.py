"""Draw all chance in one place, then apply it to images and masks alike, on the CPU or on a device.

    parameters = draw(PRESETS["medium"], sizes_px, crop_px=(320, 320), channels=3, rng=rng)
    images, masks = augment_on_cpu(images, masks, parameters, crop_px=(320, 320))

`augment_on_cpu` runs OpenCV on uint8 images of any sizes; `augment_on_device` runs torch on a stack of one size. Both
give the same result but for rounding: OpenCV rounds after every step, torch once at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Int64, Shaped, UInt8
from torch import Tensor

from segwright.augment.color import (
    ColorDraw,
    color_float_on_cpu,
    color_on_device,
    color_uint8_on_cpu,
    draw_color,
    tone_tables,
)
from segwright.augment.geometry import draw_maps, warp_image_on_cpu, warp_mask_on_cpu, warp_on_device
from segwright.augment.policy import Policy
from segwright.types import Images, Masks


@dataclass(frozen=True)
class Draw:
    """The parameters of N images.

    Attributes:
        matrices: (N, 2, 3) maps from output to input pixel coordinates (see `geometry`).
        color: the rest (see `color`).
    """

    matrices: Float[np.ndarray, "N 2 3"]
    color: ColorDraw

    def part(self, rows: slice) -> Draw:
        """The parameters of some of the images."""
        return Draw(self.matrices[rows], self.color.part(rows))


def draw(
    policy: Policy,
    sizes_px: Int[np.ndarray, "N 2"],
    *,
    crop_px: tuple[int, int],
    channels: int,
    rng: np.random.Generator,
) -> Draw:
    """Draw the parameters of one batch; nothing later in the pipeline draws anything.

    Args:
        policy: the ranges.
        sizes_px: rows and columns of each image.
        crop_px: rows and columns of the output.
        channels: of the images; hue and saturation need three.
        rng: the only source of chance.
    """
    matrices = draw_maps(policy, sizes_px, crop_px=crop_px, rng=rng)
    return Draw(matrices, draw_color(policy, len(sizes_px), channels=channels, rng=rng))


def augment_on_cpu(
    images: Sequence[Shaped[np.ndarray, "C _ _"]],
    masks: Sequence[UInt8[np.ndarray, "_ _"]] | None,
    parameters: Draw,
    *,
    crop_px: tuple[int, int],
) -> tuple[Shaped[Tensor, "N C h w"], Int64[Tensor, "N h w"] | None]:
    """Apply parameters to N images of any sizes.

    Args:
        images: (C, H, W) arrays of one type; fastest as transposed views of (H, W, C), as a pack holds them.
        masks: (H, W) uint8 arrays, or None.
        parameters: of as many images.
        crop_px: rows and columns of the output, as given to `draw`.

    Returns:
        Images (N, C, rows, columns) of the same type, channels last in memory, and masks (N, rows, columns) int64.
    """
    count, channels, color = len(images), images[0].shape[0], parameters.color
    pictures = np.empty((count, *crop_px, channels), dtype=images[0].dtype)
    tables = tone_tables(color) if pictures.dtype == np.uint8 else None
    for n, image in enumerate(images):
        warp_image_on_cpu(np.ascontiguousarray(image.transpose(1, 2, 0)), parameters.matrices[n], out=pictures[n])
        if pictures.dtype == np.uint8:
            color_uint8_on_cpu(pictures[n], color, n, table=None if tables is None else tables[n])
        elif not color.changes_nothing:
            color_float_on_cpu(pictures[n], color, n)
    batch = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    if masks is None:
        return batch, None
    labels = np.empty((count, *crop_px), dtype=np.uint8)
    for n, mask in enumerate(masks):
        warp_mask_on_cpu(mask, parameters.matrices[n], out=labels[n])
    return batch, torch.from_numpy(labels.astype(np.int64))


def augment_on_device(
    images: Images, masks: Masks | None, parameters: Draw, *, crop_px: tuple[int, int]
) -> tuple[Shaped[Tensor, "N C h w"], Int64[Tensor, "N h w"] | None]:
    """Apply parameters to a stack (N, C, H, W) where it lies; the same result as `augment_on_cpu` but for rounding.

    Returns:
        Images (N, C, rows, columns) of the same type and masks (N, rows, columns) int64.
    """
    warped, labels = warp_on_device(images.to(torch.float32), masks, parameters.matrices, crop_px=crop_px)
    changed = color_on_device(warped, parameters.color, full_scale=255.0 if images.dtype == torch.uint8 else None)
    if not images.dtype.is_floating_point:
        changed = changed.round().clamp(0, torch.iinfo(images.dtype).max)
    return changed.to(images.dtype), None if labels is None else labels.to(torch.int64)
