"""Jobs on the nodes of a Ray cluster (https://docs.ray.io/en/latest/ray-core/tasks.html). The only door to Ray.

A job becomes a remote task that needs so many cores and GPUs; Ray finds it a node, and starts it again on another one
where a worker or a node is lost (https://docs.ray.io/en/latest/ray-core/fault_tolerance/tasks.html). The task runs the
command as a process of its own. Whether a node sees our disk is found out by a file that stands there for the time of
the run. Where it does not, the files that the command names are sent along, and what an earlier try has left here; the
results come back as an archive. The images that a recipe names must be on such a node already, under the same path.

The head of a cluster belongs on a network that nobody else is on: whoever reaches its port can run code there.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from segwright.errors import MissingExtraError, OutputError, RunError
from segwright.files import atomic
from segwright.launch import Ended, Job
from segwright.launch.errand import Brought, Errand, carry_out, pack, unpack

# Both are read when Ray is imported; without the second one it warns of a change to come.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

try:
    import ray
    from ray.exceptions import RayError
except ImportError:
    raise MissingExtraError("Ray", extra="ray") from None

library: Any = ray
"""Half of Ray's own functions have no types."""

STORE_BYTES = 100 * 2**20
"""Of the object store of a cluster that we start: it holds results that come back, and nothing else."""

LOST = 137
CLOSING_SECONDS = 60.0


class RayLauncher:
    """Runs jobs on a Ray cluster.

    Args:
        address: of a cluster that is there, such as `10.0.0.1:6379`, or `auto` for the one of this machine; None for
            one that is started here, for this machine alone, and stopped at the end.
        retries: how often a job is started again after its worker or node was lost.
        cpus: cores of a cluster that is started here; None for all.
        gpus: GPUs of a cluster that is started here; None for all.

    Raises:
        RunError: there is no cluster at that address.
    """

    def __init__(
        self, address: str | None = None, *, retries: int = 3, cpus: int | None = None, gpus: int | None = None
    ) -> None:
        self._retries = retries
        self._ours = not library.is_initialized()
        self._running: dict[Any, tuple[Job, Errand, float]] = {}
        if self._ours:
            self._connect(address, cpus=cpus, gpus=gpus)

    def _connect(self, address: str | None, *, cpus: int | None, gpus: int | None) -> None:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        try:
            if address is not None:
                library.init(**_address(address), **quiet)
                return
            library.init(
                address="local",
                num_cpus=cpus,
                num_gpus=gpus,
                include_dashboard=False,
                object_store_memory=STORE_BYTES,
                _node_ip_address="127.0.0.1",
                **quiet,
            )
        except Exception as error:  # noqa: BLE001  # a bare one where a node does not start
            said = " ".join(str(error).split())[:200]
            mend = "start one with 'ray start --head', or give its address as IP:PORT"
            raise RunError(f"no Ray cluster at '{address or 'local'}' ({said})", mend=mend) from None

    def run(self, jobs: Iterable[Job]) -> Iterator[Ended]:
        """Run all jobs, and tell of each when it ends.

        Raises:
            RunError: a job needs more than any node has.
            OutputError: a log cannot be written.
        """
        source = iter(jobs)
        there_are_more = True
        probes: dict[Path, Path] = {}
        try:
            while there_are_more or self._running:
                while there_are_more and len(self._running) < self._room():
                    job = next(source, None)
                    there_are_more = job is not None
                    if job is not None:
                        folder = job.log.resolve().parent
                        probes[folder] = probes.get(folder) or _probe(folder)
                        self._start(job, probe=probes[folder])
                yield from self._ended()
        finally:
            for probe in probes.values():
                probe.unlink(missing_ok=True)

    def close(self) -> None:
        """Ask what still runs to end, wait for that, and stop the cluster where it was started here."""
        if not library.is_initialized():
            return
        try:
            running = list(self._running)
            for reference in running:
                library.cancel(reference, force=False)
            if running:
                library.wait(running, num_returns=len(running), timeout=CLOSING_SECONDS)
            self._running.clear()
        finally:
            if self._ours:
                library.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _room(self) -> int:
        """Jobs that may be in flight; a few more than have room, for Ray queues them."""
        return int(library.cluster_resources().get("CPU", 0)) + 1

    def _start(self, job: Job, *, probe: Path) -> None:
        nodes = [node["Resources"] for node in library.nodes() if node["Alive"]]
        if not any(node.get("CPU", 0) >= job.cpus and node.get("GPU", 0) >= job.gpus for node in nodes):
            problem = f"no node has {job.cpus} cores and {job.gpus} GPUs, which '{job.name}' needs"
            raise RunError(problem, mend="ask for less, or add a node with 'ray start --address ...'")
        self._send(job, errand_of(job, probe=probe))

    def _send(self, job: Job, errand: Errand) -> None:
        remote = library.remote(num_cpus=job.cpus, num_gpus=job.gpus, max_retries=self._retries)(carry_out)
        self._running[remote.remote(errand)] = (job, errand, time.monotonic())

    def _ended(self) -> list[Ended]:
        if not self._running:
            return []
        ready: Sequence[Any]
        ready, _ = library.wait(list(self._running), num_returns=1, timeout=1.0)
        ends = []
        for reference in ready:
            job, errand, began = self._running.pop(reference)
            try:
                brought: Brought = library.get(reference)
            except RayError as error:
                _note(job, f"lost: {type(error).__name__}, after {self._retries} more tries")
                ends.append(Ended(job.name, LOST, time.monotonic() - began))
                continue
            if brought.asks:
                self._send(job, replace(errand, sent=pack(errand.folders)))
                continue
            if brought.archive is not None:
                unpack(brought.archive, errand.folders)
            if brought.log:
                _note(job, brought.log)
            ends.append(Ended(job.name, brought.code, brought.seconds))
        return ends


def _address(address: str) -> dict[str, str]:
    """A cluster of this machine alone, such as at 127.0.0.2:6379, is met as it is; Ray itself would take 127.0.0.1 for
    the machine's outer address, where such a cluster does not listen.
    """
    host = address.rpartition(":")[0]
    return {"address": address} | ({"_node_ip_address": host} if host.startswith("127.") else {})


def errand_of(job: Job, *, probe: Path) -> Errand:
    """What is sent to a node: the job, its paths whole, and the small files that its command names."""
    errand = Errand(
        name=job.name,
        command=job.command,
        again=job.again,
        env={"OMP_NUM_THREADS": str(job.cpus), **job.env},
        cwd=Path.cwd(),
        log=job.log.resolve(),
        results=None if job.results is None else job.results.resolve(),
        begun=None if job.begun is None else job.begun.resolve(),
        probe=probe,
        files={word: Path(word).read_bytes() for word in job.command if _is_small_file(Path(word))},
    )
    return replace(errand, half=bool(job.again) and errand.is_begun)


LARGEST_SENT_BYTES = 16 * 2**20


def _is_small_file(path: Path) -> bool:
    # Not the interpreter, which every node has.
    try:
        return path.is_file() and not os.access(path, os.X_OK) and path.stat().st_size <= LARGEST_SENT_BYTES
    except OSError:  # a word that is too long for a path
        return False


def _probe(folder: Path) -> Path:
    path = folder / f".probe-{uuid.uuid4().hex}"
    with atomic(path) as stream:
        stream.write(b"segwright looks whether this disk is shared\n")
    return path


def _note(job: Job, text: str) -> None:
    try:
        with job.log.open("a", encoding="utf-8") as stream:
            stream.write(text.rstrip("\n") + "\n")
    except OSError as error:
        mend = "free some space or choose another folder"
        raise OutputError(f"cannot be written ({error.strerror})", mend=mend, file=job.log) from None
