from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from segwright.training.averaging import WeightAverage
from segwright.training.budget import Budget


def test_a_budget_in_steps_does_not_look_at_the_clock() -> None:
    budget = Budget(steps=200, seconds=None)
    assert budget.progress(0) == 0
    assert budget.progress(50) == 0.25
    assert budget.progress(500) == 1
    assert not budget.is_spent(199)
    assert budget.is_spent(200)


def test_a_budget_by_the_clock_counts_what_was_spent_before() -> None:
    budget = Budget(steps=None, seconds=100.0)
    budget.start(spent_seconds=90.0)
    assert 0.9 <= budget.progress(3) < 0.95
    assert not budget.is_spent(3)
    assert budget.is_spent(3, reserve_seconds=10.0)
    left = budget.left_seconds(3)
    assert left is not None
    assert 5 < left <= 10


def test_time_left_is_told_from_the_share_done() -> None:
    budget = Budget(steps=100, seconds=None)
    budget.start()
    assert budget.left_seconds(0) is None
    time.sleep(0.05)
    left = budget.left_seconds(50)
    assert left is not None
    assert left == pytest.approx(budget.spent_seconds, rel=0.2)


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))


def test_an_average_follows_parameters_and_statistics() -> None:
    model = network()
    average = WeightAverage(model, decay=0.9)
    with torch.no_grad():
        for value in (*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())):
            value.fill_(5.0)
    before = [value.clone() for value in average.model.state_dict().values()]
    average.update(model, step=10**6)
    for old, (name, new) in zip(before, average.model.state_dict().items(), strict=True):
        if new.is_floating_point():
            assert torch.allclose(new, 0.9 * old + 0.1 * 5.0), name
    for step in range(500):
        average.update(model, step=10**6 + step)
    assert torch.allclose(average.model[0].weight, torch.full_like(average.model[0].weight, 5.0))


def test_the_first_steps_forget_the_start() -> None:
    model = network()
    average = WeightAverage(model, decay=0.9999)
    with torch.no_grad():
        model[0].weight.fill_(3.0)
    for step in range(60):
        average.update(model, step=step)
    assert torch.allclose(average.model[0].weight, model[0].weight, atol=0.05)


def test_the_average_is_never_trained() -> None:
    average = WeightAverage(network(), decay=0.9).train()
    assert not average.model.training
    assert not any(parameter.requires_grad for parameter in average.model.parameters())
