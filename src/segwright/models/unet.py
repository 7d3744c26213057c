"""U-Net: Ronneberger, Fischer, Brox 2015, https://arxiv.org/abs/1505.04597; without an encoder from elsewhere.

Level l (0 is the finest) has width * 2^l channels at 1 / 2^l of the size. The way down ends in the coarsest level; the
way up doubles the size, joins the skip of the same level and convolves twice. The paper's own network is
`width=64, norm="none", padding="valid"`; batch norm and padded convolutions are what later work settled on.

Every valid convolution takes a pixel off each side. With L = depth - 1 halvings and a coarsest input of b pixels, the
input has 2^L b + 4 (2^L - 1) pixels and the output 2^L (b - 4) - 4 (2^L - 1): 572 and 388 in the paper.
"""

from __future__ import annotations

import inspect
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from segwright.errors import RecipeError, nearest
from segwright.models.blocks import (
    ACTIVATIONS,
    NORMS,
    ActivationName,
    BilinearUp,
    DoubleConvolution,
    NormName,
    PaddingName,
    center_crop,
    initialize,
)
from segwright.models.segmenter import InputSize, ModelSpec, SegmentationModel

UpName = Literal["transposed", "bilinear"]

_MENUS: dict[str, tuple[str, ...]] = {
    "norm": tuple(NORMS),
    "activation": tuple(ACTIVATIONS),
    "padding": ("same", "valid"),
    "up": ("transposed", "bilinear"),
}
_MOST_LEVELS = 8


@final
class UNet(nn.Module):
    """The network: (N, C, H, W) normalised -> (N, K, H, W), or smaller by the margin with valid convolutions."""

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        depth: int = 5,
        width: int = 32,
        norm: NormName = "batch",
        activation: ActivationName = "relu",
        dropout: float = 0.0,
        padding: PaddingName = "same",
        up: UpName = "transposed",
    ) -> None:
        """Build the network.

        Args:
            in_channels: C.
            num_classes: K.
            depth: levels, the coarsest included.
            width: channels of the finest level, doubled at each coarser one.
            norm: after each convolution.
            activation: after each norm.
            dropout: probability that a channel of the two coarsest levels is dropped on the way down, as at the end of
                the paper's contracting path.
            padding: of the 3x3 convolutions.
            up: how the size is doubled.
        """
        super().__init__()
        widths = [width * 2**level for level in range(depth)]
        self.down = nn.ModuleList(
            DoubleConvolution(
                before,
                after,
                norm=norm,
                activation=activation,
                padding=padding,
                dropout=dropout if level >= depth - 2 else 0.0,
            )
            for level, (before, after) in enumerate(zip([in_channels, *widths], widths, strict=False))
        )
        self.pool = nn.MaxPool2d(2)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(2 * fine, fine, 2, stride=2) if up == "transposed" else BilinearUp(2 * fine, fine)
            for fine in reversed(widths[:-1])
        )
        self.join = nn.ModuleList(
            DoubleConvolution(2 * fine, fine, norm=norm, activation=activation, padding=padding)
            for fine in reversed(widths[:-1])
        )
        self.head = nn.Conv2d(width, num_classes, 1)
        initialize(self, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        features = []
        for block in self.down[:-1]:
            x = block(x)
            features.append(x)
            x = self.pool(x)
        x = self.down[-1](x)
        for up, join in zip(self.up, self.join, strict=True):
            x = up(x)
            x = join(torch.cat([center_crop(features.pop(), like=x), x], dim=1))
        logits: Tensor = self.head(x)
        return logits


ARGUMENTS: dict[str, Any] = {
    name: parameter.default
    for name, parameter in inspect.signature(UNet).parameters.items()
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY
}


def build_unet(spec: ModelSpec) -> SegmentationModel:
    """A U-Net with all that stands around it.

    Raises:
        RecipeError: an argument is out of range.
    """
    arguments = {**ARGUMENTS, **spec.arguments}
    _check(arguments)
    net = UNet(spec.in_channels, spec.num_classes, **arguments)
    size = unet_input_size(depth=arguments["depth"], padding=arguments["padding"])
    return SegmentationModel(spec, net, encoder=None, input_size=size)


def unet_input_size(*, depth: int, padding: PaddingName) -> InputSize:
    """The sides that a U-Net takes; see the file's head for the sums."""
    stride: int = 2 ** (depth - 1)
    if padding == "same":
        return InputSize(stride, minimum=2 * stride)
    lost = 4 * (stride - 1)
    # A coarsest input of 8 pixels is the smallest that leaves pixels at every level: 4 in the output.
    return InputSize(stride, offset=lost % stride, margin=2 * stride + lost, minimum=8 * stride + lost)


def _check(arguments: dict[str, Any]) -> None:
    for name, menu in _MENUS.items():
        if arguments[name] not in menu:
            raise RecipeError(f"unet: {name} '{arguments[name]}'", mend=nearest(str(arguments[name]), menu))
    depth, width, dropout = (arguments[name] for name in ("depth", "width", "dropout"))
    if not _is_count(depth) or not 1 <= depth <= _MOST_LEVELS:
        raise RecipeError(f"unet: depth {depth}", mend=f"use 1 to {_MOST_LEVELS} levels")
    if not _is_count(width) or width < 1:
        raise RecipeError(f"unet: width {width}", mend="use at least one channel")
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise RecipeError(f"unet: dropout {dropout}", mend="use a number from 0 to below 1")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
