"""SwiftNet: a light decoder that goes back up to half the image size, for a pretrained encoder and few multiplications.

Orsic et al. 2019, 'In Defense of Pre-trained ImageNet Architectures for Real-time Semantic Segmentation of Road-driving
Images', https://arxiv.org/abs/1903.08469. Pooled context at the coarsest feature, then at each level: upsample, add the
projected encoder feature, blend by one 3x3 convolution. Ours differs in two points: convolution, norm, activation in
this order (theirs is norm first), and `finest_stride` 2 adds one narrow level, because thin things (poles, wires,
cracks) vanish at the paper's stride 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segwright.errors import RecipeError
from segwright.models.blocks import initialize
from segwright.models.library import build_encoder
from segwright.models.segmenter import InputSize, ModelEntry, ModelSpec, SegmentationModel

POOL_CHANNELS = 32
POOL_GRIDS = (8, 4, 2, 1)
MINIMUM_STEPS = 2


def _convolution(in_channels: int, out_channels: int, *, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


@final
class SpatialPyramidPooling(nn.Module):
    """Context: averages over grids of the whole feature, joined with it."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.reduce = _convolution(in_channels, out_channels, kernel=1)
        self.pools = nn.ModuleList(_convolution(out_channels, POOL_CHANNELS, kernel=1) for _ in POOL_GRIDS)
        self.fuse = _convolution(out_channels + POOL_CHANNELS * len(POOL_GRIDS), out_channels, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.reduce(x)
        height, width = x.shape[-2:]
        parts = [x]
        for grid, pool in zip(POOL_GRIDS, self.pools, strict=True):
            cells = (min(grid, height), min(max(1, round(grid * width / height)), width))
            parts.append(F.interpolate(pool(F.adaptive_avg_pool2d(x, cells)), size=(height, width), mode="bilinear"))
        blended: Tensor = self.fuse(torch.cat(parts, dim=1))
        return blended


@final
class SwiftNet(nn.Module):
    """An encoder, pooled context and a light way up.

    Args:
        encoder: gives features from fine to coarse, the input itself first.
        levels: positions of the features that are used, fine to coarse.
        widths: channels at each of them.
        num_classes: K.
        dropout: share of channels dropped before the last convolution.
    """

    def __init__(
        self, encoder: nn.Module, *, levels: Sequence[int], widths: Sequence[int], num_classes: int, dropout: float
    ) -> None:
        super().__init__()
        channels = _channels(encoder)
        self.levels = tuple(levels)
        self.encoder = encoder
        self.context = SpatialPyramidPooling(channels[levels[-1]], widths[-1])
        finer = list(zip(levels, widths, widths[1:], strict=False))[::-1]
        self.laterals = nn.ModuleList(_convolution(channels[level], wide, kernel=1) for level, _, wide in finer)
        self.blends = nn.ModuleList(_convolution(wide, narrow, kernel=3) for _, narrow, wide in finer)
        self.head = nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(widths[0], num_classes, 1))
        for part in (self.context, self.laterals, self.blends, self.head):
            initialize(part, activation="relu")

    def forward(self, x: Tensor) -> Tensor:
        features = self.encoder(x)
        y = self.context(features[self.levels[-1]])
        for level, lateral, blend in zip(self.levels[-2::-1], self.laterals, self.blends, strict=True):
            skip = lateral(features[level])
            y = blend(F.interpolate(y, size=skip.shape[-2:], mode="bilinear") + skip)
        return F.interpolate(self.head(y), size=x.shape[-2:], mode="bilinear")


def _channels(encoder: nn.Module) -> list[int]:
    return list(encoder.out_channels)  # type: ignore[arg-type]  # a list of the library's


ARGUMENTS: dict[str, Any] = {"width": 128, "finest_stride": 2, "dropout": 0.0}


def _build(spec: ModelSpec) -> SegmentationModel:
    chosen = ARGUMENTS | spec.arguments
    width, finest = chosen["width"], chosen["finest_stride"]
    if finest not in (2, 4, 8) or not isinstance(width, int) or width < 8:
        problem = f"swiftnet with finest_stride {finest} and width {width}"
        raise RecipeError(problem, mend="use a stride of 2, 4 or 8 and a width of at least 8")
    encoder = build_encoder(spec)
    channels = _channels(encoder)
    # Transformers have no feature at stride 2; their list holds an empty one there.
    levels = [level for level in range(1, len(channels)) if channels[level] > 0 and 2**level >= finest]
    widths = [_width(2**level, width) for level in levels]
    net = SwiftNet(encoder, levels=levels, widths=widths, num_classes=spec.num_classes, dropout=chosen["dropout"])
    stride = int(encoder.output_stride)  # type: ignore[arg-type]  # an int of the library's
    size = InputSize(stride, minimum=MINIMUM_STEPS * stride)
    # The coarsest pool is one cell: a batch norm over one image's single value has no variance.
    return SegmentationModel(spec, net, encoder=encoder, input_size=size, lone_image=False)


def _width(stride: int, width: int) -> int:
    """Full width from stride 8 on; half at 4 and a quarter at 2, where pixels are many."""
    return width // {2: 4, 4: 2}.get(stride, 1)


SWIFTNET = ModelEntry(
    build=_build,
    paper="https://arxiv.org/abs/1903.08469",
    line="light decoder up to half the size, pooled context; fast, keeps thin things",
    arguments=ARGUMENTS,
    takes_encoder=True,
)
