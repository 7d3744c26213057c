"""SegFormer with convolutions in place of its MLP decoder.

SegFormer (Xie et al. 2021, https://arxiv.org/abs/2105.15203) brings the features of a hierarchical transformer to one
width with a linear layer each, scales them to a quarter of the image, joins them and classifies every pixel by itself:
its decoder never looks at a neighbour. Here 3x3 convolutions, norm and activation stand in place of the linear layers,
for each level and for the joined levels, so that borders are decided among neighbours. Any encoder with features from
stride 4 on will do; `mit_b0` to `mit_b5` are the paper's.

Symbols: N images, C channels, K classes, H W rows and columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segwright.errors import RecipeError
from segwright.models.blocks import ConvolutionBlock, initialize
from segwright.models.library import build_encoder
from segwright.models.segmenter import InputSize, ModelEntry, ModelSpec, SegmentationModel

FINEST_LEVEL = 2
"""The finest feature that is read, at a quarter of the image."""


def _convolution(in_channels: int, out_channels: int) -> ConvolutionBlock:
    """3x3 convolution, norm, activation; the size stays."""
    return ConvolutionBlock(in_channels, out_channels, norm="batch", activation="relu", convolutions=1)


@final
class SegformerConvolution(nn.Module):
    """An encoder and a convolution decoder: (N, C, H, W) -> (N, K, H, W), H and W multiples of its stride.

    Args:
        encoder: gives features from fine to coarse, the input itself first.
        channels: of these features.
        levels: positions of those that are read, fine to coarse.
        num_classes: K.
        width: channels of the decoder.
        dropout: share of channels dropped before the last convolution.
    """

    def __init__(
        self, encoder: nn.Module, *, channels: Sequence[int], levels: Sequence[int], num_classes: int, width: int,
        dropout: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.encoder = encoder
        self.levels = tuple(levels)
        self.laterals = nn.ModuleList(_convolution(channels[level], width) for level in levels)
        self.blend = _convolution(len(levels) * width, width)
        self.head = nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(width, num_classes, 1))
        for part in (self.laterals, self.blend, self.head):
            initialize(part, activation="relu")

    def forward(self, x: Tensor) -> Tensor:
        features = self.encoder(x)
        finest = features[self.levels[0]].shape[-2:]
        scaled = [
            F.interpolate(lateral(features[level]), size=finest, mode="bilinear")
            for level, lateral in zip(self.levels, self.laterals, strict=True)
        ]
        logits = self.head(self.blend(torch.cat(scaled, dim=1)))
        return F.interpolate(logits, size=x.shape[-2:], mode="bilinear")


ARGUMENTS: dict[str, Any] = {"width": 128, "dropout": 0.1}


def _build(spec: ModelSpec) -> SegmentationModel:
    chosen = ARGUMENTS | spec.arguments
    width, dropout = chosen["width"], chosen["dropout"]
    if not isinstance(width, int) or isinstance(width, bool) or width < 1:
        raise RecipeError(f"{spec.name}: width {width}", mend="use at least one channel")
    if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise RecipeError(f"{spec.name}: dropout {dropout}", mend="use a number from 0 to below 1")
    encoder = build_encoder(spec)
    channels: list[int] = list(encoder.out_channels)  # type: ignore[arg-type]  # a list of the library's
    levels = [level for level in range(FINEST_LEVEL, len(channels)) if channels[level] > 0]
    net = SegformerConvolution(
        encoder, channels=channels, levels=levels, num_classes=spec.num_classes, width=width, dropout=dropout
    )
    stride = int(encoder.output_stride)  # type: ignore[arg-type]  # an int of the library's
    return SegmentationModel(spec, net, encoder=encoder, input_size=InputSize(stride, minimum=2 * stride))


SEGFORMER_CONVOLUTION = ModelEntry(
    build=_build,
    paper="https://arxiv.org/abs/2105.15203",
    line="SegFormer with 3x3 convolutions in place of its linear decoder; usual with mit encoders",
    arguments=ARGUMENTS,
    takes_encoder=True,
)
