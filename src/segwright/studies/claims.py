"""Who works on what: a claim is a locked file, so that two studies that are started at once share the work.

The system gives a lock (`flock`, https://man7.org/linux/man-pages/man2/flock.2.html) back when all processes that hold
its descriptor ended, so that a claim is never stale. The process that trains inherits it: where the study alone is
killed, its runs stay claimed until they end too, and are not begun twice.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segwright.errors import OutputError

ALONE = ".alone"
"""Held for a moment by who looks and then acts; no run has such a name."""


class Claims:
    """The claims of this process on the runs of one study.

    Args:
        folder: of the locked files; made when the first is taken.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, int] = {}

    def take(self, name: str) -> int | None:
        """The descriptor of the claim; None where somebody else has it.

        Raises:
            OutputError: the folder cannot be written to, or its file system has no locks.
        """
        descriptor = self._opened(name)
        try:
            _lock(descriptor, self._path(name), wait=False)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OutputError:
            os.close(descriptor)
            raise
        self._held[name] = descriptor
        return descriptor

    def give_back(self, name: str) -> None:
        """End a claim; nothing happens where there is none."""
        descriptor = self._held.pop(name, None)
        if descriptor is not None:
            os.close(descriptor)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until nobody else is in here, and keep others out.

        Raises:
            OutputError: the folder cannot be written to, or its file system has no locks.
        """
        descriptor = self._opened(ALONE)
        try:
            _lock(descriptor, self._path(ALONE), wait=True)
            yield
        finally:
            os.close(descriptor)

    def give_all_back(self) -> None:
        for name in list(self._held):
            self.give_back(name)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.lock"

    def _opened(self, name: str) -> int:
        path = self._path(name)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            mend = "choose another folder with -o"
            raise OutputError(f"cannot be written ({error.strerror})", mend=mend, file=path) from None


def _lock(descriptor: int, path: Path, *, wait: bool) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except OSError as error:
        mend = "choose a folder on a file system with locks"
        raise OutputError(f"cannot be locked ({error.strerror})", mend=mend, file=path) from None


def is_locked(path: Path) -> bool:
    """Whether somebody holds the lock of a file; a file that is not there is not locked."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False
