"""Where a list of commands runs: on this machine, on a Slurm cluster, or on Ray's nodes.

A launcher knows nothing of recipes: it takes jobs, runs their commands, and tells how each one ended, in any order.

    local     processes of this machine, a GPU each
    slurm     arrays of a cluster, and a plain script for other schedulers
    ray       the nodes of a Ray cluster
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, runtime_checkable


@dataclass(frozen=True)
class Job:
    """A command to run.

    Attributes:
        name: unlike that of any other job of the list.
        command: its words.
        cpus: cores that it is given.
        gpus: GPUs that it is given.
        env: variables on top of those of this process.
        log: file that its output is added to.
        results: the folder that it writes; brought back where the machine that ran it has another disk.
        begun: a file in a folder beside `results` that stands where the command has begun, though `results` may not be
            there yet; its folder is brought back too.
        again: the words that go on with it where `results` or `begun` is there already, after a lost or preempted
            machine; empty: `command`.
        locks: open descriptors of locked files. A process of this machine holds them too, so that the locks stand until
            it ends, whatever becomes of us.
    """

    name: str
    command: tuple[str, ...]
    log: Path
    cpus: int = 1
    gpus: int = 0
    env: Mapping[str, str] = field(default_factory=dict)
    results: Path | None = None
    begun: Path | None = None
    again: tuple[str, ...] = ()
    locks: tuple[int, ...] = ()


@dataclass(frozen=True)
class Ended:
    """How a job ended.

    Attributes:
        name: of the job.
        code: what its command left with; 128 + n where signal n ended it.
        seconds: from its last start to its end.
    """

    name: str
    code: int
    seconds: float

    @property
    def was_stopped(self) -> bool:
        """Whether a signal ended it (from outside, or for want of memory), and not a fault that it told of."""
        return self.code > 128


@runtime_checkable
class Launcher(Protocol):
    """Runs jobs. Leaving it as a context ends whatever still runs."""

    def run(self, jobs: Iterable[Job]) -> Iterator[Ended]:
        """Run all jobs, and tell of each when it ends; `jobs` is asked for the next one when there is room for it."""
        ...

    def close(self) -> None:
        """End whatever still runs."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
