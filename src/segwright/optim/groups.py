"""Parameters in groups: which learn how fast, and which are decayed.

Scales and shifts of norms, biases and position embeddings are not decayed. An encoder may learn more slowly than the
rest, and its early layers more slowly than its late ones (layer-wise decay: Howard and Ruder 2018,
https://arxiv.org/abs/1801.06146; Clark 2020, https://arxiv.org/abs/2003.10555).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from segwright.errors import RecipeError

_EMBEDDINGS = ("pos_embed", "cls_token", "dist_token", "reg_token", "relative_position_bias_table")


def parameter_groups(
    model: nn.Module, *, encoder: nn.Module | None, lr: float, weight_decay: float, encoder_lr_factor: float,
    layer_decay: float = 1.0,
) -> list[dict[str, Any]]:  # fmt: skip
    """Parameters by part (layers of the encoder, the rest), with weight decay or without.

    Frozen parameters stand in no group, and an empty group is left out.

    Args:
        model: the whole network.
        encoder: the part of it that learns at `lr * encoder_lr_factor`; None where there is none.
        lr: learning rate of the rest.
        weight_decay: decay of weights.
        encoder_lr_factor: above 0.
        layer_decay: above 0, at most 1: each layer of the encoder learns at this share of the rate of the next one.

    Returns:
        Groups with `name`, `params`, `lr`, `initial_lr` and `weight_decay`.

    Raises:
        RecipeError: a factor is given for a model without an encoder, or nothing is left to learn.
    """
    for name, value in (("encoder_lr_factor", encoder_lr_factor), ("layer_decay", layer_decay)):
        if encoder is None and value != 1.0:
            problem = f"{name} {value:g} for a model without an encoder"
            raise RecipeError(problem, mend="set it to 1, or choose a model with an encoder")
    rates = {} if encoder is None else _encoder_rates(encoder, lr=lr * encoder_lr_factor, layer_decay=layer_decay)
    members: dict[tuple[str, float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part, rate = rates.get(id(parameter), ("rest", lr))
            members.setdefault((part, rate, _decays(name, parameter)), []).append(parameter)
    if not members:
        raise RecipeError("no parameter is left to learn", mend="unfreeze a part of the model")
    groups = []
    # The rest comes last: its rate is the one that is written down.
    for part, rate, decays in sorted(members, key=lambda key: (key[0] == "rest", key[0], not key[2])):
        groups.append(
            {
                "name": part + ("" if decays else "_no_decay"),
                "params": members[part, rate, decays],
                "lr": rate,
                "initial_lr": rate,
                "weight_decay": weight_decay if decays else 0.0,
            }
        )
    return groups


def _encoder_rates(encoder: nn.Module, *, lr: float, layer_decay: float) -> dict[int, tuple[str, float]]:
    """Part and rate of each parameter of the encoder, by its identity."""
    if layer_decay == 1.0:
        return {id(parameter): ("encoder", lr) for parameter in encoder.parameters()}
    layers = [layer for layer in _layers(encoder) if layer]
    rates: dict[int, tuple[str, float]] = {}
    for place, layer in enumerate(layers):
        rate = lr * layer_decay ** (len(layers) - 1 - place)
        rates |= {id(parameter): (f"encoder_{place:02d}", rate) for parameter in layer}
    return rates


def _layers(encoder: nn.Module) -> Iterator[list[nn.Parameter]]:
    """Parameters of the encoder's children in their order; sequences and wrappers are taken apart."""
    yield list(encoder.parameters(recurse=False))
    for child in encoder.children():
        if isinstance(child, nn.Sequential | nn.ModuleList | nn.ModuleDict) or len(list(encoder.children())) == 1:
            yield from _layers(child)
        else:
            yield list(child.parameters())


def _decays(name: str, parameter: nn.Parameter) -> bool:
    """Norms and biases are all the parameters of one axis; embeddings are told by their usual names."""
    return parameter.ndim > 1 and not any(part in name for part in _EMBEDDINGS)


def convolution_weights(model: nn.Module) -> list[nn.Parameter]:
    """The learning kernels of all convolutions, for a penalty on them alone."""
    weights = [layer.weight for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    return [weight for weight in weights if isinstance(weight, nn.Parameter) and weight.requires_grad]


@torch.no_grad()
def add_penalty(weights: list[nn.Parameter], *, l2: float) -> None:
    """Add the gradient of l2 / 2 * sum(w^2) to that of the loss, for weights that have one."""
    for weight in weights:
        if weight.grad is not None:
            weight.grad.add_(weight, alpha=l2)
