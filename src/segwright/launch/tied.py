"""Run a command that is asked to end (SIGTERM) when the process that started it ends, in whatever way.

    python -I -S tied.py PID COMMAND...

Linux does that (`man 2 PR_SET_PDEATHSIG`, https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html), and it
holds across `exec`; elsewhere the command goes on alone. A file of its own, since code between fork and exec may hang
in a program with threads. PID is the process that is to be outlived by nobody.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_SET_DEATH_SIGNAL = 1


def main() -> None:
    """Become the command."""
    parent, *command = sys.argv[1:]
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, int(signal.SIGTERM))
        if os.getppid() != int(parent):
            sys.exit(128 + signal.SIGTERM)  # it ended before we asked
    os.execvp(command[0], command)  # noqa: S606  # the command of a job


if __name__ == "__main__":
    main()
