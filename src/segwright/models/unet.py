"""U-Net: Ronneberger, Fischer, Brox 2015, https://arxiv.org/abs/1505.04597; without an encoder from elsewhere.

The way down ends in the coarsest level; the way up doubles the size, joins the skip of the same level and convolves
twice. What it may be told stands in `unet_switches.py`; the presets differ in nothing else:

    unet               padded convolutions and batch norm, which later work settled on
    unet_valid         the paper's own network
    unet_separable     depthwise separable convolutions (Chollet 2017, https://arxiv.org/abs/1610.02357)
    unet_vgg16         VGG16 as the way down, randomly initialised (Simonyan 2015, https://arxiv.org/abs/1409.1556)
    resunet_attention  residual blocks (Zhang 2018, https://arxiv.org/abs/1711.10684), attention gates on the skips
                       (Oktay 2018, https://arxiv.org/abs/1804.03999), parallel dilated convolutions, instance norm,
                       dropout
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any, final

import torch
from torch import Tensor, nn

from segwright.models.attention import AttentionGate, SqueezeExcitation
from segwright.models.blocks import BilinearUp, ConvolutionBlock, ResidualBlock, center_crop, initialize
from segwright.models.pyramid import ASPP, ParallelDilation, PyramidPooling
from segwright.models.segmenter import ModelEntry, ModelSpec, SegmentationModel
from segwright.models.unet_switches import ARGUMENTS, UNetSwitches, switches_of, unet_input_size

COARSE_RATES = (2, 4, 6)
"""Dilation at the coarsest level, which is a few pixels wide: the usual rates of 6 to 18 would see padding alone."""


@final
class UNet(nn.Module):
    """The network: (N, C, H, W) normalised -> (N, K, H, W), or smaller by the margin with valid convolutions.

    Args:
        in_channels: C.
        num_classes: K.
        switches: all that can be chosen.
    """

    def __init__(self, in_channels: int, num_classes: int, *, switches: UNetSwitches) -> None:
        super().__init__()
        widths = switches.widths
        finer = list(pairwise(widths))[::-1]
        self.joined = switches.skips
        self.down = _way_down(in_channels, switches)
        self.pool = nn.MaxPool2d(2)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(coarse, fine, 2, stride=2) if switches.up == "transposed" else BilinearUp(coarse, fine)
            for fine, coarse in finer
        )
        self.join = _way_up(switches)
        self.head = nn.Conv2d(widths[0], num_classes, 1)
        self.bottleneck = _bottleneck(widths[-1], switches)
        self.skips = nn.ModuleList(_skip(fine, coarse, switches) for fine, coarse in finer if switches.skips != "none")
        initialize(self, activation=switches.activation)

    def forward(self, x: Tensor) -> Tensor:
        features = []
        for block in self.down[:-1]:
            x = block(x)
            features.append(x)
            x = self.pool(x)
        x = self.bottleneck(self.down[-1](x))
        for place, (up, join) in enumerate(zip(self.up, self.join, strict=True)):
            x = join(self._with_skip(up(x), features.pop(), coarse=x, place=place))
        logits: Tensor = self.head(x)
        return logits

    def _with_skip(self, x: Tensor, skip: Tensor, *, coarse: Tensor, place: int) -> Tensor:
        if self.joined == "none":
            return x
        refine = self.skips[place]
        skip = center_crop(skip, like=x)
        skip = refine(skip, coarse) if isinstance(refine, AttentionGate) else refine(skip)
        return x + skip if self.joined == "add" else torch.cat([skip, x], dim=1)


def _way_down(in_channels: int, switches: UNetSwitches) -> nn.ModuleList:
    widths, counts = switches.widths, switches.convolutions_down
    levels = len(widths)
    separable = switches.convolution == "separable"
    blocks = [
        _block(
            before,
            after,
            switches,
            convolutions=count,
            separable=separable,
            dropout=switches.dropout if level >= levels - 2 else 0.0,
            place=level,
        )
        for level, (before, after, count) in enumerate(zip([in_channels, *widths], widths, counts, strict=False))
    ]
    if separable:
        padding, bias = int(switches.padding == "same"), switches.norm == "none"
        blocks[0][0] = nn.Conv2d(in_channels, widths[0], 3, padding=padding, bias=bias)
    return nn.ModuleList(blocks)


def _way_up(switches: UNetSwitches) -> nn.ModuleList:
    widths = switches.widths
    copies = 1 if switches.skips in ("add", "none") else 2
    separable = switches.convolution in ("separable", "separable_decoder")
    return nn.ModuleList(
        _block(copies * fine, fine, switches, separable=separable, place=len(widths) + step)
        for step, fine in enumerate(reversed(widths[:-1]))
    )


def _block(
    in_channels: int,
    out_channels: int,
    switches: UNetSwitches,
    *,
    place: int,
    separable: bool,
    convolutions: int = 2,
    dropout: float = 0.0,
) -> Any:
    """The block of one level; `place` counts the blocks of both ways, for the probability of being skipped."""
    make: Any = partial(ConvolutionBlock, separable=separable)
    if switches.convolution == "residual":
        blocks = 2 * len(switches.widths) - 1
        make = partial(ResidualBlock, stochastic_depth=switches.stochastic_depth * (place + 1) / blocks)
    return make(
        in_channels,
        out_channels,
        norm=switches.norm,
        activation=switches.activation,
        padding=switches.padding,
        convolutions=convolutions,
        dropout=dropout,
    )


def _skip(fine: int, coarse: int, switches: UNetSwitches) -> nn.Module:
    """What a skip of `fine` channels goes through before it is joined."""
    if switches.skips == "residual":
        return ResidualBlock(fine, fine, norm=switches.norm, activation=switches.activation)
    if switches.skips == "se":
        return SqueezeExcitation(fine)
    if switches.skips == "attention":
        return AttentionGate(fine, coarse)
    return nn.Identity()


def _bottleneck(channels: int, switches: UNetSwitches) -> nn.Module:
    norm, activation = switches.norm, switches.activation
    if switches.bottleneck == "se_dilated":
        return ParallelDilation(channels, channels, norm=norm, activation=activation)
    if switches.bottleneck == "aspp":
        return ASPP(channels, channels, norm=norm, activation=activation, rates=COARSE_RATES)
    if switches.bottleneck == "ppm":
        return PyramidPooling(channels, channels, norm=norm, activation=activation)
    return nn.Identity()


def _build(spec: ModelSpec, *, defaults: dict[str, Any]) -> SegmentationModel:
    switches = switches_of(defaults | spec.arguments)
    net = UNet(spec.in_channels, spec.num_classes, switches=switches)
    return SegmentationModel(spec, net, encoder=None, input_size=unet_input_size(switches))


def _preset(number: str, line: str, changes: dict[str, Any]) -> ModelEntry:
    defaults = ARGUMENTS | changes
    return ModelEntry(
        build=partial(_build, defaults=defaults),
        paper=f"https://arxiv.org/abs/{number}",
        line=line,
        arguments=defaults,
        takes_encoder=False,
    )


UNETS: dict[str, ModelEntry] = {
    "unet": _preset("1505.04597", "plain U-Net from scratch: depth, width, norm, skips and more to choose", {}),
    "unet_valid": _preset(
        "1505.04597",
        "the U-Net of the paper: valid convolutions, cropped skips, no norm; heavy",
        {"width": 64, "padding": "valid", "norm": "none"},
    ),
    "unet_separable": _preset(
        "1610.02357", "U-Net of separable convolutions: few parameters", {"convolution": "separable"}
    ),
    "unet_vgg16": _preset(
        "1409.1556",
        "U-Net whose way down is VGG16, from scratch",
        {"width": (64, 128, 256, 512, 512), "convolutions": (2, 2, 3, 3, 3)},
    ),
    "resunet_attention": _preset(
        "1804.03999",
        "residual U-Net: attention gates, dilated bottleneck, instance norm, dropout",
        {
            "convolution": "residual",
            "skips": "attention",
            "bottleneck": "se_dilated",
            "norm": "instance",
            "dropout": 0.2,
        },
    ),
}
