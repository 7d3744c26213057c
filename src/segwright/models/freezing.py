"""Parts of an encoder that do not learn: no gradients, and norms that keep the statistics they were trained with.

With few images a pretrained encoder's first layers (edges, textures) need no training, and at full resolution they
are the dearest to train: below the first frozen depth no gradient is computed and no activation is kept (Yosinski et
al. 2014, 'How transferable are features', https://arxiv.org/abs/1411.1792).
"""

from __future__ import annotations

import torch
from torch import nn

from segwright.errors import RecipeError
from segwright.models.segmenter import SegmentationModel

_PROBE_STEPS = 2


def freeze_encoder(model: SegmentationModel, *, depth: int | None = None) -> None:
    """Stop an encoder, or its first layers, from learning.

    Args:
        model: with an encoder.
        depth: freeze what the feature of stride 2**depth is computed from; None freezes the whole encoder.

    Raises:
        RecipeError: the model has no encoder, or the encoder has no feature of that depth.
    """
    encoder = model.encoder
    if encoder is None:
        raise RecipeError(f"model '{model.spec.name}' has no encoder to freeze", mend="set freeze_encoder to false")
    frozen = list(encoder.parameters()) if depth is None else _below(encoder, depth, channels=model.spec.in_channels)
    for parameter in frozen:
        parameter.requires_grad_(False)
    ids = {id(parameter) for parameter in frozen}
    inside = {id(module) for module in encoder.modules()}
    model.frozen = tuple(
        name
        for name, module in model.named_modules()
        if id(module) in inside and (own := list(module.parameters())) and all(id(one) in ids for one in own)
    )
    model.train(model.training)


def _below(encoder: nn.Module, depth: int, *, channels: int) -> list[nn.Parameter]:
    """Parameters that the feature of a depth depends on, told by its gradient."""
    known = list(encoder.out_channels)  # type: ignore[arg-type]  # a list of the library's
    if not 1 <= depth < len(known) or known[depth] == 0:
        raise RecipeError(f"the encoder has no feature of depth {depth}", mend=f"use 1 to {len(known) - 1}, or true")
    side = _PROBE_STEPS * int(encoder.output_stride)  # type: ignore[arg-type]  # an int of the library's
    parameters = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    training = encoder.training
    with torch.random.fork_rng(devices=()):
        feature = encoder.eval()(torch.rand(1, channels, side, side))[depth]
    encoder.train(training)
    gradients: tuple[torch.Tensor | None, ...] = torch.autograd.grad(feature.sum(), parameters, allow_unused=True)
    return [parameter for parameter, gradient in zip(parameters, gradients, strict=True) if gradient is not None]
