"""Two networks in parallel, fused by a small third.

Two course projects built it: a local U-Net beside a global network, and a U-Net beside an autoencoder, each first
trained by itself and then fused. The nearest in print is BiSeNet's pair of a fine and a wide path with a module that
joins them (Yu et al. 2018, https://arxiv.org/abs/1808.00897).

The third network reads the probabilities of both, joined along the channels, and corrects the mean of their logits:
its last convolution starts near zero, so that fusing two trained networks begins at their mean and not at noise. (It
reads probabilities, since logits of two networks differ in scale, and are huge where a class is never predicted.)
While it trains the model answers with three heads: the fused logits, and those of both branches, so that each keeps
learning by itself.

Both branches are the model's encoder: `freeze_encoder` holds both, `encoder_lr_factor` slows them.

Symbols: N images, C channels, K classes, H W rows and columns.
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn

from segwright.errors import RecipeError
from segwright.models.blocks import NORMS, initialize, start_silent
from segwright.models.branches import Branches, Build, build_branches
from segwright.models.segmenter import InputSize, ModelEntry, ModelSpec, SegmentationModel
from segwright.types import Head

_FIRST_STD = 1e-3


@final
class Fusion(nn.Module):
    """Logits of two networks, twice (N, K, H, W), to one (N, K, H, W): their mean and a correction.

    Args:
        num_classes: K.
        width: channels between the two convolutions.
    """

    def __init__(self, num_classes: int, *, width: int) -> None:
        super().__init__()
        self.correct = nn.Sequential(
            nn.Conv2d(2 * num_classes, width, 3, padding=1, bias=False),
            NORMS["batch"](width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, num_classes, 3, padding=1),
        )
        initialize(self, activation="relu")
        last = self.correct[-1]
        assert isinstance(last, nn.Conv2d)
        start_silent(last)
        nn.init.normal_(last.weight, std=_FIRST_STD)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        correction: Tensor = self.correct(torch.cat([first.softmax(dim=1), second.softmax(dim=1)], dim=1))
        return (first + second) / 2 + correction


@final
class Dual(nn.Module):
    """Two models and their fusion: (N, C, H, W) -> (N, K, H, W); in training that, and the logits of both branches.

    Args:
        branches: the two models.
        num_classes: K.
        width: of the fusion.
    """

    def __init__(self, branches: Branches, *, num_classes: int, width: int) -> None:
        super().__init__()
        self.heads = (Head("main"), Head("first"), Head("second"))
        self.branches = branches
        self.fusion = Fusion(num_classes, width=width)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        first, second = self.branches(x)
        fused: Tensor = self.fusion(first, second)
        return (fused, first, second) if self.training else fused


ARGUMENTS: dict[str, Any] = {"first": "unet", "second": "residual_autoencoder", "fusion_width": 16}


def dual_entry(build: Build) -> ModelEntry:
    """The row of the table.

    Args:
        build: makes a branch.
    """

    def build_dual(spec: ModelSpec) -> SegmentationModel:
        chosen = ARGUMENTS | spec.arguments
        width = chosen["fusion_width"]
        if not isinstance(width, int) or isinstance(width, bool) or width < 1:
            raise RecipeError(f"{spec.name}: fusion_width {width}", mend="use at least one channel")
        branches = build_branches(spec, first=chosen["first"], second=chosen["second"], build=build)
        net = Dual(branches, num_classes=spec.num_classes, width=width)
        return SegmentationModel(spec, net, encoder=branches, input_size=InputSize(1))

    return ModelEntry(
        build=build_dual,
        paper="https://arxiv.org/abs/1808.00897",
        line="two models in parallel, fused by a small third; fresh, or from two trained runs (model.branches)",
        arguments=ARGUMENTS,
        takes_encoder=False,
    )
