"""A weighted average of two models whose weights learn: 'UFormer', a U-Net and a SegFormer in a course project.

    p = w1 p1 + w2 p2,    (w1, w2) = softmax of two learnt numbers

With p1, p2 the probabilities (N, K, H, W) of the branches; it answers log p, whose softmax is p. So it starts at the
plain average of the two, and is trained as a whole: branches and weights. A learnt mixture of networks: Jacobs et al.
1991, https://doi.org/10.1162/neco.1991.3.1.79, without the gate by image. (Not the Uformer of image restoration.)

While it trains it answers with both branches too, which are taught only where `loss.heads` names them: in stages a
recipe can train `first`, then `second`, then the whole (`loss.heads: [main]`).

Both branches are the model's encoder: `freeze_encoder` holds both and trains the weights alone.
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segwright.models.branches import Branches, Build, branch_arguments, build_branches
from segwright.models.segmenter import InputSize, ModelEntry, ModelSpec, SegmentationModel
from segwright.types import Head


@final
class UFormer(nn.Module):
    """Average of two models: (N, C, H, W) -> log-probabilities (N, K, H, W), float32; in training those of both too.

    Args:
        branches: the two models.
    """

    heads = (Head("main"), Head("first", on_demand=True), Head("second", on_demand=True))

    def __init__(self, branches: Branches) -> None:
        super().__init__()
        self.branches = branches
        self.weight = nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        first, second = self.branches(x)
        weights = F.log_softmax(self.weight, dim=0)
        # In float32: half precision would round away what a small share of one branch adds.
        shares = [F.log_softmax(logits.float(), dim=1) for logits in (first, second)]
        average = torch.logaddexp(weights[0] + shares[0], weights[1] + shares[1])
        return (average, first, second) if self.training else average


ARGUMENTS: dict[str, Any] = {"first": "unet", "second": {"name": "segformer", "encoder": "mit_b0"}}


def uformer_entry(build: Build) -> ModelEntry:
    """The row of the table.

    Args:
        build: makes a branch.
    """

    def build_uformer(spec: ModelSpec) -> SegmentationModel:
        chosen = ARGUMENTS | spec.arguments
        branches = build_branches(spec, first=chosen["first"], second=chosen["second"], build=build)
        return SegmentationModel(spec, UFormer(branches), encoder=branches, input_size=InputSize(1))

    return ModelEntry(
        build=build_uformer,
        paper="https://doi.org/10.1162/neco.1991.3.1.79",
        line="average of two models with learnt weights; fresh, or from two trained runs (model.branches)",
        arguments=ARGUMENTS,
        takes_encoder=False,
    )


def uformer_of(first: SegmentationModel, second: SegmentationModel, *, build: Build) -> SegmentationModel:
    """Two trained models as one: their plain average, ready to be trained further.

    Args:
        first: its weights are copied.
        second: of the same channels and classes; its weights are copied.
        build: makes a model.

    Raises:
        RecipeError: they differ in channels or classes.
    """
    spec = ModelSpec(
        name="uformer",
        in_channels=first.spec.in_channels,
        num_classes=first.spec.num_classes,
        arguments=branch_arguments(first, second),
        scale=first.spec.scale,
    )
    model = build(spec)
    assert isinstance(model.encoder, Branches), "a uformer has branches"
    model.encoder.first.load_state_dict(first.state_dict())
    model.encoder.second.load_state_dict(second.state_dict())
    return model
