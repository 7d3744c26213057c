"""One process writes a run; a second one is told so at once."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segwright.errors import RunError


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the lock of a run folder. The system gives it back when the process ends, so it is never stale.

    Raises:
        RunError: another process holds it.
    """
    with (run / ".lock").open("ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError("is being written by another process", mend="wait for it to end", file=run) from None
        yield
