"""Averages of the weights along a run: a smoother model than the last step's, for nothing but memory.

moving   exponential, from the first step on    Polyak and Juditsky 1992, https://doi.org/10.1137/0330046;
                                                Tarvainen and Valpola 2017, https://arxiv.org/abs/1703.01780
tail     equal, of every step of the last share of the budget (SWA)    Izmailov 2018, https://arxiv.org/abs/1803.05407
cycles   equal, of the end of every cycle of a schedule with restarts; the weights that 'Snapshot Ensembles' keep
         as several models (Huang 2017, https://arxiv.org/abs/1704.00109), as one model

Running statistics of batch norms are averaged like the weights, which costs no pass and draws no batch. Neighbouring
weights agree on them: in one trial each (a U-Net of width 8 for 24 s on terrain of 64 x 128 pixels) measuring them
again on 16 training batches changed the validation mIoU of `tail` from 0.320 to 0.320, but that of `cycles` from 0.294
to 0.332. So `cycles` is for networks with group or instance norm, or for cycles that are long enough to agree.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

AveragingName = Literal["none", "moving", "tail", "cycles"]

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Averaging:
    """Which weights are averaged, and how.

    Attributes:
        name: see the file's head.
        decay: share of the old average that a step keeps, of `moving`.
        share: of the budget at its end, of `tail`.
        ends: spent shares of the budget at which cycles end, of `cycles`.
    """

    name: AveragingName
    decay: float = 0.99
    share: float = 0.25
    ends: tuple[float, ...] = ()

    def takes(self, before: float, now: float) -> bool:
        """Whether the weights count when the spent share of the budget has gone from `before` to `now`."""
        if self.name == "cycles":
            passed = [sum(progress >= end - _ROUNDING for end in self.ends) for progress in (before, now)]
            return passed[1] > passed[0]
        return self.name == "moving" or now > 1 - self.share + _ROUNDING

    def __str__(self) -> str:
        return {
            "none": "no average of weights: the model is that of the last step",
            "moving": f"moving average of the weights, decay {self.decay:g}",
            "tail": f"equal average of the weights of the last {self.share:.0%} of the budget",
            "cycles": f"equal average of the weights at the end of each of {len(self.ends)} cycles",
        }[self.name]


class WeightAverage(nn.Module):
    """A copy of a model that holds an average of it; parameters and running statistics alike.

    Args:
        model: followed; never changed.
        rule: which weights count.

    Attributes:
        count: how many weights are in an equal average.
    """

    def __init__(self, model: nn.Module, *, rule: Averaging) -> None:
        super().__init__()
        self.rule = rule
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.count = 0
        self._last_step = -1
        self._progress = 0.0

    @property
    def exists(self) -> bool:
        """Whether anything is averaged yet; a moving average begins with the first weights."""
        return self.rule.name == "moving" or self.count > 0

    def train(self, mode: bool = True) -> WeightAverage:
        """The average is only ever read: it stays in evaluation mode."""
        return super().train(False)

    def follow(self, model: nn.Module, *, step: int, progress: float) -> None:
        """Take the weights after the `step`-th step, if they count, when a share `progress` of the budget is spent."""
        before, self._progress = self._progress, progress
        if self.rule.takes(before, progress):
            self.take(model, step=step)
        elif self.rule.name == "tail":
            # A budget was extended: its last share begins later now.
            self.count = 0

    @torch.no_grad()
    def take(self, model: nn.Module, *, step: int) -> None:
        """Count the weights after the `step`-th step in, once."""
        if step == self._last_step:
            return
        self._last_step = step
        self.count += 1
        moving = self.rule.name == "moving"
        # Early steps of a moving average keep less, so that the start is soon forgotten.
        share = 1 - min(self.rule.decay, (1 + step) / (10 + step)) if moving else 1 / self.count
        averages, values = _floats(self.model), _floats(model)
        torch._foreach_lerp_(averages, values, share)
        for average, value in zip(_others(self.model), _others(model), strict=True):
            average.copy_(value)

    def numbers(self) -> dict[str, float]:
        """What goes on with a run beside the weights."""
        return {"count": self.count, "last_step": self._last_step, "progress": self._progress}

    def go_on(self, numbers: dict[str, float]) -> None:
        """Take up what `numbers` gave."""
        self.count, self._last_step = int(numbers["count"]), int(numbers["last_step"])
        self._progress = numbers["progress"]


def _floats(model: nn.Module) -> list[Tensor]:
    return [value for value in _state(model) if value.is_floating_point()]


def _others(model: nn.Module) -> list[Tensor]:
    return [value for value in _state(model) if not value.is_floating_point()]


def _state(model: nn.Module) -> list[Tensor]:
    return [*(parameter.data for parameter in model.parameters()), *model.buffers()]
