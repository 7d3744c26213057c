from __future__ import annotations

import time

import pytest

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
