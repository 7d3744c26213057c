"""A second network that reads the image and the labels of a first, and cleans them.

It straightens borders and removes specks: a small U-Net over image and probabilities p (N, K, H, W) that answers
log p + correction. Its last convolution starts at zero, so an untrained refiner changes nothing. The nearest in print
is the refinement stage of Ronneberger's followers in medical images, auto-context: Tu and Bai 2010,
https://doi.org/10.1109/TPAMI.2009.186.

What a first network says of the images it was trained on is better than what it will say of new ones, so a refiner that
learns from it learns to trust. Therefore half of the training images come with their true labels, damaged as a
network damages them: borders that wander, specks, holes, and regions under a wrong name.
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segwright.models.blocks import initialize, start_silent
from segwright.models.unet import UNet
from segwright.models.unet_switches import UNetSwitches
from segwright.tensors import Masks
from segwright.types import IGNORE_INDEX

DAMAGED_SHARE = 0.5
"""Share of the training images that come with damaged truth in place of the first network's answer."""

_SURE = 0.9
_WANDER_PX = 4.0
_WANDER_CELL_PX = 8
_SPECK_CELL_PX = 4
_SPECK_SHARE = 0.06
_WRONG_NAME_SHARE = 0.15


@final
class Refiner(nn.Module):
    """Image (N, C, H, W) normalised and log-probabilities (N, K, H, W) to logits (N, K, H, W).

    Args:
        in_channels: C.
        num_classes: K.
        width: channels of the finest level.
        depth: levels; sides are padded by reflection to what they need.
    """

    def __init__(self, in_channels: int, num_classes: int, *, width: int = 16, depth: int = 4) -> None:
        super().__init__()
        self._stride = 2 ** (depth - 1)
        self.net = UNet(in_channels + num_classes, num_classes, switches=UNetSwitches(depth=depth, width=width))
        initialize(self.net, activation="relu")
        start_silent(self.net.head)

    def forward(self, image: Tensor, log_probs: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        seen = torch.cat([image, log_probs.exp().to(image.dtype)], dim=1)
        # By repetition, since reflection needs images larger than the padding.
        padded = F.pad(seen, (0, -width % self._stride, 0, -height % self._stride), mode="replicate")
        correction: Tensor = self.net(padded)[..., :height, :width]
        return log_probs + correction


def damaged(masks: Masks, *, num_classes: int) -> Tensor:
    """Log-probabilities (N, K, H, W) of labels as a careless network would give them; chance is torch's own.

    Args:
        masks: (N, H, W) true labels; void pixels take the label of class 0.
        num_classes: K.
    """
    labels = torch.where(masks == IGNORE_INDEX, 0, masks)
    labels = _wandering(labels)
    labels = _misnamed(labels, num_classes=num_classes)
    labels = _specked(labels, num_classes=num_classes)
    sure = _SURE + (1 - _SURE) * torch.rand(len(masks), 1, 1, 1, device=masks.device)
    hot = F.one_hot(labels, num_classes).permute(0, 3, 1, 2)
    rest = (1 - sure) / max(1, num_classes - 1)
    return torch.where(hot.bool(), sure, rest.expand_as(sure)).clamp(1e-6).log()


def _wandering(labels: Tensor) -> Tensor:
    """Borders moved to and fro by a smooth field of up to some pixels."""
    n, height, width = labels.shape
    cells = (n, 2, max(2, height // _WANDER_CELL_PX), max(2, width // _WANDER_CELL_PX))
    reach = _WANDER_PX * torch.rand(n, 1, 1, 1, device=labels.device)
    field = F.interpolate(
        (2 * torch.rand(cells, device=labels.device) - 1) * reach, size=(height, width), mode="bilinear"
    )
    rows = torch.arange(height, device=labels.device)[:, None] + field[:, 0].round().long()
    columns = torch.arange(width, device=labels.device)[None] + field[:, 1].round().long()
    flat = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
    return labels.flatten(1).gather(1, flat.flatten(1)).view_as(labels)


def _specked(labels: Tensor, *, num_classes: int) -> Tensor:
    """Small pieces under another name: specks, and holes in what is there."""
    n, height, width = labels.shape
    cells = (n, 1, -(-height // _SPECK_CELL_PX), -(-width // _SPECK_CELL_PX))
    share = _SPECK_SHARE * torch.rand(n, 1, 1, 1, device=labels.device)
    chosen = (torch.rand(cells, device=labels.device) < share).float()
    names = torch.randint(0, num_classes, cells, device=labels.device).float()
    chosen, names = (
        F.interpolate(x, scale_factor=_SPECK_CELL_PX, mode="nearest")[:, 0, :height, :width] for x in (chosen, names)
    )
    return torch.where(chosen > 0, names.long(), labels)


def _misnamed(labels: Tensor, *, num_classes: int) -> Tensor:
    """Now and then a class of an image under the name of another, in one half of the image."""
    n, _, width = labels.shape
    device = labels.device
    wrong = torch.rand(n, 1, 1, device=device) < _WRONG_NAME_SHARE
    taken = torch.randint(0, num_classes, (n, 1, 1), device=device)
    given = torch.randint(0, num_classes, (n, 1, 1), device=device)
    edge = torch.randint(0, max(1, width), (n, 1, 1), device=device)
    beside = torch.arange(width, device=device)[None, None] < edge
    return torch.where(wrong & beside & (labels == taken), given, labels)


ARGUMENTS: dict[str, Any] = {"width": 16, "depth": 4}
