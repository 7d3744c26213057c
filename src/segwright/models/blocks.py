"""Building blocks of our own networks: norms, activations, and the blocks of convolutions of a U-Net.

Batch norm: https://arxiv.org/abs/1502.03167. Instance norm: https://arxiv.org/abs/1607.08022. Group norm:
https://arxiv.org/abs/1803.08494. SiLU: https://arxiv.org/abs/1702.03118. Separable convolutions: Chollet 2017,
https://arxiv.org/abs/1610.02357. Residual blocks: He 2016, https://arxiv.org/abs/1512.03385, in a U-Net: Zhang 2018,
https://arxiv.org/abs/1711.10684. Stochastic depth: Huang 2016, https://arxiv.org/abs/1603.09382. Weights start as in He
2015, https://arxiv.org/abs/1502.01852.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, final

from torch import Tensor, nn
from torchvision.ops import StochasticDepth

NormName = Literal["batch", "instance", "group", "none"]
ActivationName = Literal["relu", "leaky_relu", "silu"]
PaddingName = Literal["same", "valid"]

LEAKY_SLOPE = 0.01
_GROUP_CHANNELS = 16
_ONEDNN_BLOCK = 16


def _group_norm(channels: int) -> nn.Module:
    """About 16 channels a group, which the paper found best; a number of groups that divides the channels."""
    groups = max(1, channels // _GROUP_CHANNELS)
    while channels % groups:
        groups -= 1
    return nn.GroupNorm(groups, channels)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "instance": lambda channels: nn.InstanceNorm2d(channels, affine=True),
    "group": _group_norm,
    "none": lambda channels: nn.Identity(),
}
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "leaky_relu": lambda: nn.LeakyReLU(LEAKY_SLOPE, inplace=True),
    "silu": lambda: nn.SiLU(inplace=True),
}


def convolution(
    in_channels: int, out_channels: int, *, separable: bool = False, padding: int = 1, dilation: int = 1, bias: bool
) -> nn.Module:
    """A 3x3 convolution; separable: each channel by itself, then a 1x1 convolution over all of them."""
    if not separable:
        return nn.Conv2d(in_channels, out_channels, 3, padding=padding, dilation=dilation, bias=bias)
    depthwise = nn.Conv2d(
        in_channels, in_channels, 3, padding=padding, dilation=dilation, groups=in_channels, bias=False
    )
    return nn.Sequential(depthwise, nn.Conv2d(in_channels, out_channels, 1, bias=bias))


@final
class ConvolutionBlock(nn.Sequential):
    """Some times 3x3 convolution, norm, activation; dropout of whole channels at the end.

    (N, in_channels, H, W) -> (N, out_channels, H, W), or two pixels smaller a valid convolution.

    Args:
        in_channels: of the input.
        out_channels: of every convolution.
        norm: after each convolution.
        activation: after each norm.
        padding: of the convolutions.
        dropout: probability that a channel is dropped.
        convolutions: how many.
        separable: whether they are depthwise separable.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        norm: NormName,
        activation: ActivationName,
        padding: PaddingName = "same",
        dropout: float = 0.0,
        convolutions: int = 2,
        separable: bool = False,
    ) -> None:
        layers: list[nn.Module] = []
        for channels in [in_channels, *[out_channels] * (convolutions - 1)]:
            layers += [
                convolution(
                    channels, out_channels, separable=separable, padding=int(padding == "same"), bias=norm == "none"
                ),
                NORMS[norm](out_channels),
                ACTIVATIONS[activation](),
            ]
        if dropout > 0:
            layers.append(nn.Dropout2d(dropout))
        super().__init__(*layers)


@final
class ResidualBlock(nn.Module):
    """The input, projected where the channels differ, plus what some convolutions make of it; then the activation.

    (N, in_channels, H, W) -> (N, out_channels, H, W), or two pixels smaller a valid convolution. Dropout stands inside
    the branch, so that the way past it stays whole.

    Args:
        in_channels: of the input.
        out_channels: of every convolution.
        norm: after each convolution.
        activation: after each norm, and after the sum.
        padding: of the convolutions; with "valid" the shortcut is cropped.
        dropout: probability that a channel of the branch is dropped.
        convolutions: how many in the branch.
        stochastic_depth: probability that an image skips the branch in training.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        norm: NormName,
        activation: ActivationName,
        padding: PaddingName = "same",
        dropout: float = 0.0,
        convolutions: int = 2,
        stochastic_depth: float = 0.0,
    ) -> None:
        super().__init__()
        block = ConvolutionBlock(
            in_channels,
            out_channels,
            norm=norm,
            activation=activation,
            padding=padding,
            dropout=dropout,
            convolutions=convolutions,
        )
        last_activation = 3 * convolutions - 1
        self.branch = nn.Sequential(*(layer for place, layer in enumerate(block) if place != last_activation))
        self.depth = StochasticDepth(stochastic_depth, "row")
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            project = nn.Conv2d(in_channels, out_channels, 1, bias=norm == "none")
            self.shortcut = nn.Sequential(project, NORMS[norm](out_channels))
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        branch = self.depth(self.branch(x))
        result: Tensor = self.activation(center_crop(self.shortcut(x), like=branch) + branch)
        return result


def way_down(
    in_channels: int, widths: Sequence[int], *, norm: NormName, activation: ActivationName, dropout: float
) -> nn.ModuleList:
    """A block of two convolutions for each level, finest first; dropout after those of the two coarsest."""
    return nn.ModuleList(
        ConvolutionBlock(
            before, after, norm=norm, activation=activation, dropout=dropout if level >= len(widths) - 2 else 0.0
        )
        for level, (before, after) in enumerate(zip([in_channels, *widths], widths, strict=False))
    )


@final
class BilinearUp(nn.Module):
    """Twice the size, other channels: a 1x1 convolution, then bilinear interpolation.

    Both are linear and the weights of the interpolation sum to 1, so the order changes nothing but the cost, which is a
    quarter this way round.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.interpolate(self.project(x), scale_factor=2, mode="bilinear", align_corners=False)


def initialize(module: nn.Module, *, activation: ActivationName) -> None:
    """He's normal initialisation of every convolution below `module`, biases at 0."""
    slope = LEAKY_SLOPE if activation == "leaky_relu" else 0.0
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(layer.weight, a=slope)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def stride_pointwise_by_slicing(net: nn.Module) -> None:
    """Let strided 1x1 convolutions of few channels take every n-th pixel of their input; the result is the same.

    The gradient of such a layer in channels-last order writes beyond its memory in oneDNN on CPUs (as of torch 2.15,
    https://github.com/uxlfoundation/oneDNN/issues/6035): wrong numbers or a crash, as in MobileOne's first block.
    """
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.stride != (1, 1):
            padded = any(layer.padding) if isinstance(layer.padding, tuple) else layer.padding == "same"
            if layer.groups == 1 and layer.in_channels < _ONEDNN_BLOCK and not padded:
                layer.register_forward_pre_hook(partial(_sliced, stride=layer.stride))
                layer.stride = (1, 1)


def _sliced(layer: nn.Module, inputs: tuple[Any, ...], *, stride: tuple[int, ...]) -> tuple[Any, ...]:
    return (inputs[0][..., :: stride[0], :: stride[1]], *inputs[1:])


def start_silent(layer: nn.Conv2d | nn.Linear) -> None:
    """Let a layer begin at zero, whatever initialisation is asked for: it corrects, and has to learn what."""
    nn.init.zeros_(layer.weight)
    layer.starts_silent = True  # type: ignore[assignment]  # read by `initialization`


def center_crop(x: Tensor, like: Tensor) -> Tensor:
    """The middle of `x`, as large as `like`."""
    top, left = ((x.shape[axis] - like.shape[axis]) // 2 for axis in (-2, -1))
    return x[..., top : top + like.shape[-2], left : left + like.shape[-1]]
