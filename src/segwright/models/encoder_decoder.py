"""Encoders and decoders without the usual skips: the networks that a course project on PASCAL VOC 2007 built.

    encoder_decoder        five strided convolutions down, five strided transposed convolutions up; 5,500,245 parameters
    residual_autoencoder   the same with a second convolution a step up, and the encoder's feature added; 8,643,893
    unet_without_pooling   a U-Net whose ten valid convolutions alone shrink the image (224 -> 204); 34,526,421
    baseline_decoder       the decoder of the first over any encoder, frozen or not

Counts are for three channels, 21 classes and the widths that stand as defaults. Transposed convolutions: Zeiler 2010,
https://doi.org/10.1109/CVPR.2010.5539957; convolutional encoder and decoder for segmentation: Noh 2015,
https://arxiv.org/abs/1505.04366. As there, the norm follows the activation.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, final

import torch
from torch import Tensor, nn

from segwright.errors import RecipeError, nearest
from segwright.models.blocks import ACTIVATIONS, ActivationName, center_crop, initialize
from segwright.models.library import build_encoder
from segwright.models.segmenter import InputSize, ModelEntry, ModelSpec, SegmentationModel

LEVELS = 5
"""Strided steps down and up; sides are multiples of 2 ** LEVELS."""
SMALLEST_UNPOOLED_PX = 24
"""Ten valid convolutions leave 4 pixels of this; a step up from fewer would not cover its skip."""


def _step_down(in_channels: int, out_channels: int, *, activation: ActivationName) -> nn.Sequential:
    """Half the size: strided convolution, activation, norm."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1),
        ACTIVATIONS[activation](),
        nn.BatchNorm2d(out_channels),
    )


def _step_up(in_channels: int, out_channels: int, *, activation: ActivationName) -> nn.Sequential:
    """Twice the size: strided transposed convolution, activation, norm."""
    return nn.Sequential(
        nn.ConvTranspose2d(in_channels, out_channels, 3, stride=2, padding=1, output_padding=1),
        ACTIVATIONS[activation](),
        nn.BatchNorm2d(out_channels),
    )


@final
class EncoderDecoder(nn.Module):
    """The plain one: (N, C, H, W) -> (N, K, H, W), H and W multiples of 32.

    Args:
        in_channels: C.
        num_classes: K.
        width: channels of the first step; doubled at each step down.
        activation: after every convolution.
    """

    def __init__(self, in_channels: int, num_classes: int, *, width: int, activation: ActivationName) -> None:
        super().__init__()
        widths = _widths(width)
        self.down = nn.Sequential(
            *(_step_down(a, b, activation=activation) for a, b in pairwise([in_channels, *widths]))
        )
        self.up = nn.Sequential(
            *(_step_up(a, b, activation=activation) for a, b in pairwise([widths[-1], *reversed(widths)]))
        )
        self.head = nn.Conv2d(width, num_classes, 1)
        initialize(self, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.up(self.down(x)))
        return logits


@final
class ResidualAutoencoder(nn.Module):
    """The same encoder; a step up adds the encoder's feature of its size after a second convolution.

    The feature has half the channels of the step it is added to, and the report's parameter count leaves none for a
    projection: its channels are repeated. There is no skip at full size, where the encoder has no feature.

    Args:
        in_channels: C.
        num_classes: K.
        width: channels of the first step; doubled at each step down.
        activation: after every strided convolution.
        skips: whether the encoder's features are added.
    """

    def __init__(
        self, in_channels: int, num_classes: int, *, width: int, activation: ActivationName, skips: bool
    ) -> None:
        super().__init__()
        widths = _widths(width)
        wide = [widths[-1], *reversed(widths)]
        self.skips = skips
        self.down = nn.ModuleList(_step_down(a, b, activation=activation) for a, b in pairwise([in_channels, *widths]))
        self.up = nn.ModuleList(_step_up(a, b, activation=activation) for a, b in pairwise(wide))
        self.refine = nn.ModuleList(nn.ConvTranspose2d(b, b, 3, padding=1) for b in wide[1:])
        self.head = nn.Conv2d(width, num_classes, 1)
        initialize(self, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        features = []
        for down in self.down:
            x = down(x)
            features.append(x)
        features.pop()
        for up, refine in zip(self.up, self.refine, strict=True):
            x = refine(up(x))
            if features and self.skips:
                skip = features.pop()
                x = x + skip.repeat(1, x.shape[1] // skip.shape[1], 1, 1)
        logits: Tensor = self.head(x)
        return logits


def _pair(in_channels: int, out_channels: int, *, padding: int, activation: ActivationName) -> nn.Sequential:
    """Twice 3x3 convolution, activation, norm."""
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        layers += [
            nn.Conv2d(channels, out_channels, 3, padding=padding),
            ACTIVATIONS[activation](),
            nn.BatchNorm2d(out_channels),
        ]
    return nn.Sequential(*layers)


@final
class UNetWithoutPooling(nn.Module):
    """A U-Net that keeps almost the full size at every level: (N, C, H, W) -> (N, K, H, W), sides of 24 and more.

    Five pairs of valid 3x3 convolutions take 20 pixels off. On the way up a strided transposed convolution more than
    doubles the size, is cropped to the skip and joined with it; the last pair is padded by 2 and gives back the 4
    pixels that the first pair took. At 224 x 224 a forward pass costs 2.95 TFLOP at full width: take `width: 16` or
    less to train it without a large GPU.

    Args:
        in_channels: C.
        num_classes: K.
        width: channels of the first pair; doubled at each pair down.
        activation: after every convolution of a pair.
        skips: whether the features of the way down are joined; without them zeros are.
    """

    def __init__(
        self, in_channels: int, num_classes: int, *, width: int, activation: ActivationName, skips: bool
    ) -> None:
        super().__init__()
        widths = _widths(width)
        finer = list(reversed(widths[:-1]))
        self.skips = skips
        self.down = nn.ModuleList(
            _pair(a, b, padding=0, activation=activation) for a, b in pairwise([in_channels, *widths])
        )
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * fine, fine, 3, stride=2) for fine in finer)
        self.join = nn.ModuleList(
            _pair(2 * fine, fine, padding=2 if fine == width else 1, activation=activation) for fine in finer
        )
        self.head = nn.Conv2d(width, num_classes, 1)
        initialize(self, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        features = []
        for down in self.down:
            x = down(x)
            features.append(x)
        features.pop()
        for up, join in zip(self.up, self.join, strict=True):
            skip = features.pop()
            x = center_crop(up(x), like=skip)
            x = join(torch.cat([skip if self.skips else torch.zeros_like(skip), x], dim=1))
        logits: Tensor = self.head(x)
        return logits


@final
class BaselineDecoder(nn.Module):
    """The plain decoder over the coarsest feature of an encoder.

    Args:
        encoder: gives features from fine to coarse.
        in_channels: of its coarsest feature.
        steps: doublings from there to the full size.
        num_classes: K.
        width: channels of the last step; the first has width * 2 ** (steps - 1).
        activation: after every transposed convolution.
    """

    def __init__(
        self, encoder: nn.Module, *, in_channels: int, steps: int, num_classes: int, width: int,
        activation: ActivationName,
    ) -> None:  # fmt: skip
        super().__init__()
        self.encoder = encoder
        widths = [in_channels, *(width * 2**step for step in reversed(range(steps)))]
        self.up = nn.Sequential(*(_step_up(a, b, activation=activation) for a, b in pairwise(widths)))
        self.head = nn.Conv2d(width, num_classes, 1)
        for part in (self.up, self.head):
            initialize(part, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.up(self.encoder(x)[-1]))
        return logits


def _widths(width: int) -> list[int]:
    return [width * 2**level for level in range(LEVELS)]


def _checked(spec: ModelSpec, defaults: dict[str, Any]) -> dict[str, Any]:
    chosen = defaults | spec.arguments
    width = chosen["width"]
    if isinstance(width, bool) or not isinstance(width, int) or width < 1:
        raise RecipeError(f"{spec.name}: width {width}", mend="use at least one channel")
    if chosen["activation"] not in ACTIVATIONS:
        raise RecipeError(
            f"{spec.name}: activation '{chosen['activation']}'", mend=nearest(str(chosen["activation"]), ACTIVATIONS)
        )
    return chosen


def _build_encoder_decoder(spec: ModelSpec) -> SegmentationModel:
    net = EncoderDecoder(spec.in_channels, spec.num_classes, **_checked(spec, _PLAIN))
    return SegmentationModel(spec, net, encoder=None, input_size=_SIZE, lone_image=False)


def _build_residual_autoencoder(spec: ModelSpec) -> SegmentationModel:
    net = ResidualAutoencoder(spec.in_channels, spec.num_classes, **_checked(spec, _WITH_SKIPS))
    return SegmentationModel(spec, net, encoder=None, input_size=_SIZE, lone_image=False)


def _build_unet_without_pooling(spec: ModelSpec) -> SegmentationModel:
    net = UNetWithoutPooling(spec.in_channels, spec.num_classes, **_checked(spec, _UNPOOLED))
    return SegmentationModel(spec, net, encoder=None, input_size=InputSize(1, minimum=SMALLEST_UNPOOLED_PX))


def _build_baseline_decoder(spec: ModelSpec) -> SegmentationModel:
    chosen = _checked(spec, _PLAIN)
    encoder = build_encoder(spec)
    channels: Sequence[int] = encoder.out_channels  # type: ignore[assignment]  # a list of the library's
    stride = int(encoder.output_stride)  # type: ignore[arg-type]  # an int of the library's
    net = BaselineDecoder(
        encoder, in_channels=channels[-1], steps=stride.bit_length() - 1, num_classes=spec.num_classes, **chosen
    )
    size = InputSize(stride, minimum=2 * stride)
    return SegmentationModel(spec, net, encoder=encoder, input_size=size, lone_image=False)


_SIZE = InputSize(2**LEVELS, minimum=2 ** (LEVELS + 1))
_PLAIN: dict[str, Any] = {"width": 32, "activation": "relu"}
_WITH_SKIPS: dict[str, Any] = {**_PLAIN, "skips": True}
_UNPOOLED: dict[str, Any] = {"width": 64, "activation": "relu", "skips": True}

ENCODER_DECODERS: dict[str, ModelEntry] = {
    "encoder_decoder": ModelEntry(
        build=_build_encoder_decoder,
        paper="https://arxiv.org/abs/1505.04366",
        line="plain strided convolutions down and up, no skips: a baseline",
        arguments=_PLAIN,
        takes_encoder=False,
    ),
    "residual_autoencoder": ModelEntry(
        build=_build_residual_autoencoder,
        paper="https://arxiv.org/abs/1606.08921",
        line="the baseline with encoder features added on the way up",
        arguments=_WITH_SKIPS,
        takes_encoder=False,
    ),
    "unet_without_pooling": ModelEntry(
        build=_build_unet_without_pooling,
        paper="https://arxiv.org/abs/1505.04597",
        line="U-Net of valid convolutions alone, almost full size at every level: very slow",
        arguments=_UNPOOLED,
        takes_encoder=False,
    ),
    "baseline_decoder": ModelEntry(
        build=_build_baseline_decoder,
        paper="https://arxiv.org/abs/1505.04366",
        line="transposed convolutions over the last feature of any encoder",
        arguments=_PLAIN,
        takes_encoder=True,
    ),
}
