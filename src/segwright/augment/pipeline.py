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
from jaxtyping import Bool, Float, Int, Int64, Shaped, UInt8
from torch import Tensor

from segwright.augment.color import (
    ColorDraw,
    color_float_on_cpu,
    color_on_device,
    color_uint8_on_cpu,
    draw_color,
    tone_tables,
)
from segwright.augment.device_geometry import warp_on_device
from segwright.augment.distortion import Distortion, draw_distortion
from segwright.augment.geometry import draw_maps, warp_image_on_cpu, warp_mask_on_cpu
from segwright.augment.matching import match_histogram, match_on_device
from segwright.augment.policy import Policy
from segwright.tensors import Images, Masks


@dataclass(frozen=True)
class Draw:
    """The parameters of N images.

    Attributes:
        matrices: (N, 2, 3) maps from output to input pixel coordinates (see `geometry`).
        color: brightness and all that follows from it (see `color`).
        distortion: elastic and grid distortion; None where no image is distorted.
        tones: (N, C, 256) what each image's histogram is brought to before its colours change (see `matching`), NaN
            for images that stay as they are; None where all stay.
    """

    matrices: Float[np.ndarray, "N 2 3"]
    color: ColorDraw
    distortion: Distortion | None = None
    tones: Float[np.ndarray, "N C Q"] | None = None

    def part(self, rows: slice | Int[np.ndarray, " P"]) -> Draw:
        """The parameters of some of the images."""
        distortion = None if self.distortion is None else self.distortion.part(rows)
        return Draw(
            self.matrices[rows], self.color.part(rows), distortion, None if self.tones is None else self.tones[rows]
        )

    @property
    def toned(self) -> Bool[np.ndarray, " N"]:
        """Which images are matched."""
        count = len(self.matrices)
        return np.zeros(count, dtype=bool) if self.tones is None else ~np.isnan(self.tones[:, 0, 0])


def draw(
    policy: Policy,
    sizes_px: Int[np.ndarray, "N 2"],
    *,
    crop_px: tuple[int, int],
    channels: int,
    rng: np.random.Generator,
    changed: Bool[np.ndarray, " N"] | None = None,
) -> Draw:
    """Draw the parameters of one batch; nothing later in the pipeline draws anything.

    Args:
        policy: the ranges.
        sizes_px: rows and columns of each image.
        crop_px: rows and columns of the output.
        channels: of the images; hue and saturation need three.
        rng: the only source of chance.
        changed: which images the policy is for; of the others a crop is taken, and nothing is changed. None: all.
    """
    # Nothing is drawn for what a policy leaves out, so that a new kind of change leaves older runs as they were.
    distortion = draw_distortion(policy, len(sizes_px), crop_px=crop_px, rng=rng)
    if distortion is not None and changed is not None:
        distortion = distortion.only(changed)
    reach_px = None if distortion is None else distortion.reach_px()
    matrices = draw_maps(policy, sizes_px, crop_px=crop_px, rng=rng, reach_px=reach_px)
    color = draw_color(policy, len(sizes_px), channels=channels, rng=rng)
    tones = _draw_tones(policy, len(sizes_px), rng=rng)
    if changed is not None:
        cuts = draw_maps(Policy(), sizes_px, crop_px=crop_px, rng=rng)
        matrices, color = np.where(changed[:, None, None], matrices, cuts), color.only(changed)
        if tones is not None:
            tones[~changed] = np.nan
    return Draw(matrices, color, distortion, tones)


def _draw_tones(policy: Policy, count: int, *, rng: np.random.Generator) -> Float[np.ndarray, "N C Q"] | None:
    if policy.match == 0 or policy.match_to is None:
        return None
    left = rng.random(count) >= policy.match
    tones = policy.match_to[rng.integers(0, len(policy.match_to), count)]
    tones[left] = np.nan
    return tones


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
    displaced = _displaced(parameters, crop_px)
    for n, (image, toned) in enumerate(zip(images, parameters.toned, strict=True)):
        pixels = np.ascontiguousarray(image.transpose(1, 2, 0))
        warp_image_on_cpu(pixels, parameters.matrices[n], out=pictures[n], displaced=displaced[n])
        if toned and parameters.tones is not None:
            tones = parameters.tones[n].astype(np.float32)
            pictures[n] = match_histogram(pictures[n].transpose(2, 0, 1), tones).transpose(1, 2, 0)
        if pictures.dtype == np.uint8:
            color_uint8_on_cpu(pictures[n], color, n, table=None if tables is None else tables[n])
        elif not color.changes_nothing:
            color_float_on_cpu(pictures[n], color, n)
    batch = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    if masks is None:
        return batch, None
    labels = np.empty((count, *crop_px), dtype=np.uint8)
    for n, mask in enumerate(masks):
        warp_mask_on_cpu(mask, parameters.matrices[n], out=labels[n], displaced=displaced[n])
    return batch, torch.from_numpy(labels.astype(np.int64))


def _displaced(parameters: Draw, crop_px: tuple[int, int]) -> Sequence[Float[np.ndarray, "h w 2"] | None]:
    if parameters.distortion is None:
        return [None] * len(parameters.matrices)
    return list(parameters.distortion.fields(crop_px))


def augment_on_device(
    images: Images, masks: Masks | None, parameters: Draw, *, crop_px: tuple[int, int]
) -> tuple[Shaped[Tensor, "N C h w"], Int64[Tensor, "N h w"] | None]:
    """Apply parameters to a stack (N, C, H, W) where it lies; the same result as `augment_on_cpu` but for rounding.

    Returns:
        Images (N, C, rows, columns) of the same type and masks (N, rows, columns) int64.
    """
    distortion, full_scale = parameters.distortion, 255.0 if images.dtype == torch.uint8 else None
    displaced = None if distortion is None else distortion.fields_on(crop_px, device=images.device)
    warped, labels = warp_on_device(
        images.to(torch.float32), masks, parameters.matrices, crop_px=crop_px, displaced=displaced
    )
    if parameters.tones is not None:
        rows = np.flatnonzero(parameters.toned)
        there = torch.from_numpy(rows).to(images.device, non_blocking=True)
        warped[there] = match_on_device(warped[there], parameters.tones[rows], full_scale=full_scale)
    changed = color_on_device(warped, parameters.color, full_scale=full_scale)
    if not images.dtype.is_floating_point:
        changed = changed.round().clamp(0, torch.iinfo(images.dtype).max)
    return changed.to(images.dtype), None if labels is None else labels.to(torch.int64)
