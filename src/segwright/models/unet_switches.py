"""What our U-Net may be told, checked; and the widths and sizes that follow from it.

Level l (0 is the finest) has width * 2^l channels, or those that `width` lists; further levels have as many as the one
above them. Every valid 3x3 convolution takes a pixel off each side. With S = 2^L, L halvings, c_l convolutions at level
l on the way down, two on the way up, and a coarsest input of b pixels:

    input   S b + sum over l < L of 2 c_l 2^l                 572 in Ronneberger 2015, https://arxiv.org/abs/1505.04597
    output  S (b - 2 c_L) - 4 (S - 1)                         388
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from segwright.errors import RecipeError, nearest
from segwright.models.blocks import ACTIVATIONS, NORMS, ActivationName, NormName, PaddingName
from segwright.models.segmenter import InputSize

ConvolutionName = Literal["plain", "separable", "separable_decoder", "residual"]
SkipName = Literal["concatenate", "add", "residual", "se", "attention", "none"]
UpName = Literal["transposed", "bilinear"]
BottleneckName = Literal["plain", "se_dilated", "aspp", "ppm"]

MOST_LEVELS = 8
_MENUS: dict[str, tuple[str, ...]] = {
    "convolution": get_args(ConvolutionName),
    "padding": get_args(PaddingName),
    "norm": tuple(NORMS),
    "activation": tuple(ACTIVATIONS),
    "skips": get_args(SkipName),
    "up": get_args(UpName),
    "bottleneck": get_args(BottleneckName),
}
_UP_CONVOLUTIONS = 2
_SMALLEST_COARSEST_PX = 4


@dataclass(frozen=True)
class UNetSwitches:
    """The switches of the U-Net.

    Attributes:
        depth: levels, the coarsest included.
        width: channels of the finest level, doubled at each coarser one; or those of every level, finest first.
        convolution: `plain`; `separable` (all but the very first, which has too few channels to do without the others)
            or `separable_decoder` (those of the way up): depthwise and 1x1; `residual`: blocks with a shortcut.
        convolutions: of a level on the way down; one number, or one a level. The way up always has two.
        padding: of the 3x3 convolutions; `valid` crops the skips, and the image gets a margin by reflection.
        norm: after each convolution.
        activation: after each norm.
        dropout: probability that a channel of the two coarsest levels is dropped on the way down, as at the end of the
            paper's contracting path.
        stochastic_depth: probability that an image skips the last residual block; those before skip less, linearly.
        skips: how the way down is joined: `concatenate`, `add`, not at all (`none`), or concatenated after a residual
            block, squeeze and excitation (`se`), or an attention gate.
        up: how the size is doubled.
        bottleneck: what follows the coarsest level: nothing (`plain`), parallel dilated convolutions with squeeze and
            excitation (`se_dilated`), atrous pyramid pooling (`aspp`) or pyramid pooling (`ppm`).
        extra_levels: further levels below the coarsest, without more channels.
    """

    depth: int = 5
    width: int | Sequence[int] = 32
    convolution: ConvolutionName = "plain"
    convolutions: int | Sequence[int] = 2
    padding: PaddingName = "same"
    norm: NormName = "batch"
    activation: ActivationName = "relu"
    dropout: float = 0.0
    stochastic_depth: float = 0.0
    skips: SkipName = "concatenate"
    up: UpName = "transposed"
    bottleneck: BottleneckName = "plain"
    extra_levels: int = 0

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of every level, finest first."""
        if isinstance(self.width, int):
            return self._further(ladder(self.width, self.depth))
        return self._further(self.width)

    @property
    def convolutions_down(self) -> tuple[int, ...]:
        """Convolutions of every level on the way down."""
        if isinstance(self.convolutions, int):
            return self._further([self.convolutions] * self.depth)
        return self._further(self.convolutions)

    def _further(self, values: Sequence[int]) -> tuple[int, ...]:
        return (*values, *[values[-1]] * self.extra_levels)


ARGUMENTS: dict[str, Any] = {entry.name: entry.default for entry in fields(UNetSwitches)}


def switches_of(chosen: Mapping[str, Any]) -> UNetSwitches:
    """The switches that a recipe names.

    Args:
        chosen: a value for each of `ARGUMENTS`, of any kind.

    Raises:
        RecipeError: a value is out of range.
    """
    check_menus("unet", chosen, _MENUS)
    depth, extra, chance = chosen["depth"], chosen["extra_levels"], chosen["stochastic_depth"]
    check_levels("unet", depth)
    if not _is_count(extra) or not 0 <= extra <= MOST_LEVELS - depth:
        raise RecipeError(f"unet: extra_levels {extra}", mend=f"use 0 to {MOST_LEVELS - depth} at depth {depth}")
    for name in ("width", "convolutions"):
        _check_counts(name, chosen[name], depth=depth)
    check_share("unet", "dropout", chosen["dropout"])
    check_share("unet", "stochastic_depth", chance)
    if chance and chosen["convolution"] != "residual":
        problem = f"unet: stochastic_depth {chance} without residual blocks"
        raise RecipeError(problem, mend="set convolution to residual, or stochastic_depth to 0")
    return UNetSwitches(**chosen)


def unet_input_size(switches: UNetSwitches) -> InputSize:
    """The sides that a U-Net takes; see the file's head for the sums."""
    counts = switches.convolutions_down
    stride: int = 2 ** (len(counts) - 1)
    if switches.padding == "same":
        return InputSize(stride, minimum=2 * stride)
    lost = sum(2 * count * 2**level for level, count in enumerate(counts[:-1]))
    lost_after = 2 * stride * counts[-1] + 2 * _UP_CONVOLUTIONS * (stride - 1)
    # Of a coarsest output of 4 pixels the way up leaves 4: fewer would leave none.
    smallest = 2 * counts[-1] + _SMALLEST_COARSEST_PX
    return InputSize(stride, offset=lost % stride, margin=(lost + lost_after) // 2, minimum=smallest * stride + lost)


def ladder(width: int, depth: int) -> list[int]:
    """Channels of each level, doubled at each coarser one."""
    return [width * 2**level for level in range(depth)]


def check_menus(model: str, values: Mapping[str, Any], menus: Mapping[str, tuple[str, ...]]) -> None:
    """Refuse a word that is on no menu.

    Raises:
        RecipeError: names it, and the nearest.
    """
    for name, menu in menus.items():
        if values[name] not in menu:
            raise RecipeError(f"{model}: {name} '{values[name]}'", mend=nearest(str(values[name]), menu))


def check_levels(model: str, depth: object, *, fewest: int = 1) -> None:
    """Refuse a number of levels that is out of range.

    Raises:
        RecipeError: names it.
    """
    if not isinstance(depth, int) or not _is_count(depth) or not fewest <= depth <= MOST_LEVELS:
        raise RecipeError(f"{model}: depth {depth}", mend=f"use {fewest} to {MOST_LEVELS} levels")


def check_width(model: str, width: object) -> None:
    """Refuse what is no number of channels.

    Raises:
        RecipeError: names it.
    """
    if not isinstance(width, int) or not _is_count(width) or width < 1:
        raise RecipeError(f"{model}: width {width}", mend="use at least one channel")


def check_share(model: str, name: str, value: object) -> None:
    """Refuse what is no probability below 1.

    Raises:
        RecipeError: names it.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise RecipeError(f"{model}: {name} {value}", mend="use a number from 0 to below 1")


def _check_counts(name: str, value: object, *, depth: int) -> None:
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) != depth:
            raise RecipeError(f"unet: {name} {list(value)} at depth {depth}", mend=f"give {depth} numbers, or one")
        numbers: Sequence[object] = value
    else:
        numbers = [value]
    if not all(_is_count(number) and number >= 1 for number in numbers):  # type: ignore[operator]  # an int by then
        raise RecipeError(f"unet: {name} {value}", mend="use whole numbers of at least 1")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
