"""Parts of an encoder that do not learn: no gradients, and norms that keep the statistics they were trained with.

With few images a pretrained encoder's first layers (edges, textures) need no training, and at full resolution they
are the dearest to train: below the first frozen depth no gradient is computed and no activation is kept (Yosinski et
al. 2014, 'How transferable are features', https://arxiv.org/abs/1411.1792). What is frozen may learn later
(`unfreeze`; Howard and Ruder 2018, https://arxiv.org/abs/1801.06146).

Statistics are a choice of their own: an encoder that learns may keep those of its weights, which helps where batches
are small, and a frozen one may take those of the new images (Li et al. 2018, https://arxiv.org/abs/1603.04779).

Of a model of two branches both are the encoder.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from segwright.errors import RecipeError, nearest
from segwright.models.segmenter import SegmentationModel

_PROBE_STEPS = 2


def freeze_encoder(
    model: SegmentationModel, *, depth: int | None = None, statistics: bool = True
) -> tuple[nn.Parameter, ...]:
    """Stop an encoder, or its first layers, from learning.

    Args:
        model: with an encoder.
        depth: freeze what the feature of stride 2**depth is computed from; None freezes the whole encoder.
        statistics: frozen parts stay in evaluation mode, so that norms keep their statistics; else they follow the
            images, and dropout stays on.

    Returns:
        The parameters that have stopped, for `unfreeze`.

    Raises:
        RecipeError: the model has no encoder, or the encoder has no feature of that depth.
    """
    encoder = _encoder_of(model)
    learning = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    stopped = learning if depth is None else parameters_below(encoder, depth, channels=model.spec.in_channels)
    for parameter in stopped:
        parameter.requires_grad_(False)
    if statistics:
        inside = {id(module) for module in encoder.modules()}
        still = [
            name
            for name, module in model.named_modules()
            if id(module) in inside
            and (own := list(module.parameters()))
            and not any(parameter.requires_grad for parameter in own)
        ]
        model.frozen = tuple(dict.fromkeys([*model.frozen, *still]))
        model.train(model.training)
    return tuple(stopped)


def freeze_statistics(model: SegmentationModel) -> None:
    """Let all batch norms of an encoder keep their statistics; their scales and shifts go on learning.

    Raises:
        RecipeError: the model has no encoder.
    """
    inside = {id(module) for module in _encoder_of(model).modules()}
    norms = [name for name, part in model.named_modules() if id(part) in inside and isinstance(part, _BatchNorm)]
    model.frozen = tuple(dict.fromkeys([*model.frozen, *norms]))
    model.train(model.training)


def unfreeze(model: SegmentationModel, parameters: Iterable[nn.Parameter], *, statistics: bool = False) -> None:
    """Let parameters learn again that `freeze_encoder` has stopped.

    Args:
        model: theirs.
        parameters: what `freeze_encoder` returned.
        statistics: the encoder's batch norms keep their statistics all the same.
    """
    for parameter in parameters:
        parameter.requires_grad_(True)
    model.frozen = model.held
    model.train(model.training)
    if statistics:
        freeze_statistics(model)


def train_only(model: SegmentationModel, parts: Sequence[str]) -> None:
    """Let some parts of a network learn and hold all others, with their statistics.

    Args:
        model: whose `net` has these parts.
        parts: names of its submodules, such as `branches.first`.

    Raises:
        RecipeError: there is no part of a name.
    """
    known = [name for name, _ in model.net.named_modules() if name]
    for part in parts:
        if part not in known:
            top = [name for name in known if name.count(".") < 1 + part.count(".")]
            raise RecipeError(f"model '{model.spec.name}' has no part '{part}'", mend=nearest(part, top))
    for name, parameter in model.net.named_parameters():
        if not any(name.startswith(f"{part}.") for part in parts):
            parameter.requires_grad_(False)
    still = [
        f"net.{name}"
        for name, module in model.net.named_modules()
        if name and (own := list(module.parameters())) and not any(parameter.requires_grad for parameter in own)
    ]
    model.held = tuple(still)
    model.frozen = tuple(dict.fromkeys([*model.frozen, *still]))
    model.train(model.training)


def parameters_below(encoder: nn.Module, depth: int, *, channels: int) -> list[nn.Parameter]:
    """Learning parameters that the feature of a depth depends on, told by its gradient.

    Args:
        encoder: of the library, or with its `out_channels` and `output_stride`.
        depth: the feature of stride 2**depth.
        channels: of its images.

    Raises:
        RecipeError: it has no feature of that depth.
    """
    known: list[int] = list(getattr(encoder, "out_channels", ()))
    if not 1 <= depth < len(known) or known[depth] == 0:
        mend = f"use 1 to {len(known) - 1}, or true" if known else "use true or false"
        raise RecipeError(f"the encoder has no feature of depth {depth}", mend=mend)
    side = _PROBE_STEPS * int(encoder.output_stride)  # type: ignore[arg-type]  # an int of the library's
    parameters = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    if not parameters:
        return []
    training = encoder.training
    with torch.random.fork_rng(devices=()):
        images = torch.rand(1, channels, side, side).to(parameters[0].device)
        feature = encoder.eval()(images)[depth]
    encoder.train(training)
    gradients: tuple[torch.Tensor | None, ...] = torch.autograd.grad(feature.sum(), parameters, allow_unused=True)
    return [parameter for parameter, gradient in zip(parameters, gradients, strict=True) if gradient is not None]


def _encoder_of(model: SegmentationModel) -> nn.Module:
    if model.encoder is None:
        raise RecipeError(f"model '{model.spec.name}' has no encoder to freeze", mend="set freeze_encoder to false")
    return model.encoder
