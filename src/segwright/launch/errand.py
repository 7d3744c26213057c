"""What a node of a cluster does with a job: it runs the command, on our disk or on its own, and says how it ended.

On our disk the command runs as it is. On another one it runs in a scratch folder: the files that it names are written
there, words that name the results or the folder around them are changed, and the results go back as an archive. Where
a half of them stands on our disk already, the node asks for it: most nodes share our disk, and need no archive.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from segwright.errors import OutputError

GRACE_SECONDS = 45.0
LONGEST_LOG_BYTES = 2**20
_TIED = Path(__file__).with_name("tied.py")


@dataclass(frozen=True)
class Errand:
    """A job as it travels; all paths are whole.

    Attributes:
        name: of the job.
        command: its words.
        again: the words where `results` or `begun` is there already; empty: `command`.
        env: variables on top of the node's own.
        cwd: where the command runs, on our disk.
        log: file that its output is added to.
        results: the folder that it writes.
        begun: a file in a folder beside it, which it writes as well; see `segwright.launch.Job`.
        probe: a file that stands on our disk.
        files: words of the command that are files, with what they hold.
        half: the folders hold a half of the results already, that the command goes on with.
        sent: that half as a tar, for a node that asked for it.
    """

    name: str
    command: tuple[str, ...]
    again: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    log: Path
    results: Path | None
    begun: Path | None
    probe: Path
    files: Mapping[str, bytes]
    half: bool = False
    sent: bytes | None = field(default=None, repr=False)

    @property
    def folders(self) -> tuple[Path, ...]:
        """All that it writes."""
        both = (self.results, None if self.begun is None else self.begun.parent)
        return tuple(folder for folder in both if folder is not None)

    @property
    def words(self) -> tuple[str, ...]:
        """What is to run, as far as it has come."""
        return self.again if self.again and self.is_begun else self.command

    @property
    def is_begun(self) -> bool:
        """Whether something stands there that can be gone on with."""
        return any(path is not None and path.exists() for path in (self.results, self.begun))


@dataclass(frozen=True)
class Brought:
    """How it ended.

    Attributes:
        code: what the command left with; 128 + n where signal n ended it.
        seconds: from its start to its end.
        archive: the folders as a tar, where the node has another disk.
        log: what the command said, where the node has another disk.
        asks: nothing was run: the node has another disk, and asks for the half that stands on ours.
    """

    code: int
    seconds: float
    archive: bytes | None = None
    log: str = ""
    asks: bool = False


def carry_out(errand: Errand) -> Brought:
    """Run the command of a job on this machine; a second call goes on where a first one was lost."""
    if errand.probe.is_file():
        return _run(errand.words, errand, cwd=errand.cwd, log=errand.log)
    scratch = scratch_of(errand)
    log, there = scratch / "log.txt", _placed(errand, scratch / "out")
    missing = errand.half and not there.is_begun
    if missing and errand.sent is None:
        return Brought(0, 0.0, asks=True)
    scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    if there.folders:
        (scratch / "out").mkdir(exist_ok=True)
    if missing and errand.sent is not None:
        unpack(errand.sent, there.folders)
    ended = _run(moved(there.words, errand, scratch=scratch), errand, cwd=scratch, log=log)
    written = [folder for folder in there.folders if folder.exists()]
    archive = pack(written) if written else None
    said = log.read_bytes()[-LONGEST_LOG_BYTES:].decode(errors="replace")
    shutil.rmtree(scratch, ignore_errors=True)
    return Brought(ended.code, ended.seconds, archive, said)


def scratch_of(errand: Errand) -> Path:
    """A folder of this machine that a second try finds again."""
    who = f"{os.getuid()} {errand.log} {errand.name} {errand.probe.name}"
    return Path(tempfile.gettempdir()) / f"segwright-{hashlib.blake2b(who.encode(), digest_size=12).hexdigest()}"


def _placed(errand: Errand, out: Path) -> Errand:
    """The same, whose folders lie in another one."""
    results, begun = errand.results, errand.begun
    return replace(
        errand,
        results=None if results is None else out / results.name,
        begun=None if begun is None else out / begun.parent.name / begun.name,
    )


def moved(words: Sequence[str], errand: Errand, *, scratch: Path) -> tuple[str, ...]:
    """The words with the paths that they have on a machine with another disk; files are written there."""
    paths: dict[str, str] = {}
    for i, (word, content) in enumerate(errand.files.items()):
        target = scratch / f"{i}-{Path(word).name}"
        target.write_bytes(content)
        paths[word] = str(target)
    if errand.results is not None:
        paths[str(errand.results)] = str(scratch / "out" / errand.results.name)
        paths[str(errand.results.parent)] = str(scratch / "out")
    # The interpreter may stand elsewhere on this machine.
    changed = tuple(paths.get(word) or paths.get(str((errand.cwd / word).resolve()), word) for word in words)
    python = changed[0]
    if Path(python).name.startswith("python") and not Path(python).exists():
        return (sys.executable, *changed[1:])
    return changed


def _run(words: Sequence[str], errand: Errand, *, cwd: Path, log: Path) -> Brought:
    """Run it as a process; a call that is given up ends it, and waits until it has saved."""
    began = time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output, log.with_name(f".{log.name}.lock").open("ab") as lock:
        # The process of a first try holds this as well: it may still be saving.
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = subprocess.Popen(  # noqa: S603  # the command of a job
            [sys.executable, "-I", "-S", str(_TIED), str(os.getpid()), *words],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **errand.env},
            start_new_session=True,
            pass_fds=(lock.fileno(),),
        )
        try:
            code = process.wait()
        finally:
            end(process)
    return Brought(128 - code if code < 0 else code, time.monotonic() - began)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process and all that it started to end, and end them where they do not."""
    if process.poll() is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def pack(folders: Sequence[Path]) -> bytes:
    """Folders as a tar, by their names; links are left out."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for folder in folders:
            for path in sorted(folder.rglob("*")):
                if path.is_file() and not path.is_symlink():
                    tar.add(path, arcname=f"{folder.name}/{path.relative_to(folder)}", recursive=False)
    return stream.getvalue()


def unpack(archive: bytes, folders: Sequence[Path]) -> None:
    """Put folders that were packed in place, each whole or not at all; what stands there is an earlier part of it.

    Args:
        archive: of `pack`.
        folders: where they belong, beside one another; what else the archive holds is left out.

    Raises:
        OutputError: the disk is full, or a path leaves the folder.
    """
    above, name = folders[0].parent, folders[0].name
    above.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=above, prefix=f".{name[:100]}."))
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(fresh, filter="data")
        for folder in folders:
            if not (fresh / folder.name).is_dir():
                continue
            if folder.exists():
                shutil.rmtree(folder)
            (fresh / folder.name).rename(folder)
    except (OSError, tarfile.TarError) as error:
        raise OutputError(f"cannot be brought back ({error})", mend="free some space", file=folders[0]) from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
