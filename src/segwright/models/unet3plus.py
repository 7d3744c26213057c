"""U-Net 3+: every level of the way up sees all levels at once. Huang et al. 2020, https://arxiv.org/abs/2004.08790.

With L levels of widths w 2^l on the way down, a level of the way up takes from each of the L scales w channels: pooled
from the finer levels of the way down, as it is from its own, enlarged from the coarser ones of the way up. The L w
channels are blended by one convolution. Each level has a head of its own while it trains (deep supervision). The
paper's classification branch for organs that are absent is left out: a segmentation has no such label.
"""

from __future__ import annotations

from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segwright.errors import RecipeError
from segwright.models.blocks import ACTIVATIONS, NORMS, ActivationName, ConvolutionBlock, NormName, initialize, way_down
from segwright.models.segmenter import InputSize, ModelEntry, ModelSpec, SegmentationModel
from segwright.models.unet_switches import check_levels, check_menus, check_share, check_width, ladder

FEWEST_LEVELS = 2


@final
class UNet3Plus(nn.Module):
    """(N, C, H, W) -> (N, K, H, W); in training a tuple of one such for each level, the finest first.

    Args:
        in_channels: C.
        num_classes: K.
        depth: levels L, the coarsest included; H and W are multiples of 2^(L-1).
        width: channels of the finest level, and of each scale on the way up; 64 in the paper.
        norm: after each convolution.
        activation: after each norm.
        dropout: probability that a channel of the two coarsest levels is dropped on the way down.
        deep_supervision: whether each level has a head in training, or only the finest.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        depth: int,
        width: int,
        norm: NormName,
        activation: ActivationName,
        dropout: float,
        deep_supervision: bool,
    ) -> None:
        super().__init__()
        block = partial(ConvolutionBlock, norm=norm, activation=activation)
        widths = ladder(width, depth)
        joined = depth * width
        self.down = way_down(in_channels, widths, norm=norm, activation=activation, dropout=dropout)
        # Channels that level `place` of the way up takes from `scale`; the coarsest of both ways is the same.
        of_scale = [*[joined] * (depth - 1), widths[-1]]
        self.scales = nn.ModuleList(
            nn.ModuleList(
                block(widths[scale] if scale <= place else of_scale[scale], width, convolutions=1)
                for scale in range(depth)
            )
            for place in range(depth - 1)
        )
        self.blends = nn.ModuleList(block(joined, joined, convolutions=1) for _ in range(depth - 1))
        heads = of_scale if deep_supervision else of_scale[:1]
        self.head = nn.ModuleList(nn.Conv2d(channels, num_classes, 3, padding=1) for channels in heads)
        initialize(self, activation=activation)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        size = x.shape[-2:]
        features = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            features.append(x)
        # From the coarsest on, each level of the way up takes the place of the way down's.
        for place in reversed(range(len(self.blends))):
            features[place] = self._level(place, features)
        if not self.training or len(self.head) == 1:
            logits: Tensor = self.head[0](features[0])
            return logits
        return tuple(_resized(head(feature), size) for head, feature in zip(self.head, features, strict=True))

    def _level(self, place: int, features: list[Tensor]) -> Tensor:
        size = features[place].shape[-2:]
        blocks = self.scales[place]
        assert isinstance(blocks, nn.ModuleList)
        parts = []
        for scale, (feature, block) in enumerate(zip(features, blocks, strict=True)):
            sized = F.max_pool2d(feature, 2 ** (place - scale)) if scale < place else _resized(feature, size)
            parts.append(block(sized))
        blended: Tensor = self.blends[place](torch.cat(parts, dim=1))
        return blended


def _resized(x: Tensor, size: torch.Size) -> Tensor:
    return x if x.shape[-2:] == size else F.interpolate(x, size=size, mode="bilinear", align_corners=False)


_DEFAULTS: dict[str, Any] = {
    "depth": 5,
    "width": 32,
    "norm": "batch",
    "activation": "relu",
    "dropout": 0.0,
    "deep_supervision": True,
}


def _build(spec: ModelSpec) -> SegmentationModel:
    chosen = _DEFAULTS | spec.arguments
    check_levels(spec.name, chosen["depth"], fewest=FEWEST_LEVELS)
    check_width(spec.name, chosen["width"])
    check_menus(spec.name, chosen, {"norm": tuple(NORMS), "activation": tuple(ACTIVATIONS)})
    check_share(spec.name, "dropout", chosen["dropout"])
    if not isinstance(chosen["deep_supervision"], bool):
        raise RecipeError(f"{spec.name}: deep_supervision {chosen['deep_supervision']}", mend="use true or false")
    net = UNet3Plus(spec.in_channels, spec.num_classes, **chosen)
    stride: int = 2 ** (chosen["depth"] - 1)
    return SegmentationModel(spec, net, encoder=None, input_size=InputSize(stride, minimum=2 * stride))


UNET3PLUS = ModelEntry(
    build=_build,
    paper="https://arxiv.org/abs/2004.08790",
    line="U-Net 3+: full-scale skips, a head at each level in training; slow, fine detail",
    arguments=_DEFAULTS,
    takes_encoder=False,
)
