"""Train every row of study.yaml with every seed, what is missing alone.

    python studies/claims-on-the-standin/run.py RUNS [--only NAME ...] [--seeds 0 1 2]

Budgets are in epochs, so that a busy machine makes a run slower and nothing else. A run that was stopped is resumed.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="folder of the runs")
    parser.add_argument("--only", nargs="*", default=[], help="names of rows")
    parser.add_argument("--seeds", nargs="*", type=int, default=[])
    parser.add_argument("--at-once", type=int, default=2, help="trainings at a time, a thread each")
    asked = parser.parse_args()
    study = yaml.safe_load((HERE / "study.yaml").read_text(encoding="utf-8"))
    rows = [row for row in study["list"] if not asked.only or row["name"] in asked.only]
    asked.runs.mkdir(parents=True, exist_ok=True)
    base = asked.runs / "base.yaml"
    base.write_text(yaml.safe_dump(with_data(study["base"], HERE)), encoding="utf-8")
    for row in rows:
        if "copies" in row and not copies_of(row, asked.runs).exists():
            run("augment", str(base), *row["copies"], "-o", str(copies_of(row, asked.runs)))
    # All rows with the first seed come before the second: what there is can be looked at early.
    todo = list(itertools.product(asked.seeds or study["seeds"], rows))
    with ThreadPoolExecutor(asked.at_once) as pool:
        for name, code in pool.map(lambda one: train(one[1], seed=one[0], base=base, runs=asked.runs), todo):
            print(name, "done" if code == 0 else f"failed ({code})", flush=True)


def train(row: dict[str, Any], *, seed: int, base: Path, runs: Path) -> tuple[str, int]:
    """Train one run unless it is there."""
    name = f"{slug(row['name'])}-{seed}"
    folder = runs / name
    if (folder / "scores" / "val.json").exists():
        return name, 0
    if folder.exists():
        return name, run("train", str(folder), "--resume")
    changes = {key: value for key, value in row.items() if key not in ("name", "copies")} | {"training.seed": seed}
    if "copies" in row:
        changes |= {"data.path": str(copies_of(row, runs) / "data.yaml"), "data.split.file": "null"}
    options = itertools.chain.from_iterable(("-o", f"{key}={value}") for key, value in changes.items())
    return name, run("train", str(base), "--name", name, "--out", str(runs), *options)


def run(*command: str) -> int:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "segwright", *command]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)  # noqa: S603  # our own
    if done.returncode:
        print(" ".join(command), done.stderr, file=sys.stderr, flush=True)
    return done.returncode


def copies_of(row: dict[str, Any], runs: Path) -> Path:
    return runs / "copies" / slug(row["name"])


def with_data(base: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The base with paths that hold from anywhere."""
    data = dict(base["data"])
    data["path"] = str((folder / data["path"]).resolve())
    data["split"] = {"file": str((folder / data["split"]["file"]).resolve())}
    return {**base, "data": data}


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


if __name__ == "__main__":
    main()
