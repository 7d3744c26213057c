"""Exponential moving average of the weights: a smoother model than the last step's, for nothing but memory.

Polyak and Juditsky 1992, https://doi.org/10.1137/0330046; as in Tarvainen and Valpola 2017, https://arxiv.org/abs/1703.01780.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class WeightAverage(nn.Module):
    """A copy of a model that follows it slowly; parameters and running statistics alike.

    Args:
        model: followed; never changed.
        decay: share of the old average that a step keeps. Early steps keep less, so that the start is soon forgotten.
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.model = copy.deepcopy(model).requires_grad_(False)

    def train(self, mode: bool = True) -> WeightAverage:
        """The average is only ever read: it stays in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def update(self, model: nn.Module, *, step: int) -> None:
        """Move the average towards `model` after its `step`-th step."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages, values = _floats(self.model), _floats(model)
        torch._foreach_lerp_(averages, values, 1 - decay)
        for average, value in zip(_others(self.model), _others(model), strict=True):
            average.copy_(value)


def _floats(model: nn.Module) -> list[Tensor]:
    return [value for value in _state(model) if value.is_floating_point()]


def _others(model: nn.Module) -> list[Tensor]:
    return [value for value in _state(model) if not value.is_floating_point()]


def _state(model: nn.Module) -> list[Tensor]:
    return [*(parameter.data for parameter in model.parameters()), *model.buffers()]
