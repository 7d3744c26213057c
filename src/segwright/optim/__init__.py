"""What moves the weights: parameter groups, optimisers and learning rate schedules."""

from __future__ import annotations

from segwright.optim.groups import add_penalty, convolution_weights, parameter_groups
from segwright.optim.optimizers import OPTIMIZERS, OptimizerEntry, OptimizerName, OptimizerSettings, build_optimizer
from segwright.optim.schedules import (
    SCHEDULES,
    WARMUP_START,
    Plateau,
    ScheduleEntry,
    ScheduleName,
    Shape,
    schedule_factor,
)

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "WARMUP_START",
    "OptimizerEntry",
    "OptimizerName",
    "OptimizerSettings",
    "Plateau",
    "ScheduleEntry",
    "ScheduleName",
    "Shape",
    "add_penalty",
    "build_optimizer",
    "convolution_weights",
    "parameter_groups",
    "schedule_factor",
]
