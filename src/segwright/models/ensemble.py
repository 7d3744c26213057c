"""Several trained models as one: the weighted average of their probabilities, or of their weights.

    p = sum_m w_m p_m,   w_m >= 0,  sum w_m = 1

An ensemble of any models averages what they say (Dietterich 2000, https://doi.org/10.1007/3-540-45014-9_1; deep
ensembles: Lakshminarayanan 2017, https://arxiv.org/abs/1612.01474). It answers log p, whose softmax is p. A soup
averages the weights of models of one architecture that started from the same weights, and costs no more than one of
them (Wortsman 2022, https://arxiv.org/abs/2203.05482). How the w are found: `evaluation/ensemble_weights.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segwright.errors import RecipeError
from segwright.models.branches import Build, main_of, member_arguments, member_spec
from segwright.models.segmenter import InputSize, ModelEntry, ModelSpec, SegmentationModel

_LEAST = 1e-12


@final
class Ensemble(nn.Module):
    """The average of models: (N, C, H, W) -> log-probabilities (N, K, H, W), float32.

    Args:
        members: of the same channels and classes.
        weights: one a member, adding up to 1.
    """

    weights: Tensor

    def __init__(self, members: Sequence[SegmentationModel], *, weights: Sequence[float]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        # Not in the state: the arguments bring them back.
        self.register_buffer("weights", torch.tensor(weights), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor | None = None
        for weight, member in zip(self.weights, self.members, strict=True):
            share = weight * F.softmax(main_of(member(x)).float(), dim=1)
            total = share if total is None else total + share
        assert total is not None, "an ensemble has members"
        return total.clamp(min=_LEAST).log()


ARGUMENTS: dict[str, Any] = {"members": ("unet", "unet"), "weights": None}


def ensemble_entry(build: Build) -> ModelEntry:
    """The row of the table.

    Args:
        build: makes a member.
    """

    def build_ensemble(spec: ModelSpec) -> SegmentationModel:
        chosen = ARGUMENTS | spec.arguments
        trees = chosen["members"]
        if not isinstance(trees, list | tuple) or not trees:
            raise RecipeError(f"{spec.name}: members {trees!r}", mend="give a list of models")
        members = [build(member_spec(tree, spec, key=f"member {place}")) for place, tree in enumerate(trees)]
        net = Ensemble(members, weights=_weights(chosen["weights"], count=len(members)))
        return SegmentationModel(spec, net, encoder=None, input_size=InputSize(1))

    return ModelEntry(
        build=build_ensemble,
        paper="https://arxiv.org/abs/1612.01474",
        line="weighted average of several models; made of trained ones by segwright ensemble",
        arguments=ARGUMENTS,
        takes_encoder=False,
    )


def ensemble_of(models: Sequence[SegmentationModel], *, weights: Sequence[float], build: Build) -> SegmentationModel:
    """Trained models as one; their weights are copied.

    Args:
        models: of the same channels and classes.
        weights: one a model, at least 0; scaled to add up to 1.
        build: makes a model.

    Raises:
        RecipeError: they differ in channels or classes, or the weights do not fit.
    """
    first = models[0].spec
    shares = _weights(list(weights), count=len(models))
    spec = ModelSpec(
        name="ensemble",
        in_channels=first.in_channels,
        num_classes=first.num_classes,
        arguments={"members": member_arguments(models), "weights": list(shares)},
        scale=first.scale,
    )
    model = build(spec)
    assert isinstance(model.net, Ensemble), "of that name"
    for member, trained in zip(model.net.members, models, strict=True):
        member.load_state_dict(trained.state_dict())
    return model


def soup_of(models: Sequence[SegmentationModel], *, weights: Sequence[float], build: Build) -> SegmentationModel:
    """One model with the weighted mean of the others' weights and statistics.

    Args:
        models: of one architecture and normalisation.
        weights: as for `ensemble_of`.
        build: makes a model.

    Raises:
        RecipeError: they are of different architectures, or the weights do not fit.
    """
    specs = [model.spec for model in models]
    if any(spec != specs[0] for spec in specs[1:]):
        problem = f"{specs[0].name} and {next(spec.name for spec in specs if spec != specs[0])} differ in their make-up"
        raise RecipeError(problem, mend="average their answers instead, without --soup")
    shares = _weights(list(weights), count=len(models))
    states = [model.state_dict() for model in models]
    soup = build(specs[0])
    soup.load_state_dict({
        name: torch.stack([share * state[name] for share, state in zip(shares, states, strict=True)]).sum(0)
        if value.is_floating_point() else value
        for name, value in states[0].items()
    })  # fmt: skip
    return soup


def _weights(weights: Any, *, count: int) -> tuple[float, ...]:
    if weights is None:
        return (1 / count,) * count
    fine = isinstance(weights, list | tuple) and len(weights) == count
    if not fine or min(weights) < 0 or not 0 < sum(weights) < math.inf:
        raise RecipeError(f"weights {weights!r} for {count} models", mend="give one number >= 0 a model, not all 0")
    return tuple(float(weight) / sum(weights) for weight in weights)
