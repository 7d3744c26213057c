"""Context of several reaches at once, for the coarsest level of a network: (N, C, H, W) -> (N, D, H, W).

Atrous spatial pyramid pooling: Chen et al. 2017, https://arxiv.org/abs/1706.05587, and 2018,
https://arxiv.org/abs/1802.02611. Pyramid pooling: Zhao et al. 2017, https://arxiv.org/abs/1612.01105. Dilated
convolutions side by side: Yu and Koltun 2016, https://arxiv.org/abs/1511.07122; with squeeze and excitation (Hu 2018,
https://arxiv.org/abs/1709.01507).

Pooled branches have no norm: pooled to one pixel, a channel is one value an image, of which batch norm (at one image)
and instance norm have no variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segwright.models.attention import SqueezeExcitation
from segwright.models.blocks import ACTIVATIONS, NORMS, ActivationName, NormName, convolution

ASPP_RATES = (6, 12, 18)
POOL_GRIDS = (1, 2, 3, 6)
DILATIONS = (1, 2, 4, 8)


def _branch(
    in_channels: int, out_channels: int, *, rate: int, norm: NormName, activation: ActivationName
) -> nn.Sequential:
    """A dilated 3x3 convolution, norm, activation; rate 0 stands for a 1x1 convolution."""
    bias = norm == "none"
    layer = (
        convolution(in_channels, out_channels, padding=rate, dilation=rate, bias=bias)
        if rate
        else nn.Conv2d(in_channels, out_channels, 1, bias=bias)
    )
    return nn.Sequential(layer, NORMS[norm](out_channels), ACTIVATIONS[activation]())


@final
class _PooledContext(nn.Module):
    """Means over a grid of cells, 1x1 convolution, activation, and back to the input's size."""

    def __init__(self, in_channels: int, out_channels: int, *, grid: int, activation: ActivationName) -> None:
        super().__init__()
        self.grid = grid
        self.project = nn.Conv2d(in_channels, out_channels, 1)
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        context = self.activation(self.project(F.adaptive_avg_pool2d(x, self.grid)))
        return F.interpolate(context, size=x.shape[-2:], mode="bilinear", align_corners=False)


@final
class ASPP(nn.Module):
    """A 1x1 convolution, three dilated ones and the mean of the image side by side, blended by a 1x1 convolution.

    Args:
        in_channels: C.
        out_channels: D, of every branch and of the result.
        norm: of the branches that are not pooled, and of the blend.
        activation: after each of them.
        rates: of dilation, in pixels of the feature; the paper's are for features of 30 pixels and more.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        norm: NormName,
        activation: ActivationName,
        rates: Sequence[int] = ASPP_RATES,
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            _branch(in_channels, out_channels, rate=rate, norm=norm, activation=activation) for rate in (0, *rates)
        )
        self.pooled = _PooledContext(in_channels, out_channels, grid=1, activation=activation)
        self.blend = _branch(out_channels * (len(rates) + 2), out_channels, rate=0, norm=norm, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.blend(torch.cat([*(branch(x) for branch in self.branches), self.pooled(x)], dim=1))
        return result


@final
class PyramidPooling(nn.Module):
    """The feature beside its means over grids of 1, 4, 9 and 36 cells, blended by a 3x3 convolution.

    Args:
        in_channels: C; each grid gives C / 4 channels.
        out_channels: D.
        norm: of the blend.
        activation: of grids and blend.
        grids: cells along a side.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        norm: NormName,
        activation: ActivationName,
        grids: Sequence[int] = POOL_GRIDS,
    ) -> None:
        super().__init__()
        narrow = max(1, in_channels // len(grids))
        self.pooled = nn.ModuleList(
            _PooledContext(in_channels, narrow, grid=grid, activation=activation) for grid in grids
        )
        self.blend = _branch(in_channels + narrow * len(grids), out_channels, rate=1, norm=norm, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.blend(torch.cat([x, *(pooled(x) for pooled in self.pooled)], dim=1))
        return result


@final
class ParallelDilation(nn.Module):
    """Dilated 3x3 convolutions side by side, blended by a 1x1 convolution, its channels weighed by their means.

    Args:
        in_channels: C.
        out_channels: D; each rate gives D / 4 channels.
        norm: of the branches and of the blend.
        activation: after each of them.
        rates: of dilation, in pixels of the feature.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        norm: NormName,
        activation: ActivationName,
        rates: Sequence[int] = DILATIONS,
    ) -> None:
        super().__init__()
        narrow = max(1, out_channels // len(rates))
        self.branches = nn.ModuleList(
            _branch(in_channels, narrow, rate=rate, norm=norm, activation=activation) for rate in rates
        )
        self.blend = _branch(narrow * len(rates), out_channels, rate=0, norm=norm, activation=activation)
        self.weigh = SqueezeExcitation(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.weigh(self.blend(torch.cat([branch(x) for branch in self.branches], dim=1)))
        return result
