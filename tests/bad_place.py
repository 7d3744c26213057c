"""Where bad inputs are tried: a folder that is laid out anew for each, and the command line called in this process."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import shlex
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from bad_files import Make, photos

NOBODY = 65534
TINY = "--epochs 1 -o model.name=unet -o model.arguments='{depth: 2, width: 4}' -o training.batch_size=4"


@dataclass(frozen=True)
class Case:
    """One input.

    Attributes:
        name: what is wrong.
        make: writes files into the folder where the command is called; a run stands there as runs/first.
        words: the command line after `segwright`.
        said: texts that the answer must hold.
        code: the exit code; 0 for what is allowed.
        nobody: called as a user without rights, where the caller is root.
        left: what may stand in the folder afterwards, because the rest of the work was done.
        check: what must hold after an allowed case.
        slow: not in the suite.
    """

    name: str
    make: Make
    words: str
    said: tuple[str, ...]
    code: int = 2
    nobody: bool = False
    left: str = ""
    check: Callable[[Path], object] | None = None
    slow: bool = False


@dataclass(frozen=True)
class Answer:
    """What a command gave."""

    code: int
    out: str
    error: str
    seconds: float


class Place:
    """A folder in which one case after the other is set up; a run that was trained once stands in each.

    Args:
        base: an empty folder. Others may look into it, so that a user without rights can be played in it.
    """

    def __init__(self, base: Path) -> None:
        base.chmod(0o755)
        self.home, self._kept, self._cache = base / "home", base / "kept", base / "cache"
        self._cache.mkdir()
        self._command: Any = None
        self.home.mkdir()
        photos(self.home)
        answer = self.call(f"train photos {TINY} --name first -o training.ema=0.5")
        assert answer.code == 0, answer.error
        self.home.rename(self._kept)

    def lay(self, make: Make) -> None:
        """Empty the folder, put the run into it and the files of a case."""
        self.clear()
        self.home.mkdir()
        shutil.copytree(self._kept / "runs", self.home / "runs")
        make(self.home)

    def clear(self) -> None:
        for folder, _, _ in os.walk(self.home):
            Path(folder).chmod(0o755)
        shutil.rmtree(self.home, ignore_errors=True)

    def call(self, words: str, *, nobody: bool = False) -> Answer:
        """Run `segwright words` in the folder."""
        import typer.main

        from segwright import cli

        # Typer would build all commands anew for every call.
        self._command = self._command or typer.main.get_command(cli.app)
        for folder in (self._cache, *self._cache.rglob("*")):
            folder.chmod(0o777)
        out, error, code, before, started = io.StringIO(), io.StringIO(), 0, Path.cwd(), time.perf_counter()
        warned = logging.StreamHandler(error)  # as Python does where nobody else listens
        logging.getLogger("segwright").addHandler(warned)
        os.chdir(self.home)
        try:
            with (
                mock.patch.dict(os.environ, SEGWRIGHT_CACHE=str(self._cache)),
                mock.patch.object(cli, "app", self._command),
                mock.patch.object(sys, "argv", ["segwright", *shlex.split(words)]),
                contextlib.redirect_stdout(out),
                contextlib.redirect_stderr(error),
                _as_nobody(really=nobody),
            ):
                cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            os.chdir(before)
            logging.getLogger("segwright").removeHandler(warned)
        return Answer(code, out.getvalue(), error.getvalue(), time.perf_counter() - started)


@contextlib.contextmanager
def _as_nobody(*, really: bool) -> Iterator[None]:
    """Root may read and write everything; for a while it is somebody else."""
    really = really and os.geteuid() == 0
    if really:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if really:
            os.seteuid(0)


def listing(folder: Path) -> dict[str, str]:
    """What stands in a folder: a digest of every file, the target of every link."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                found[str(path)] = hashlib.blake2b(path.read_bytes()).hexdigest()
            else:
                found[str(path)] = str(path.readlink()) if path.is_symlink() else str(stat.S_IFMT(status.st_mode))
    return found


def faults(case: Case, place: Place) -> tuple[Answer, list[str]]:
    """Run a case; what is not as it must be, in words."""
    place.lay(case.make)
    before = listing(place.home)
    answer = place.call(case.words, nobody=case.nobody)
    found = [] if answer.code == case.code else [f"exit code {answer.code}"]
    whole = answer.error if case.code else answer.out + answer.error
    found += [f"does not name {word!r}" for word in case.said if word not in whole]
    if case.code:
        found += _traces(before, listing(place.home), left=case.left and f"{place.home / case.left}")
        if not answer.error.startswith("segwright: ") or answer.error.count("\n") != 1:
            found.append("is not one line that starts with 'segwright: '")
    elif not found and case.check is not None and not case.check(place.home):
        found.append("left something behind that is not as it must be")
    return answer, found


def _traces(before: dict[str, str], after: dict[str, str], *, left: str) -> list[str]:
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return [f"changed {name}" for name in changed if not (left and name.startswith(left))]
