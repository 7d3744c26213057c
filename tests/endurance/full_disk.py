"""Let the disk fill while a run trains: one clear line, exit code 2, nothing spoilt, and the run goes on afterwards.

    python tests/endurance/full_disk.py [--folder /mnt/small] --out tests/endurance/results/full_disk.json

`--folder` is the top of a small file system of its own (64 MiB); without it root mounts a tmpfs for the time being. The
command line trains a U-Net into it, with a ballast file that leaves so much room:

    before the run     none, before anything is written
    first state        for the bundle, but not for the first state
    second state       for a bundle and a state, but not for the next state beside it
    bundle             for half a bundle, once a state is saved
    nothing left       none, once a state is saved

Then every file in the run folder is read, the ballast is removed, the run goes on, and is compared bit for bit with one
that had room enough.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from whole import differences, leftovers, step_of, wrong_in

from segwright.data.synthetic import write_terrain
from segwright.files import write_json

MEBIBYTE = 1 << 20
CASES = ("before the run", "first state", "second state", "bundle", "nothing left")
COMMAND = """
import math, sys
from segwright.cli import main
from segwright.training import state

once, save = sys.argv.pop(1) == "once", state.StateKeeper._save

def save_and_wait(keeper, trainer):
    save(keeper, trainer)
    state.RESUME_EVERY_SECONDS = math.inf if once else 0.0

state.RESUME_EVERY_SECONDS, state.SAVING_SHARE, state.StateKeeper._save = 0.0, math.inf, save_and_wait
main()
"""
"""The command line, with a state after every step, or after the first and the last alone."""
RECIPE = (
    "model.name=unet", "model.encoder=null", "model.arguments={width: 24, depth: 4}", "training.batch_size=4",
    "training.precision=fp32", "data.audit=false",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(__file__).parent / "results" / "full_disk.json"
    parser.add_argument("--folder", type=Path, help="top of a small file system; none: root mounts one")
    parser.add_argument("--out", type=Path, default=default, help="JSON file for the results")
    options = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", NO_COLOR="1", COLUMNS="1000")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="segwright-endurance-") as folder, small_disk(options.folder) as disk:
        work = Path(folder)
        os.environ["SEGWRIGHT_CACHE"] = str(work / "cache")
        data = write_terrain(work / "terrain", images=24, size=(64, 64))
        ended = segwright("train", str(data), "--name", "enough", "--out", str(work), "--epochs", "3", *changes())
        if ended.returncode:
            sys.exit(ended.stderr)
        size = disk_size(disk)
        cases = [fill(case, data, disk, whole=work / "enough") for case in CASES]
    results = {
        "cases": cases, "disk_mib": size / MEBIBYTE, "passed": all(case["passed"] for case in cases),
        "seconds": round(time.monotonic() - began, 1),
        "machine": {"cores": os.cpu_count(), "torch": torch.__version__},
    }  # fmt: skip
    show(results)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, results)
    sys.exit(0 if results["passed"] else 1)


@contextmanager
def small_disk(folder: Path | None) -> Iterator[Path]:
    """The given folder, or a tmpfs of 64 MiB."""
    if folder is not None:
        yield folder
        return
    place = Path(tempfile.mkdtemp(prefix="segwright-disk-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)
        place.rmdir()


def changes() -> list[str]:
    return [word for change in RECIPE for word in ("-o", change)]


def segwright(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", COMMAND, "once", *words], capture_output=True, text=True, check=False)


def disk_size(disk: Path) -> int:
    return shutil.disk_usage(disk).total


def leave(room: float, disk: Path) -> None:
    """Write a ballast file that leaves so many bytes."""
    with (disk / "ballast").open("wb", buffering=0) as stream:
        block = bytes(1 << 12)
        while shutil.disk_usage(disk).free > room:
            try:
                stream.write(block)
            except OSError:
                return


def fill(case: str, data: Path, disk: Path, *, whole: Path) -> dict[str, Any]:
    """Train while the disk fills, look at what is left, make room, go on, and compare."""
    run = disk / "run"
    bundle = sum(path.stat().st_size for path in (whole / "bundle").iterdir())
    state = (whole / "resume.ckpt").stat().st_size
    room_before = {"before the run": 0, "first state": bundle + state / 2, "second state": 2.5 * bundle + state}
    leave(room_before.get(case, math.inf), disk)
    words = ["train", str(data), "--name", "run", "--out", str(disk), "--epochs", "3", *changes()]
    late = case in ("bundle", "nothing left")
    started = [sys.executable, "-c", COMMAND, "once" if late else "always", *words]
    with subprocess.Popen(started, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        if late:
            while process.poll() is None and not (run / "resume.ckpt").exists():
                time.sleep(0.002)
            leave(bundle / 2 if case == "bundle" else 0, disk)
        errors = process.communicate()[1]
    said = [line for line in errors.splitlines() if line.startswith("segwright: ")]
    found = {
        "case": case, "exit_code": process.returncode, "message": said[-1] if said else errors[-300:],
        "lines": len(said), "traceback": "Traceback" in errors, "wrong": wrong_in(run), "step": step_of(run),
        "left": leftovers(run), "run_began": run.exists(),
    }  # fmt: skip
    (disk / "ballast").unlink()
    ended = segwright("train", str(run), "--resume") if run.exists() else segwright(*words)
    found["resumed_exit_code"] = ended.returncode
    found["differing"] = differences(whole, run) if ended.returncode == 0 else [ended.stderr[-300:]]
    found["passed"] = (
        found["exit_code"] == 2 and found["lines"] == 1 and "No space left" in found["message"]
        and not (found["traceback"] or found["wrong"] or found["left"] or found["differing"])
        and not any(path.name.startswith(".") for path in disk.iterdir())
    )  # fmt: skip
    shutil.rmtree(run)
    return found


def show(results: dict[str, Any]) -> None:
    """Print what came out."""
    table = Table(title=f"A disk of {results['disk_mib']:.0f} MiB fills, {results['seconds']:.0f} seconds")
    for head in ("when", "exit code", "state kept", "spoilt files", "then"):
        table.add_column(head)
    for case in results["cases"]:
        then = "equal bit for bit" if not case["differing"] else "; ".join(case["differing"])
        kept = "none yet" if case["step"] is None else f"step {case['step']}"
        table.add_row(case["case"], str(case["exit_code"]), kept, str(len(case["wrong"])), then)
    console = Console(width=120)
    console.print(table)
    for case in results["cases"]:
        console.print(f"{case['case']}: {case['message']}", markup=False, highlight=False)
    console.print("passed" if results["passed"] else "FAILED")


if __name__ == "__main__":
    main()
