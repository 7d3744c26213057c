"""One way down, several ways up side by side, each without skips and with a head of its own; all trained jointly.

A way up begins at each level below the finest: from the first it is short and sees little around a pixel but keeps
outlines, from the coarsest it sees the whole scene and blurs. The network's answer is the mean of the heads'
probabilities, as their logarithm. A mean of logits would multiply the probabilities: one head that is sure and wrong,
as the coarse ones are near outlines and the fine ones where the context decides, would veto the others. The finest head
alone would leave the context unused, since there are no skips to bring it up.

Heads at several depths: Lee et al. 2015, https://arxiv.org/abs/1409.5185; Xie and Tu 2015, whose heads are fused too,
https://arxiv.org/abs/1504.06375. Mean of probabilities: Hinton 2002 on products and mixtures of experts,
https://doi.org/10.1162/089976602760128018.
"""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise
from typing import Any, final

import torch
from torch import Tensor, nn

from segwright.models.blocks import (
    ACTIVATIONS,
    NORMS,
    ActivationName,
    BilinearUp,
    ConvolutionBlock,
    NormName,
    initialize,
    way_down,
)
from segwright.models.segmenter import InputSize, ModelEntry, ModelSpec, SegmentationModel
from segwright.models.unet_switches import UpName, check_levels, check_menus, check_share, check_width, ladder

FEWEST_LEVELS = 2


@final
class MultiHead(nn.Module):
    """(N, C, H, W) -> (N, K, H, W) log-probabilities; in training these, then each head's logits, deepest first.

    Args:
        in_channels: C.
        num_classes: K.
        depth: levels on the way down, one more than there are ways up; H and W are multiples of 2^(depth-1).
        width: channels of the finest level, doubled at each coarser one.
        norm: after each convolution.
        activation: after each norm.
        dropout: probability that a channel of the two coarsest levels is dropped on the way down.
        up: how the size is doubled.
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
        up: UpName,
    ) -> None:
        super().__init__()
        block = partial(ConvolutionBlock, norm=norm, activation=activation)
        widths = ladder(width, depth)
        self.down = way_down(in_channels, widths, norm=norm, activation=activation, dropout=dropout)
        self.pool = nn.MaxPool2d(2)

        def step_up(coarse: int, fine: int) -> nn.Sequential:
            double = nn.ConvTranspose2d(coarse, fine, 2, stride=2) if up == "transposed" else BilinearUp(coarse, fine)
            return nn.Sequential(double, block(fine, fine))

        self.up = nn.ModuleList(
            nn.Sequential(*(step_up(coarse, fine) for coarse, fine in pairwise(reversed(widths[: level + 1]))))
            for level in range(1, depth)
        )
        self.head = nn.ModuleList(nn.Conv2d(width, num_classes, 1) for _ in range(1, depth))
        initialize(self, activation=activation)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        features = []
        for level, block in enumerate(self.down):
            x = block(self.pool(x) if level else x)
            features.append(x)
        heads = [head(up(feature)).float() for up, head, feature in zip(self.up, self.head, features[1:], strict=True)][
            ::-1
        ]
        logs = torch.stack([head.log_softmax(1) for head in heads])
        fused = logs.logsumexp(0) - math.log(len(heads))
        return (fused, *heads) if self.training else fused


_DEFAULTS: dict[str, Any] = {
    "depth": 5,
    "width": 32,
    "norm": "batch",
    "activation": "relu",
    "dropout": 0.0,
    "up": "transposed",
}


def _build(spec: ModelSpec) -> SegmentationModel:
    chosen = _DEFAULTS | spec.arguments
    check_levels(spec.name, chosen["depth"], fewest=FEWEST_LEVELS)
    check_width(spec.name, chosen["width"])
    menus = {"norm": tuple(NORMS), "activation": tuple(ACTIVATIONS), "up": ("transposed", "bilinear")}
    check_menus(spec.name, chosen, menus)
    check_share(spec.name, "dropout", chosen["dropout"])
    net = MultiHead(spec.in_channels, spec.num_classes, **chosen)
    stride: int = 2 ** (chosen["depth"] - 1)
    return SegmentationModel(spec, net, encoder=None, input_size=InputSize(stride, minimum=2 * stride))


MULTIHEAD = ModelEntry(
    build=_build,
    paper="https://arxiv.org/abs/1409.5185",
    line="ways up from every depth side by side, without skips; their mean answers",
    arguments=_DEFAULTS,
    takes_encoder=False,
)
