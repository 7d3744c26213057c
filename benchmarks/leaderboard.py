"""How long the table of a large study takes, and how much memory: recorded runs whose scores are made up.

    python benchmarks/leaderboard.py --rows 100 --seeds 10 --images 545

The run folders are written into a scratch folder; the table is then made in a process of its own: once for its
intervals and differences (`board`), and once as `segwright leaderboard`, with the start of Python and all files.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from segwright.files import write_arrays, write_json, write_yaml
from segwright.hardware import describe
from segwright.studies.grid import read_study, trials

CLASSES = 5
RESULT = Path(__file__).parent / "results" / "leaderboard.json"
# The peak of this program alone: ru_maxrss keeps that of the process that started it, and so torch's.
PEAK = """
from pathlib import Path
def peak_mib():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1024
"""
MEASURED = f"""{PEAK}
import json, sys, time
from segwright.studies.entries import plan_of
from segwright.studies.leaderboard import board
wall, cpu = time.perf_counter(), time.process_time()
table = board(plan_of(Path(sys.argv[1])))
print(json.dumps({{
    "seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu, "runs": table.runs,
    "peak_mib": peak_mib(),
}}))
"""
COMMAND = f"""{PEAK}
import resource, sys
from segwright.cli import main
try:
    main()
finally:
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(used.ru_utime + used.ru_stime, peak_mib(), file=sys.stderr)
"""
START = f"""{PEAK}
import segwright.studies.leaderboard
print(peak_mib())
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--images", type=int, default=545)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="segwright-bench-") as scratch:
        out = Path(scratch)
        write_study(out, rows=asked.rows, seeds=asked.seeds, images=asked.images)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        words = [sys.executable, "-c", MEASURED, str(out)]
        told = subprocess.run(words, check=True, capture_output=True, text=True, env=environment)
        row = json.loads(told.stdout)
        start = subprocess.run(
            [sys.executable, "-c", START], check=True, capture_output=True, text=True, env=environment
        )
        started = time.perf_counter()
        words = [sys.executable, "-c", COMMAND, "leaderboard", str(out)]
        done = subprocess.run(words, check=True, capture_output=True, text=True, env=environment)
        whole = time.perf_counter() - started
    cpu, peak = map(float, done.stderr.split()[-2:])
    row |= {
        "rows": asked.rows, "seeds": asked.seeds, "images": asked.images, "classes": CLASSES,
        "peak_mib_of_imports_alone": float(start.stdout),
        "command_seconds": whole, "command_cpu_seconds": cpu, "command_peak_mib": peak,
    }  # fmt: skip
    row = {key: round(value, 2) if isinstance(value, float) else value for key, value in row.items()}
    print(json.dumps(row, indent=1))
    write_json(RESULT, {**row, "machine": describe(torch.device("cpu"))})


def write_study(out: Path, *, rows: int, seeds: int, images: int) -> None:
    """A study of rows of unlike learning rates, with all its runs."""
    rng = np.random.default_rng(0)
    listed = [{"name": f"row {k}", "optimizer.lr": round(1e-3 * (1 + k / 100), 6)} for k in range(rows)]
    tree = {"name": "large", "base": {"data": {"path": "x"}}, "list": listed, "seeds": list(range(seeds))}
    write_yaml(out / "study.yaml", tree)
    summary = {
        "classes": {
            "names": [f"class {k}" for k in range(CLASSES)], "colors": [[k, k, k] for k in range(CLASSES)],
            "ignore_in_loss": [], "ignore_in_score": [0], "leave_out_of_mean": [], "never_predict": [],
        },
        "images_per_second": 250.0,
        "padding": ["as long as a summary is"] * 400,
    }  # fmt: skip
    head = json.dumps({f"layer{k}.weight": {"dtype": "F32", "shape": [64, 64, 3, 3]} for k in range(60)}).encode()
    epoch = {"epoch": 1, "step": 100, "seconds": 30.0, "train_loss": 0.5, "val_miou": 0.5, "val_iou": [0.5] * CLASSES}
    ids = np.array([f"{i:05d}" for i in range(images)])
    for trial in trials(read_study(out / "study.yaml")):
        run = out / "runs" / trial.name
        counts = rng.poisson(40, (images, CLASSES, CLASSES)) + 600 * np.eye(CLASSES, dtype=np.int64)
        write_arrays(run / "scores" / "val.npz", {"ids": ids, "confusion": counts, "boundary": counts[:, :, :4]})
        write_json(run / "scores" / "val.json", summary)
        (run / "bundle").mkdir()
        (run / "bundle" / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head)
        (run / "metrics.jsonl").write_text("".join(json.dumps({**epoch, "epoch": k}) + "\n" for k in range(1, 101)))


if __name__ == "__main__":
    main()
