"""Ctrl-C, SIGTERM and SIGHUP while a model trains: the step is ended, the state is saved, and the run can go on.

The first signal is only remembered, for weights must not be left in the middle of a step. A second one acts as it would
without us, at once.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

from segwright.errors import RunStopped

_CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopAskedError(BaseException):
    """Leaves the training loop once the state is saved; no `Exception`, for it is no fault."""


class StopSignals:
    """Remembers the first signal that asks the program to end.

    Only the main thread may catch signals: in another one nothing is caught. A signal that is ignored (as by `nohup`)
    stays ignored.

    Args:
        note: printed when the first signal comes; None for nothing.
    """

    def __init__(self, *, note: str | None = None) -> None:
        self._note = note
        self._before: dict[signal.Signals, Any] = {}
        self._ignored: list[signal.Signals] = []
        self.asked: signal.Signals | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            handlers = {number: signal.getsignal(number) for number in _CAUGHT}
            self._before = {number: old for number, old in handlers.items() if old not in (signal.SIG_IGN, None)}
            self._ignored = [number for number, old in handlers.items() if old is signal.SIG_IGN]
        self.catch()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_back()

    def catch(self) -> None:
        """Catch the signals (again: Lightning puts a handler of its own for SIGTERM)."""
        for number in self._before:
            signal.signal(number, self._remember)
        for number in self._ignored:
            signal.signal(number, signal.SIG_IGN)

    def stopped(self, command: str) -> RunStopped:
        """What to raise once the state is saved.

        Args:
            command: goes on with the run.
        """
        assert self.asked is not None, "nobody asked to stop"
        return RunStopped(f"stopped by {self.asked.name}; go on with: {command}", signal_number=self.asked)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.asked is not None:
            self._give_back()
            signal.raise_signal(number)
            return
        self.asked = signal.Signals(number)
        if self._note is not None:
            # A handler may come in the middle of any other print.
            os.write(2, f"\n{self._note}\n".encode())

    def _give_back(self) -> None:
        for number, old in self._before.items():
            signal.signal(number, old)
