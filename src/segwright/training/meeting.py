"""How the processes of a run meet: process 0 opens a store (a small key-value server of PyTorch), the others ask it.

Of each run, for the stages of a recipe follow one another (`part_of`):

    key          written by     says
    run          process 0      the run folder, once recipe and split stand in it, and whether another run comes next
    ready/RANK   process RANK   its images and model are there
    failed/RANK  process RANK   why it cannot go on
    go           process 0      all are ready: make the process group now
    over         process 0      the run is over, one way or the other, or it will not come

The processes are those that torchrun or `srun` started, or process 0 starts them itself (`training.devices: 2`) as
`python -m segwright.training.follow`: nothing of the caller's program runs twice, so scripts and notebooks may do so.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, ProcessGroup, Store
from torch.distributed.rendezvous import rendezvous

from segwright.errors import RecipeError, TrainingError
from segwright.training.processes import ALONE, Devices, Place, Team, backend_of, find_place

MEET_SECONDS = 300
"""Processes that were started together must meet within this time."""
STEP_SECONDS = 1800
"""The longest that one process waits for the others within a step or an epoch's end."""
ASK_SECONDS = 0.2
LEAVE_SECONDS = 30
LOST_SECONDS = 5.0
"""How long one is asked what became of it after it no longer answers."""
_COUNT = "runs"
"""The key that counts the runs that have begun."""
_MEND = "see what it said, then go on with --resume"
_LOST = re.compile(r"gloo|NCCL|connection (closed|reset|refused)|broken pipe", re.IGNORECASE)


class Gathering:
    """What process 0 knows of the others.

    Args:
        size: how many processes there are, itself included.
        device: its own.
        store: where processes meet that were started from outside; None where it starts them itself.
        more_to_come: those stay for another run.
    """

    def __init__(
        self, size: int, *, device: torch.device, store: Store | None = None, more_to_come: bool = False
    ) -> None:
        self.size, self.device = size, device
        self._store = store
        # Processes of our own are started anew for each run.
        self._more_to_come = more_to_come and store is not None
        self._children: list[subprocess.Popen[bytes]] = []
        self._threads = torch.get_num_threads()

    def begin(self, run: Path, *, orders: Mapping[str, int]) -> Team:
        """Call the others to the run, whose recipe and split are written, and wait until all are ready.

        Args:
            run: the run folder.
            orders: what they cannot read there; see `train_along`.

        Raises:
            TrainingError: one of them cannot take part.
        """
        if self.size == 1:
            return ALONE
        if self._store is None:
            self._store = self._start_others()
        called = {"run": str(run.resolve()), "orders": dict(orders), "more_to_come": self._more_to_come}
        self._store.set("run", json.dumps(called))
        for rank in range(1, self.size):
            while not self._store.check([f"ready/{rank}"]):
                lost = self._lost()
                if lost is not None:
                    raise lost
                time.sleep(0.05)
        self._store.set("go", "1")
        return assembled(self._store, rank=0, size=self.size, device=self.device)

    def _start_others(self) -> Store:
        store = dist.TCPStore(  # type: ignore[attr-defined]  # documented, but not in their list of exports
            "127.0.0.1", 0, None, True, timedelta(seconds=MEET_SECONDS), wait_for_workers=False
        )
        threads = max(1, self._threads // self.size)
        torch.set_num_threads(threads)
        passed = {name: value for name, value in os.environ.items() if not name.startswith("TORCHELASTIC_")}
        shared = {
            "WORLD_SIZE": str(self.size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port),
            "OMP_NUM_THREADS": str(threads), "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }  # fmt: skip
        for rank in range(1, self.size):
            # A session of its own: Ctrl-C reaches process 0 alone. Its end closes the pipe, and theirs follows.
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", "segwright.training.follow"],
                env={**passed, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdin=subprocess.PIPE,
                start_new_session=True,
            )
            self._children.append(child)
        return part_of(PrefixStore("segwright", store), run=0)

    def _lost(self) -> TrainingError | None:
        """What became of a process that failed; None where none is known to have."""
        assert self._store is not None, "asked only after the start"
        for rank in range(1, self.size):
            named = f"process {rank} of {self.size} failed"
            if self._store.check([f"failed/{rank}"]):
                said = json.loads(self._store.get(f"failed/{rank}"))
                return TrainingError(f"{named}: {said['problem']}", mend=said["mend"] or _MEND)
            code = self._children[rank - 1].poll() if self._children else None
            if code:
                return TrainingError(f"{named} (exit code {code})", mend=_MEND)
        return None

    def explain(self, error: RuntimeError) -> TrainingError | None:
        """Why an exchange with the others broke off; None where the error is no such thing."""
        if self._store is None or not (isinstance(error, dist.DistError) or _LOST.search(str(error))):
            return None
        until = time.monotonic() + LOST_SECONDS
        while time.monotonic() < until:
            lost = self._lost()
            if lost is not None:
                return lost
            time.sleep(0.1)
        return TrainingError("another process of this run is gone", mend=_MEND)

    def end(self, *, at_once: bool) -> None:
        """Take leave of the others; those that this process started are ended if they do not go."""
        with contextlib.suppress(RuntimeError):
            if self._store is not None:
                self._store.set("over", "1")
            if self.size > 1 and dist.is_initialized():
                dist.destroy_process_group()
        until = time.monotonic() + (0 if at_once else LEAVE_SECONDS)
        for child in self._children:
            try:
                child.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            assert child.stdin is not None
            child.stdin.close()
        if self._children:
            torch.set_num_threads(self._threads)


@contextmanager
def gathering(devices: Devices, *, device: torch.device, more_to_come: bool = False) -> Iterator[Gathering]:
    """Lead the processes of a run: those that were started with this one, or that it will start, or none.

    Args:
        devices: how many processes; `auto` takes those that were started, or this one alone.
        device: the kind of device to train on.
        more_to_come: those that were started with this one stay for another run.

    Raises:
        RecipeError: there are not so many devices, or not so many processes were started.
        TrainingError: the others do not come, or one of them failed meanwhile.
    """
    place, size = find_place(devices), size_of(devices, device=device)
    if place is not None:
        assert place.rank == 0, "the others follow"
        here = device_at(place.local_rank, device=device)
        group = Gathering(size, device=here, store=_next_run(meet(place)), more_to_come=more_to_come)
    else:
        group = Gathering(size, device=device_at(0, device=device) if size > 1 else device)
    failed = True
    try:
        yield group
        failed = False
    except RuntimeError as error:
        reason = group.explain(error)
        if reason is None:
            raise
        raise reason from error
    finally:
        group.end(at_once=failed)
        if place is not None and (failed or not more_to_come):
            with contextlib.suppress(RuntimeError):
                _following(meet(place)).set("over", "1")


def _next_run(store: Store) -> Store:
    """The keys of the run that begins now.

    Raises:
        TrainingError: the others wait for none.
    """
    own = _following(store)
    if own.check(["over"]):
        mend = "train one model a call of torchrun or srun, or set training.devices: 1"
        raise TrainingError("the other processes have left with the model before", mend=mend)
    store.add(_COUNT, 1)
    return own


def part_of(store: Store, *, run: int) -> Store:
    """The keys of one run; runs are counted from 0."""
    return PrefixStore(f"run {run}", store)


def _following(store: Store) -> Store:
    """The keys of the run after all that have begun."""
    return part_of(store, run=int(store.add(_COUNT, 0)))


@functools.cache
def meet(place: Place) -> Store:
    """The store of the processes that were started together; process 0 opens it, and it is there until that ends.

    Raises:
        TrainingError: not all of them came.
    """
    host = f"[{place.host}]" if ":" in place.host else place.host
    where = f"tcp://{host}:{place.port}?rank={place.rank}&world_size={place.size}"
    try:
        store: Store
        store, _, _ = next(rendezvous(where, timeout=timedelta(seconds=MEET_SECONDS)))
    except RuntimeError as error:
        problem = f"process {place.rank} of {place.size} met not all others at {place.host}:{place.port}"
        mend = "see whether one of them ended with a message, or whether the network lets them talk"
        raise TrainingError(f"{problem} within {MEET_SECONDS} seconds", mend=mend) from error
    store = PrefixStore("segwright", store)
    if place.rank == 0:
        atexit.register(_let_go, store)
    return store


def _let_go(store: Store) -> None:
    """Tell those that still wait for a run that none will come, before the store is gone."""
    with contextlib.suppress(RuntimeError):
        following = _following(store)
        if not following.check(["over"]):
            following.set("over", "1")
            time.sleep(2 * ASK_SECONDS)


def assembled(store: Store, *, rank: int, size: int, device: torch.device) -> Team:
    """The process group, made by all at the same time."""
    backend = backend_of(device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(
        backend, store=store, rank=rank, world_size=size, timeout=timedelta(seconds=STEP_SECONDS),
        device_id=device if device.type == "cuda" else None,
    )  # fmt: skip
    if backend == "gloo":
        return Team(rank, size)
    control = dist.new_group(backend="gloo", timeout=timedelta(seconds=STEP_SECONDS))
    assert isinstance(control, ProcessGroup), "every process is a member"
    return Team(rank, size, control=control)


def device_at(local_rank: int, *, device: torch.device) -> torch.device:
    """The device of one process of a machine.

    Raises:
        RecipeError: there are fewer GPUs than processes.
    """
    if device.type != "cuda":
        return device
    count = torch.cuda.device_count()
    # `srun --gpus-per-task=1` shows each process its own GPU only.
    if count > 1 and local_rank >= count:
        raise RecipeError(f"process {local_rank} of this machine has no GPU, there are {count}", mend="start fewer")
    return torch.device("cuda", local_rank if count > 1 else 0)


def size_of(devices: Devices, *, device: torch.device) -> int:
    """How many processes a run is trained by.

    Args:
        devices: as for `gathering`.
        device: the kind of device to train on.

    Raises:
        RecipeError: there are not so many devices, or not so many processes were started.
    """
    place = find_place(devices)
    if place is not None:
        return place.size
    size = 1 if devices == "auto" else devices
    there = {"cuda": torch.cuda.device_count(), "cpu": os.cpu_count() or 1}.get(device.type, 1)
    if size > there:
        what = {"cuda": "GPUs", "cpu": "processor cores"}.get(device.type, "devices")
        raise RecipeError(f"training.devices = {size}, but there are {there} {what}", mend=f"use 1 to {there}, or auto")
    return size
