"""Train with too little memory for the batch: it goes through in pieces, the step stays what it was, the run ends well.

    python tests/endurance/little_memory.py --out tests/endurance/results/little_memory.json

A U-Net without batch norm, so that pieces change nothing but the rounding, trains an epoch in float32 on the CPU, once
with all the memory and then with less and less address space (`ulimit -v`), each time in a process of its own.
Address space is a coarse measure: a heap that grew in the failed tries may keep it, so that now and then a limit is
refused where a smaller one passes. A run either ends well or says that the memory is not enough.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from segwright.data.synthetic import write_terrain
from segwright.files import write_json

MEBIBYTES = (None, 600, 450, 400, 300, 100)
"""Address space beside what the libraries take; None for no limit."""
TRAIN = """
import resource, sys
from pathlib import Path
import torch
from segwright.recipe import make_recipe
from segwright.training.run import train

recipe = make_recipe({
    "data": {"path": sys.argv[1]},
    "model": {"name": "unet", "encoder": None, "arguments": {"width": 16, "depth": 3, "norm": "none"}},
    "training": {"epochs": 1, "batch_size": 8, "precision": "fp32"},
    "optimizer": {"lr": 1e-4},
})
if sys.argv[3] != "None":
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + int(sys.argv[3]) * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
train(recipe, run=Path(sys.argv[2]), progress=False)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(__file__).parent / "results" / "little_memory.json"
    parser.add_argument("--out", type=Path, default=default, help="JSON file for the results")
    options = parser.parse_args()
    # Every thread would reserve address space of its own, which the limit counts.
    os.environ.update(OMP_NUM_THREADS="1", MALLOC_ARENA_MAX="1")
    with tempfile.TemporaryDirectory(prefix="segwright-endurance-") as folder:
        work = Path(folder)
        os.environ["SEGWRIGHT_CACHE"] = str(work / "cache")
        data = write_terrain(work / "terrain", images=20, size=(256, 256))
        found = [one_run(data, work, mebibytes=limit) for limit in MEBIBYTES]
    parted = [run for run in found if run["at_once"] and run["exit_code"] == 0]
    good = all(run["largest_weight_difference"] < 1e-4 for run in parted)
    refused = all("the memory is not enough" in run["said"] for run in found if run["exit_code"])
    results = {"runs": found, "passed": bool(parted) and good and refused, "torch": torch.__version__}
    show(results)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, results)
    sys.exit(0 if results["passed"] else 1)


def one_run(data: Path, work: Path, *, mebibytes: int | None) -> dict[str, Any]:
    """Train under a limit; what was said, and how far the weights are from those without a limit."""
    run, started = work / f"run-{mebibytes}", time.monotonic()
    words = [sys.executable, "-c", TRAIN, str(data), str(run), str(mebibytes)]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    log = (run / "log.txt").read_text() if run.exists() else ""
    found: dict[str, Any] = {
        "mebibytes": mebibytes, "exit_code": ended.returncode, "seconds": round(time.monotonic() - started, 1),
        "at_once": re.findall(r"training goes on with (\d+)", log)[-1:], "log": log.splitlines(),
        "said": ended.stderr.strip().splitlines()[-1:] and ended.stderr.strip().splitlines()[-1],
    }  # fmt: skip
    if ended.returncode == 0:
        states = [
            torch.load(work / name / "resume.ckpt", weights_only=True)["state_dict"] for name in ("run-None", run.name)
        ]
        found["largest_weight_difference"] = max(
            float((value.double() - states[1][name].double()).abs().max()) for name, value in states[0].items()
        )
        row = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
        found["images_per_second"] = row["images_per_second"]
    return found


def show(results: dict[str, Any]) -> None:
    """Print what came out."""
    table = Table(title="An epoch of batches of 8")
    for head in ("MiB to spare", "exit code", "images at once", "images/s", "largest difference of a weight"):
        table.add_column(head, justify="right")
    for run in results["runs"]:
        limit = "no limit" if run["mebibytes"] is None else str(run["mebibytes"])
        speed = f"{run['images_per_second']:.1f}" if "images_per_second" in run else "-"
        difference = f"{run['largest_weight_difference']:.1e}" if "images_per_second" in run else "-"
        table.add_row(limit, str(run["exit_code"]), (run["at_once"] or ["8"])[0], speed, difference)
    console = Console(width=120)
    console.print(table)
    for run in results["runs"]:
        if run["exit_code"]:
            console.print(f"{run['mebibytes']} MiB: {run['said']}", markup=False, highlight=False)
    console.print("passed" if results["passed"] else "FAILED")


if __name__ == "__main__":
    main()
