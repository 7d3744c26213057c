"""Jobs on a Slurm cluster (https://slurm.schedmd.com/sbatch.html): arrays are submitted, and their tasks waited for.

Jobs that need the same cores and GPUs become one array, each job a script of its own (`launch/tasks.py`). A task
that ended leaves a done-file with its code; the queue is asked now and then whether it still knows the others. All
machines see the folder under one path.

Leaving, by Ctrl-C as well, cancels nothing: what is queued stays queued, and the next `run` with the same folder waits
for it in place of submitting it again.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from segwright.errors import OutputError, RunError
from segwright.files import read_json, write_json
from segwright.launch import Ended, Job
from segwright.launch.tasks import read_done, write_array

LONGEST_ARRAY = 1000
"""Slurm's MaxArraySize is 1001 where nobody changed it."""

LOOKS_AWAY = 2
"""A task without a done-file is lost when the queue does not know it so many times in a row."""


@dataclass(frozen=True)
class Task:
    """A job in the queue.

    Attributes:
        name: of the job.
        array: the number that Slurm gave the array.
        index: its place in the array.
        done: the file that tells how it ended.
    """

    name: str
    array: str
    index: int
    done: Path


class SlurmLauncher:
    """Submits arrays and waits for their tasks.

    Args:
        folder: of the scripts, the done-files and the memory of what was submitted; on a disk that all machines share.
        options: lines for `#SBATCH`, such as `--partition=gpu` or `--time=04:00:00`.
        at_once: most tasks of an array that run at a time; None for as many as the cluster allows.
        submit: the command that submits a script.
        queue: the command that tells what is queued.
        poll_seconds: between looks for done-files.
        look_seconds: between questions to the queue.

    Raises:
        RunError: an option is no option.
    """

    def __init__(
        self,
        folder: Path,
        *,
        options: Sequence[str] = (),
        at_once: int | None = None,
        submit: str = "sbatch",
        queue: str = "squeue",
        poll_seconds: float = 5.0,
        look_seconds: float = 60.0,
    ) -> None:
        self._folder = folder.resolve()
        self._options = tuple(checked_option(option) for option in options)
        self._at_once = at_once
        self._submit, self._queue = submit, queue
        self._poll_seconds, self._look_seconds = poll_seconds, look_seconds

    def run(self, jobs: Iterable[Job]) -> Iterator[Ended]:
        """Submit all jobs that are not queued already, and tell of each when it ends.

        Raises:
            RunError: Slurm refuses the array, or there is no Slurm.
            OutputError: the folder cannot be written to.
        """
        wanted = list(jobs)
        queued = self._still_queued({job.name for job in wanted})
        waiting = list(queued.values())
        fresh = sorted((job for job in wanted if job.name not in queued), key=_needs)
        for _, alike in groupby(fresh, key=_needs):
            several = list(alike)
            for start in range(0, len(several), LONGEST_ARRAY):
                waiting += self._submitted(several[start : start + LONGEST_ARRAY], known=waiting)
        yield from self._ends(waiting)

    def close(self) -> None:
        """Nothing to end: the queue keeps what it has."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _submitted(self, jobs: Sequence[Job], *, known: Sequence[Task]) -> list[Task]:
        """Write one array and hand it in."""
        folder = next_folder(self._folder)
        script = write_array(folder, jobs, options=self._options, at_once=self._at_once)
        if shutil.which(self._submit) is None:
            mend = f"log in where it is, or hand {folder / 'plain.sh'} to another scheduler (its head says how)"
            raise RunError(f"'{self._submit}' is not on this machine", mend=mend, file=script)
        done = subprocess.run([self._submit, "--parsable", str(script)], capture_output=True, text=True, check=False)  # noqa: S603  # as named
        # With several clusters the answer is 'number;cluster'.
        array = done.stdout.strip().partition(";")[0]
        if done.returncode or not array.isdigit():
            said = " ".join((done.stderr or done.stdout).split()) or f"code {done.returncode}"
            raise RunError(f"'{self._submit}' refused it: {said}", mend="change the options of the array", file=script)
        tasks = [Task(job.name, array, i, folder / f"{i}.done") for i, job in enumerate(jobs)]
        # What an earlier call for other runs has left in the queue is still there.
        names = {job.name for job in jobs} | {task.name for task in known}
        others = [task for task in self._remembered() if task.name not in names and not task.done.exists()]
        everything = [*others, *known, *tasks]
        write_json(self._folder / "queued.json", [_as_tree(task) for task in everything])
        return tasks

    def _still_queued(self, names: set[str]) -> dict[str, Task]:
        """Tasks of an earlier call that are in the queue, or ended while nobody waited."""
        tasks = [task for task in self._remembered() if task.name in names and not task.done.exists()]
        there = self._in_queue({task.array for task in tasks})
        if tasks and there is None and shutil.which(self._queue) is not None:
            problem = f"'{self._queue}' does not answer, so nothing tells whether {tasks[0].name} is queued already"
            raise RunError(problem, mend="try again in a minute", file=self._folder)
        # What ended without anybody being told may have failed: only the queue's own are waited for.
        return {task.name: task for task in tasks if there and (task.array, task.index) in there}

    def _remembered(self) -> list[Task]:
        """What was handed in, by this call and earlier ones."""
        memory = self._folder / "queued.json"
        return [_from_tree(tree) for tree in read_json(memory)] if memory.is_file() else []

    def _ends(self, tasks: Sequence[Task]) -> Iterator[Ended]:
        waiting = {task.done: task for task in tasks}
        missed = dict.fromkeys(waiting, 0)
        looked = time.monotonic()
        while waiting:
            for done in [done for done in waiting if done.is_file()]:
                code, seconds = read_done(done)
                yield Ended(waiting.pop(done).name, code, seconds)
            if waiting and time.monotonic() - looked >= self._look_seconds:
                looked = time.monotonic()
                there = self._in_queue({task.array for task in waiting.values()})
                for done, task in list(waiting.items()):
                    lost = there is not None and (task.array, task.index) not in there and not done.exists()
                    missed[done] = missed[done] + 1 if lost else 0
                    if missed[done] >= LOOKS_AWAY:
                        del waiting[done]
                        yield Ended(task.name, 137, 0.0)
            if waiting:
                time.sleep(self._poll_seconds)

    def _in_queue(self, arrays: set[str]) -> set[tuple[str, int]] | None:
        """Array and index of what is queued or runs; None where the queue does not answer."""
        if not arrays or shutil.which(self._queue) is None:
            return None
        words = [self._queue, "--noheader", "--array", "--format=%F %K", "--jobs", ",".join(sorted(arrays))]
        answer = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603  # as named
        if answer.returncode:
            # It forgets arrays that ended a while ago, and then knows none of that number.
            return set() if "Invalid job id" in answer.stderr else None
        pairs = (line.split() for line in answer.stdout.splitlines())
        return {(pair[0], int(pair[1])) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def next_folder(above: Path) -> Path:
    """A new folder for an array; two processes never get the same one.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        above.mkdir(parents=True, exist_ok=True)
        for number in range(1, 1_000_000):
            try:
                (above / f"array-{number}").mkdir()
            except FileExistsError:
                continue
            return above / f"array-{number}"
    except OSError as error:
        mend = "choose another folder"
        raise OutputError(f"cannot be written to ({error.strerror})", mend=mend, file=above) from None
    raise AssertionError("a million arrays")


def checked_option(option: str) -> str:
    """One line of `#SBATCH`.

    Raises:
        RunError: it does not start with '-', or is more than a line.
    """
    if not re.fullmatch(r"--?[A-Za-z].*", option) or not option.isprintable():
        raise RunError(f"'{option}' is no option of sbatch", mend="write it as --partition=gpu")
    return option


def _needs(job: Job) -> tuple[int, int]:
    return job.cpus, job.gpus


def _as_tree(task: Task) -> dict[str, Any]:
    return {"name": task.name, "array": task.array, "index": task.index, "done": str(task.done)}


def _from_tree(tree: Mapping[str, Any]) -> Task:
    return Task(tree["name"], tree["array"], tree["index"], Path(tree["done"]))
