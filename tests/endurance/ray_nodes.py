"""Two Ray nodes of this machine, jobs on both, and one worker that is killed in the middle: does the list complete?

    python tests/endurance/ray_nodes.py [--jobs 6] [--seconds 4] [--study STUDY.yaml --out OUT]

The jobs count to their end, a step a line, and go on where they were when they are started again. With --study, the
runs of a study are trained instead. The worker that is killed (SIGKILL) is the one that runs the first job.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from segwright.launch import Job
from segwright.launch.ray import STORE_BYTES, RayLauncher

COUNT = """
import os, sys, time
folder, steps = sys.argv[1], int(sys.argv[2])
os.makedirs(folder, exist_ok=True)
path = os.path.join(folder, "steps.txt")
done = sum(1 for _ in open(path)) if os.path.exists(path) else 0
with open(os.path.join(folder, "starts.txt"), "a") as starts:
    starts.write(f"{os.getppid()} {done}" + chr(10))
for step in range(done, steps):
    with open(path, "a") as rows:
        rows.write(f"{step}" + chr(10))
    time.sleep(0.1)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=4.0, help="of a job")
    parser.add_argument("--study", type=Path)
    parser.add_argument("--out", type=Path, default=None)
    asked = parser.parse_args()
    began = time.monotonic()
    quiet = {"num_cpus": 1, "object_store_memory": STORE_BYTES, "node_ip_address": "127.0.0.2"}
    cluster = Cluster(initialize_head=True, head_node_args={**quiet, "include_dashboard": False})
    try:
        cluster.add_node(**quiet)
        print(f"two nodes after {time.monotonic() - began:.1f} s", flush=True)
        if asked.study is not None:
            train(asked.study, asked.out or Path(tempfile.mkdtemp()), address=cluster.address)
        else:
            with tempfile.TemporaryDirectory() as folder:
                count(Path(folder), address=cluster.address, jobs=asked.jobs, steps=int(asked.seconds * 10))
    finally:
        ray.shutdown()
        cluster.shutdown()


def count(folder: Path, *, address: str, jobs: int, steps: int) -> None:
    """Run counting jobs and say what became of them."""
    wanted = [
        Job(
            name=f"job-{i}",
            command=(sys.executable, "-c", COUNT, str(folder / f"job-{i}"), str(steps)),
            log=folder / "logs" / f"{i}.txt",
            results=folder / f"job-{i}",
        )
        for i in range(jobs)
    ]
    threading.Thread(target=kill_first, args=(folder / "job-0" / "starts.txt",), daemon=True).start()
    began = time.monotonic()
    with RayLauncher(address) as launcher:
        codes = Counter(end.code for end in launcher.run(wanted))
    told = {
        "jobs": jobs,
        "seconds": round(time.monotonic() - began, 1),
        "codes": dict(codes),
        "starts": [len((folder / job.name / "starts.txt").read_text().split("\n")) - 1 for job in wanted],
        "complete": [
            (folder / job.name / "steps.txt").read_text().split() == [str(i) for i in range(steps)] for job in wanted
        ],
    }
    print(json.dumps(told))
    if codes != {0: jobs} or not all(told["complete"]) or told["starts"][0] != 2:
        sys.exit("not complete, or nothing was killed")


def kill_first(starts: Path) -> None:
    """Kill the worker that runs the first job, in its middle."""
    while not starts.exists() or not starts.read_text().endswith("\n"):
        time.sleep(0.1)
    time.sleep(1.0)
    worker = int(starts.read_text().split()[0])
    os.kill(worker, signal.SIGKILL)
    print(f"killed worker {worker}", flush=True)


def train(study: Path, out: Path, *, address: str) -> None:
    """Run a study on the nodes, killing the worker of its first run."""
    from segwright import verbs
    from segwright.studies.machines import Machines

    def kill() -> None:
        while not (runs := list((out / "runs").glob("*/metrics.jsonl"))):
            time.sleep(0.5)
        name = runs[0].parent.name.encode()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                words, parent = (
                    (entry / "cmdline").read_bytes(),
                    (entry / "stat").read_text().rsplit(")")[-1].split()[1],
                )
            except OSError:
                continue
            if b"segwright\0train" in words and name in words:
                os.kill(int(parent), signal.SIGKILL)
                print(f"killed the worker of {name.decode()}", flush=True)

    threading.Thread(target=kill, daemon=True).start()
    print(verbs.study(study, out=out, machines=Machines("ray", ray_address=address)))


if __name__ == "__main__":
    main()
