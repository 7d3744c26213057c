"""Who works on what: a claim is a locked file, so that two studies that are started at once share the work.

The system gives a lock (`flock`, https://man7.org/linux/man-pages/man2/flock.2.html) back when all processes that hold
its descriptor ended, so that a claim is never stale. The process that trains inherits it: where the study alone is
killed, its runs stay claimed until they end too, and are not begun twice.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from segwright.errors import OutputError


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
        path = self._folder / f"{name}.lock"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            mend = "choose another folder with -o"
            raise OutputError(f"cannot be written ({error.strerror})", mend=mend, file=path) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:
            os.close(descriptor)
            mend = "choose a folder on a file system with locks"
            raise OutputError(f"cannot be locked ({error.strerror})", mend=mend, file=path) from None
        self._held[name] = descriptor
        return descriptor

    def give_back(self, name: str) -> None:
        """End a claim; nothing happens where there is none."""
        descriptor = self._held.pop(name, None)
        if descriptor is not None:
            os.close(descriptor)

    def give_all_back(self) -> None:
        for name in list(self._held):
            self.give_back(name)


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
