"""The budget of a run, in steps or by the clock. The learning rate follows its spent share, so it ends on time."""

from __future__ import annotations

import time


class Budget:
    """How much of a run is done.

    Args:
        steps: the budget in optimiser steps; None with a budget by the clock.
        seconds: the budget by the clock, validation included; None with a budget in steps.
    """

    def __init__(self, *, steps: int | None, seconds: float | None) -> None:
        assert (steps is None) != (seconds is None), "a budget is in steps or in seconds"
        self.steps = steps
        self.seconds = seconds
        self._spent_before = 0.0
        self._started: float | None = None

    def start(self, *, spent_seconds: float = 0.0) -> None:
        """Start the clock; a resumed run has spent some already."""
        self._spent_before = spent_seconds
        self._started = time.monotonic()

    @property
    def spent_seconds(self) -> float:
        running = 0.0 if self._started is None else time.monotonic() - self._started
        return self._spent_before + running

    def progress(self, step: int) -> float:
        """The spent share, 0..1, after `step` steps."""
        if self.seconds is not None:
            return min(self.spent_seconds / self.seconds, 1.0)
        return min(step / max(self.steps or 1, 1), 1.0)

    def left_seconds(self, step: int) -> float | None:
        """Seconds still to go; None before it can be told."""
        if self.seconds is not None:
            return max(self.seconds - self.spent_seconds, 0.0)
        share = self.progress(step)
        return None if share <= 0 else self.spent_seconds * (1 - share) / share

    def is_spent(self, step: int, *, reserve_seconds: float = 0.0) -> bool:
        """Whether to stop now, leaving time for a last validation."""
        if self.seconds is not None:
            return self.spent_seconds + reserve_seconds >= self.seconds
        return step >= (self.steps or 0)
