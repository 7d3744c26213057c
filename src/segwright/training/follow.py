"""A process that trains along: it waits for process 0, trains its share of every batch, writes nothing, and leaves.

Where a recipe has stages it stays for all of them.

`python -m segwright.training.follow` is started by process 0; under torchrun and `srun` the verbs call `follow`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import Store

from segwright.errors import SegwrightError
from segwright.training.meeting import ASK_SECONDS, assembled, meet, part_of
from segwright.training.processes import Devices, Place, Team, find_place
from segwright.training.run import train_along


def follow(devices: Devices = "auto") -> None:
    """Return at once where this process is alone or leads; else train with process 0 and leave the program.

    Where it leads, the others can meet it from now on, however long it takes to pack the images.

    Args:
        devices: as the recipe has it.

    Raises:
        SystemExit: with 0 when all went well.
        SegwrightError: the processes were not started as the recipe asks, or do not meet.
    """
    place = find_place(devices)
    if place is None:
        return
    if place.rank == 0:
        meet(place)
        return
    _follow(place)


def _follow(place: Place) -> NoReturn:
    _ignore(signal.SIGINT)
    store = meet(place)
    number = 0
    while _takes_part(part_of(store, run=number), place):
        number += 1
    sys.exit(0)


def _takes_part(store: Store, place: Place) -> bool:
    """Train with process 0; whether it will call once more.

    Raises:
        SystemExit: there is no run, or this process cannot go on.
    """
    called = _asked(store, "run")
    if called is None:
        sys.exit(1)
    try:
        tree = json.loads(called)
        ended = train_along(
            Path(tree["run"]),
            orders=tree["orders"],
            local_rank=place.local_rank,
            join=lambda device: _join(store, place, device),
        )
    except BaseException as error:
        said = {"problem": f"{type(error).__name__}: {error}", "mend": ""}
        if isinstance(error, SegwrightError):
            said = {"problem": error.problem, "mend": error.mend}
        with contextlib.suppress(RuntimeError):
            store.set(f"failed/{place.rank}", json.dumps(said))
        if isinstance(error, SegwrightError):
            sys.exit(2)
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    return ended and bool(tree["more_to_come"])


def _ignore(number: signal.Signals) -> None:
    """Process 0 decides when to stop, and tells: the signal may have gone to all of them."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(number, signal.SIG_IGN)


def _asked(store: Store, key: str) -> str | None:
    """What process 0 says, however long it takes; None where it ended instead."""
    try:
        while not store.check([key]):
            if store.check(["over"]):
                return None
            time.sleep(ASK_SECONDS)
        return store.get(key).decode()
    except dist.DistError:
        return None


def _join(store: Store, place: Place, device: torch.device) -> Team:
    store.set(f"ready/{place.rank}", "1")
    if _asked(store, "go") is None:
        sys.exit(1)
    _ignore(signal.SIGTERM)
    return assembled(store, rank=place.rank, size=place.size, device=device)


def _end_with_first() -> None:
    """Wait for the end of the pipe that process 0 holds, however it ends, and end then."""
    os.read(0, 1)
    os._exit(1)


def main() -> None:
    """Train along with the process that started this one."""
    threading.Thread(target=_end_with_first, name="end-with-first", daemon=True).start()
    follow()


if __name__ == "__main__":
    main()
