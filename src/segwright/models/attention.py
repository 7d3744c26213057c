"""Attention over channels and over places, for skips and bottlenecks.

Squeeze and excitation: Hu et al. 2018, https://arxiv.org/abs/1709.01507. Attention gate: Oktay et al. 2018,
https://arxiv.org/abs/1804.03999. Both answer with their input times factors between 0 and 1.
"""

from __future__ import annotations

from typing import final

from torch import Tensor, nn
from torch.nn import functional as F

REDUCTION = 16
_FEWEST_HIDDEN = 4


@final
class SqueezeExcitation(nn.Module):
    """Weighs every channel by what all channels are on average: (N, C, H, W) -> (N, C, H, W).

    Args:
        channels: C.
        reduction: the hidden layer has C / reduction channels, and at least 4.
    """

    def __init__(self, channels: int, *, reduction: int = REDUCTION) -> None:
        super().__init__()
        hidden = max(_FEWEST_HIDDEN, channels // reduction)
        self.squeeze = nn.Conv2d(channels, hidden, 1)
        self.excite = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)
        factors: Tensor = self.excite(F.relu(self.squeeze(mean))).sigmoid()
        return x * factors


@final
class AttentionGate(nn.Module):
    """Weighs every place of a skip by what the coarser level below knows of it.

    (N, C, H, W) and (N, D, H/2, W/2) -> (N, C, H, W). The skip is brought to the gate's size by a strided convolution,
    both are projected to C/2 channels and added; the factors come back to the skip's size by bilinear interpolation.

    Args:
        channels: C, of the skip.
        gate_channels: D, of the coarser level.
    """

    def __init__(self, channels: int, gate_channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 2)
        self.skip = nn.Conv2d(channels, inner, 2, stride=2, bias=False)
        self.gate = nn.Conv2d(gate_channels, inner, 1)
        self.weigh = nn.Conv2d(inner, 1, 1)

    def forward(self, skip: Tensor, gate: Tensor) -> Tensor:
        weights = self.weigh(F.relu(self.skip(skip) + self.gate(gate))).sigmoid()
        return skip * F.interpolate(weights, size=skip.shape[-2:], mode="bilinear", align_corners=False)
