"""Optimisers, parameter groups and learning rate schedules.

AdamW: Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101. Cosine: https://arxiv.org/abs/1608.03983.
Poly, (1 - progress)^0.9: DeepLab, https://arxiv.org/abs/1606.00915. A schedule is a factor of `initial_lr` by the share
of the budget that is spent, so the same curve serves budgets in steps and in minutes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn

from segwright.errors import RecipeError

OptimizerName = Literal["adamw"]
ScheduleName = Literal["constant", "cosine", "poly"]

WARMUP_START = 0.01
"""The factor at the first step of a warm-up."""
POLY_POWER = 0.9

_EMBEDDINGS = ("pos_embed", "cls_token", "dist_token", "reg_token", "relative_position_bias_table")


def parameter_groups(
    model: nn.Module, *, encoder: nn.Module | None, lr: float, weight_decay: float, encoder_lr_factor: float
) -> list[dict[str, Any]]:
    """Parameters in up to four groups: encoder or the rest, with weight decay or without.

    Scales and shifts of norms, biases and position embeddings are not decayed. Frozen parameters stand in no group, and
    an empty group is left out.

    Args:
        model: the whole network.
        encoder: the part of it that learns at `lr * encoder_lr_factor`; None where there is none.
        lr: learning rate of the rest.
        weight_decay: decay of weights.
        encoder_lr_factor: above 0.

    Returns:
        Groups with `name`, `params`, `lr`, `initial_lr` and `weight_decay`.

    Raises:
        RecipeError: a factor is given for a model without an encoder, or nothing is left to learn.
    """
    if encoder is None and encoder_lr_factor != 1.0:
        problem = f"encoder_lr_factor {encoder_lr_factor:g} for a model without an encoder"
        raise RecipeError(problem, mend="set it to 1, or choose a model with an encoder")
    of_encoder = set() if encoder is None else {id(parameter) for parameter in encoder.parameters()}
    members: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            members.setdefault((id(parameter) in of_encoder, _decays(name, parameter)), []).append(parameter)
    if not members:
        raise RecipeError("no parameter is left to learn", mend="unfreeze a part of the model")
    groups = []
    for (in_encoder, decays), parameters in sorted(members.items(), reverse=True):
        rate = lr * encoder_lr_factor if in_encoder else lr
        groups.append(
            {
                "name": ("encoder" if in_encoder else "rest") + ("" if decays else "_no_decay"),
                "params": parameters,
                "lr": rate,
                "initial_lr": rate,
                "weight_decay": weight_decay if decays else 0.0,
            }
        )
    return groups


def _decays(name: str, parameter: nn.Parameter) -> bool:
    """Norms and biases are all the parameters of one axis; embeddings are told by their usual names."""
    return parameter.ndim > 1 and not any(part in name for part in _EMBEDDINGS)


def build_optimizer(name: OptimizerName, groups: list[dict[str, Any]], *, fused: bool) -> torch.optim.Optimizer:
    """An optimiser over groups that bring their own learning rate and decay.

    Args:
        name: one of `OPTIMIZERS`.
        groups: from `parameter_groups`.
        fused: one kernel for all parameters; needs float parameters on the CPU or a GPU.
    """
    return OPTIMIZERS[name](groups, fused)


def _adamw(groups: list[dict[str, Any]], fused: bool) -> torch.optim.Optimizer:
    # `fused=None` leaves torch its own choice between loop and foreach.
    return torch.optim.AdamW(groups, fused=fused or None)


def schedule_factor(name: ScheduleName, progress: float, *, warmup: float, final_factor: float) -> float:
    """The factor of `initial_lr` when a share of the budget is spent.

    Args:
        name: one of `SCHEDULES`.
        progress: share of the budget that is spent; below 0 counts as 0, above 1 as 1.
        warmup: share of the budget over which the factor climbs in a straight line from `WARMUP_START` to 1.
        final_factor: where cosine and poly end; constant stays at 1.
    """
    progress = min(max(progress, 0.0), 1.0)
    if progress < warmup:
        return WARMUP_START + (1 - WARMUP_START) * progress / warmup
    left = 1.0 if warmup >= 1 else 1 - (progress - warmup) / (1 - warmup)
    return SCHEDULES[name](left, final_factor)


def _constant(left: float, final_factor: float) -> float:
    return 1.0


def _cosine(left: float, final_factor: float) -> float:
    return final_factor + (1 - final_factor) * 0.5 * (1 - math.cos(math.pi * left))


def _poly(left: float, final_factor: float) -> float:
    return final_factor + (1 - final_factor) * math.pow(max(left, 0.0), POLY_POWER)


OPTIMIZERS: dict[str, Callable[[list[dict[str, Any]], bool], torch.optim.Optimizer]] = {"adamw": _adamw}
SCHEDULES: dict[str, Callable[[float, float], float]] = {"constant": _constant, "cosine": _cosine, "poly": _poly}
"""The factor by the share that is left after the warm-up, 1 to 0."""
