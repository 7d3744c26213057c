"""One process writes a run; a second one is told so at once."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segwright.errors import OutputError, RunError


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the lock of a run folder. The system gives it back when the process ends, so it is never stale.

    Raises:
        RunError: another process holds it.
        OutputError: the folder cannot be written to, or its file system has no locks.
    """
    try:
        stream = (run / ".lock").open("ab")
    except OSError as error:
        raise OutputError(f"cannot be written to ({error.strerror})", mend="choose another --out", file=run) from None
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError("is being written by another process", mend="wait for it to end", file=run) from None
        except OSError as error:
            mend = "choose a folder on a local disk with --out"
            raise OutputError(f"cannot be locked ({error.strerror})", mend=mend, file=run) from None
        yield
