"""Learning rate schedules: a factor of the initial rate by the share of the budget that is spent.

So the same curve serves budgets in steps and in minutes. A straight warm-up may stand before any of them but
`one_cycle`, which brings its own. With u the share that is spent after the warm-up and f the final factor:

    constant     1
    step         drop^(milestones that are passed)                      milestones are shares of the whole budget
    exponential  f^u
    poly         f + (1 - f) (1 - u)^0.9                                https://arxiv.org/abs/1606.00915
    cosine       f + (1 - f) (1 + cos(pi u)) / 2                        https://arxiv.org/abs/1608.03983
    restarts     cosine in cycles, each longer by `growth`              https://arxiv.org/abs/1608.03983
    one_cycle    up from 1/25 to 1 over 30 %, then down to f, by cosines    https://arxiv.org/abs/1708.07120
    plateau      times drop whenever the watched score has not risen for `patience` epochs; see `Plateau`
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, final

from segwright.errors import RecipeError, nearest

ScheduleName = Literal["constant", "step", "exponential", "poly", "cosine", "restarts", "one_cycle", "plateau"]

WARMUP_START = 0.01
"""The factor at the first step of a warm-up."""
POLY_POWER = 0.9
ONE_CYCLE_START = 0.04
ONE_CYCLE_RISE = 0.3
_SMALLEST_FINAL = 1e-6


@dataclass(frozen=True)
class Shape:
    """The numbers of a schedule; which of them count depends on its name.

    Attributes:
        warmup: share of the budget over which the factor climbs in a straight line from `WARMUP_START` to 1.
        final_factor: where falling schedules end.
        milestones: shares of the budget at which `step` drops.
        drop: factor of a drop, of `step` and `plateau`.
        cycles: number of `restarts` cycles.
        growth: length of a cycle as a multiple of the one before it.

    Raises:
        RecipeError: milestones do not rise.
    """

    warmup: float = 0.0
    final_factor: float = 0.0
    milestones: tuple[float, ...] = (0.5, 0.75)
    drop: float = 0.1
    cycles: int = 1
    growth: float = 1.0

    def __post_init__(self) -> None:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise RecipeError(f"milestones {list(self.milestones)}", mend="give rising shares, such as [0.5, 0.75]")

    def cycle_ends(self) -> tuple[float, ...]:
        """The share of the budget at which each cycle ends."""
        lengths = [self.growth**number for number in range(self.cycles)]
        whole = sum(lengths)
        ends = [sum(lengths[: number + 1]) / whole for number in range(self.cycles)]
        return tuple(self.warmup + (1 - self.warmup) * end for end in ends)


def schedule_factor(name: ScheduleName, progress: float, *, shape: Shape) -> float:
    """The factor of `initial_lr` when a share of the budget is spent.

    Args:
        name: one of `SCHEDULES`.
        progress: share of the budget that is spent; below 0 counts as 0, above 1 as 1.
        shape: its numbers.

    Raises:
        RecipeError: there is no such schedule.
    """
    if name not in SCHEDULES:
        raise RecipeError(f"there is no schedule '{name}'", mend=nearest(name, SCHEDULES))
    progress = min(max(progress, 0.0), 1.0)
    if name == "one_cycle":
        return _one_cycle(progress, shape)
    if progress < shape.warmup:
        return WARMUP_START + (1 - WARMUP_START) * progress / shape.warmup
    return SCHEDULES[name].factor(progress, shape)


def _after_warmup(progress: float, shape: Shape) -> float:
    return 0.0 if shape.warmup >= 1 else (progress - shape.warmup) / (1 - shape.warmup)


def _between(low: float, high: float, cosine_of: float) -> float:
    """From `high` at 0 to `low` at 1, by half a cosine."""
    return low + (high - low) * 0.5 * (1 + math.cos(math.pi * cosine_of))


def _step(progress: float, shape: Shape) -> float:
    # A milestone is passed when its share is spent, but for rounding.
    return float(shape.drop ** sum(progress >= milestone - 1e-9 for milestone in shape.milestones))


def _exponential(progress: float, shape: Shape) -> float:
    return float(max(shape.final_factor, _SMALLEST_FINAL) ** _after_warmup(progress, shape))


def _poly(progress: float, shape: Shape) -> float:
    left = 1 - _after_warmup(progress, shape)
    return float(shape.final_factor + (1 - shape.final_factor) * max(left, 0.0) ** POLY_POWER)


def _cosine(progress: float, shape: Shape) -> float:
    return _between(shape.final_factor, 1.0, _after_warmup(progress, shape))


def _restarts(progress: float, shape: Shape) -> float:
    start = shape.warmup
    for end in shape.cycle_ends():
        if progress < end - 1e-9:
            return _between(shape.final_factor, 1.0, (progress - start) / (end - start))
        start = end
    return shape.final_factor


def _one_cycle(progress: float, shape: Shape) -> float:
    if progress < ONE_CYCLE_RISE:
        return _between(1.0, ONE_CYCLE_START, progress / ONE_CYCLE_RISE)
    return _between(shape.final_factor, 1.0, (progress - ONE_CYCLE_RISE) / (1 - ONE_CYCLE_RISE))


@dataclass(frozen=True)
class ScheduleEntry:
    """A row of the table."""

    factor: Callable[[float, Shape], float]
    line: str
    paper: str


SCHEDULES: dict[str, ScheduleEntry] = {
    "constant": ScheduleEntry(lambda progress, shape: 1.0, "always the initial rate", "https://arxiv.org/abs/1206.5533"),
    "step": ScheduleEntry(_step, "drops at set shares of the budget", "https://arxiv.org/abs/1512.03385"),
    "exponential": ScheduleEntry(_exponential, "falls by the same share in equal times", "https://arxiv.org/abs/1206.5533"),
    "poly": ScheduleEntry(_poly, "falls almost in a straight line", "https://arxiv.org/abs/1606.00915"),
    "cosine": ScheduleEntry(_cosine, "falls slowly, fast, slowly: the usual choice", "https://arxiv.org/abs/1608.03983"),
    "restarts": ScheduleEntry(_restarts, "several cosines, one after another", "https://arxiv.org/abs/1608.03983"),
    "one_cycle": ScheduleEntry(_one_cycle, "up, then down, once", "https://arxiv.org/abs/1708.07120"),
    "plateau": ScheduleEntry(
        lambda progress, shape: 1.0, "drops when validation stops rising", "https://arxiv.org/abs/1206.5533"
    ),
}  # fmt: skip


@final
class Plateau:
    """Drops the rate when a score has not risen for some epochs.

    Args:
        drop: what the rate is multiplied by.
        patience: epochs without a rise before it drops.
        minimum_gain: a rise by less than this is none.
    """

    def __init__(self, *, drop: float, patience: int, minimum_gain: float = 0.0) -> None:
        self._drop, self._patience, self._minimum_gain = drop, patience, minimum_gain
        self.factor = 1.0
        self._best = -math.inf
        self._since = 0

    def seen(self, score: float, *, epoch: int) -> bool:
        """Take notice of the score of an epoch; whether the rate drops now."""
        if score > self._best + self._minimum_gain:
            self._best, self._since = score, epoch
            return False
        if epoch - self._since <= self._patience:
            return False
        self.factor *= self._drop
        self._since = epoch
        return True

    def forget(self, *, epoch: int) -> None:
        """Begin to compare anew after an epoch: scores from now on are of other images or other rules."""
        self._best, self._since = -math.inf, epoch

    def state_dict(self) -> dict[str, float]:
        return {"factor": self.factor, "best": self._best, "since": self._since}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.factor, self._best, self._since = state["factor"], state["best"], int(state["since"])
