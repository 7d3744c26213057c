"""The memory of a process and all its children, sampled while it runs.

Counted is the proportional set size (PSS, https://docs.kernel.org/filesystems/proc.html): pages that several processes
share are parted among them, so the sum over a tree of processes is what the tree takes. Mapped pages of files count.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

EVERY_SECONDS = 0.2
PARTS = ("Pss", "Pss_Anon", "Pss_File", "Pss_Shmem")


@dataclass
class Memory:
    """What was seen.

    Attributes:
        peak_mib: the largest sum over the tree.
        peak: what it was made of, in MiB: anonymous pages, pages of files, shared memory.
        processes: how many there were at the peak.
        samples: how often it was looked.
    """

    peak_mib: float = 0.0
    peak: dict[str, float] = field(default_factory=dict)
    processes: int = 0
    samples: int = 0


@dataclass(frozen=True)
class Finished:
    """A command that ran to its end."""

    output: str
    seconds: float
    memory: Memory


def run_watched(command: Sequence[str], *, environment: Mapping[str, str]) -> Finished:
    """Run a command and watch its memory; a command that fails ends the script with its words."""
    started = time.perf_counter()
    with subprocess.Popen(
        command, env=dict(environment), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        seen = Memory()
        watch = threading.Thread(target=_watch, args=(process, seen), daemon=True)
        watch.start()
        output, _ = process.communicate()
        watch.join()
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\nended with {process.returncode}:\n{output}")
    return Finished(output, time.perf_counter() - started, seen)


def _watch(process: subprocess.Popen[str], seen: Memory) -> None:
    while process.poll() is None:
        parts = [found for pid in tree(process.pid) if (found := pss_mib(pid)) is not None]
        seen.samples += 1
        total = sum(part["Pss"] for part in parts)
        if total > seen.peak_mib:
            seen.peak_mib, seen.processes = round(total, 1), len(parts)
            seen.peak = {name: round(sum(part.get(name, 0.0) for part in parts), 1) for name in PARTS[1:]}
        time.sleep(EVERY_SECONDS)


def tree(root: int) -> list[int]:
    """A process and all that it started, directly or not."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                # The name of a program may hold blanks and brackets; what follows the last bracket does not.
                fields = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(folder.name))
    found = [root]
    for pid in found:
        found += parents.get(pid, [])
    return found


def pss_mib(pid: int) -> dict[str, float] | None:
    """The parts of a process's PSS; None when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return None
    sizes = {name: int(rest.split()[0]) / 1024 for name, _, rest in (line.partition(":") for line in lines)}
    return {name: sizes[name] for name in PARTS if name in sizes}
