"""The maps and displacements of `geometry`, read in torch on the device where the images lie.

The same conventions hold: output to input pixel coordinates, pixel centres, reflection about the outermost of them
(https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.grid_sample.html).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as functional
from jaxtyping import Float, Integer
from torch import Tensor

from segwright.tensors import Masks


def warp_on_device(
    images: Float[Tensor, "N C H W"],
    masks: Masks | None,
    matrices: Float[np.ndarray, "N 2 3"],
    *,
    crop_px: tuple[int, int],
    displaced: Float[Tensor, "N h w 2"] | None = None,
) -> tuple[Float[Tensor, "N C h w"], Integer[Tensor, "N h w"] | None]:
    """Read images, which are float32, bilinearly and masks at the nearest pixels."""
    height, width = images.shape[-2:]
    maps = torch.from_numpy(np.ascontiguousarray(matrices, dtype=np.float32)).to(images.device, non_blocking=True)
    y = torch.arange(crop_px[0], device=images.device, dtype=torch.float32)
    x = torch.arange(crop_px[1], device=images.device, dtype=torch.float32)
    column = maps[:, :, 0, None, None] * x[None, None, None, :]
    row = maps[:, :, 1, None, None] * y[None, None, :, None]
    places = column + row + maps[:, :, 2, None, None]
    if displaced is not None:
        places = places + displaced.permute(0, 3, 1, 2)
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
