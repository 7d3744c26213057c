"""Processes of this machine: so many at a time, each with its share of the cores, and a GPU each where there are some.

A process leads a session of its own, so that Ctrl-C reaches us alone and all that it started can be ended together. It
is asked to end when we do, even by kill -9 (see `tied`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from segwright.errors import OutputError
from segwright.launch import Ended, Job

LOOK_SECONDS = 0.1
GRACE_SECONDS = 60.0
"""So long a job may take to save its state when it is asked to end."""

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_TIED = Path(__file__).with_name("tied.py")


@dataclass(frozen=True)
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    gpus: tuple[int, ...]
    began: float


class LocalLauncher:
    """Runs jobs as processes.

    Args:
        jobs: how many at a time.
        gpus: numbers of the GPUs that may be used, among those that we see; with more jobs than GPUs they are shared.
        cores: of the machine that may be used; None for all that this process may use.
    """

    def __init__(self, *, jobs: int = 2, gpus: Sequence[int] = (), cores: int | None = None) -> None:
        assert jobs >= 1, f"{jobs} jobs at a time"
        self._jobs = jobs
        self._threads = max(1, (cores or usable_cores()) // jobs)
        self._gpus = tuple(dict.fromkeys(gpus))
        self._free = list(self._gpus) * max(1, -(-jobs // max(1, len(self._gpus))))
        self._running: dict[str, _Running] = {}

    def run(self, jobs: Iterable[Job]) -> Iterator[Ended]:
        """Run them, and yield each as it ends.

        Raises:
            OutputError: a log cannot be written.
        """
        source = iter(jobs)
        held: Job | None = None
        there_are_more = True
        while there_are_more or held is not None or self._running:
            while (there_are_more or held is not None) and len(self._running) < self._jobs:
                job = held or next(source, None)
                held = None
                if job is None:
                    there_are_more = False
                elif self._has_room(job):
                    self._start(job)
                else:
                    held = job
                    break
            ended = self._ended()
            yield from ended
            if self._running and not ended:
                time.sleep(LOOK_SECONDS)

    def stop(self, name: str) -> None:
        """Ask a job to end; any thread may, and one that ended already is passed over."""
        running = self._running.get(name)
        if running is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(running.process.pid, signal.SIGTERM)

    def close(self) -> None:
        """Ask what still runs to end, and end it where it does not; a second Ctrl-C does so at once."""
        self._signal_all(signal.SIGTERM)
        try:
            until = time.monotonic() + GRACE_SECONDS
            while self._running and time.monotonic() < until:
                self._ended()
                time.sleep(LOOK_SECONDS)
        finally:
            self._signal_all(signal.SIGKILL)
            for running in self._running.values():
                running.process.wait()
            self._running.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _signal_all(self, number: signal.Signals) -> None:
        for running in self._running.values():
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(running.process.pid, number)

    def _has_room(self, job: Job) -> bool:
        return len(set(self._free)) >= min(job.gpus, len(self._gpus))

    def _start(self, job: Job) -> None:
        taken = self._take(min(job.gpus, len(self._gpus)))
        environment = {**os.environ, "OMP_NUM_THREADS": str(self._threads), "PYTHONUNBUFFERED": "1"}
        if self._gpus:
            seen = [name for name in os.environ.get(_VISIBLE, "").split(",") if name]
            environment[_VISIBLE] = ",".join(seen[gpu] if gpu < len(seen) else str(gpu) for gpu in taken)
        try:
            job.log.parent.mkdir(parents=True, exist_ok=True)
            log = job.log.open("ab")
        except OSError as error:
            mend = "free some space or choose another folder"
            raise OutputError(f"cannot be written ({error.strerror})", mend=mend, file=job.log) from None
        with log:
            process = subprocess.Popen(  # noqa: S603  # the command of a job
                [sys.executable, "-I", "-S", str(_TIED), str(os.getpid()), *job.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment | dict(job.env),
                start_new_session=True,
                pass_fds=job.locks,
            )
        self._running[job.name] = _Running(job, process, taken, time.monotonic())

    def _take(self, count: int) -> tuple[int, ...]:
        # The GPU with most room first, so that two jobs share one only where all are taken.
        order = sorted(self._gpus, key=lambda gpu: (-self._free.count(gpu), gpu))
        taken = tuple(sorted(order[:count]))
        for gpu in taken:
            self._free.remove(gpu)
        return taken

    def _ended(self) -> list[Ended]:
        now = time.monotonic()
        over = [running for running in self._running.values() if running.process.poll() is not None]
        for running in over:
            # What it started and left behind would go on with its GPU and its files.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(running.process.pid, signal.SIGKILL)
            del self._running[running.job.name]
            self._free.extend(running.gpus)
        return [Ended(one.job.name, _code(one.process.returncode), now - one.began) for one in over]


def _code(returned: int) -> int:
    """As a shell has it: Python says -n of a process that signal n ended."""
    return 128 - returned if returned < 0 else returned


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
