"""Kill a study with SIGKILL at random moments and start it again: complete, nothing twice, the same numbers.

    python tests/endurance/study_kills.py --kills 2 --out tests/endurance/results/study_kills.json

A study of 2 losses x 2 widths x 3 seeds of a small U-Net on generated terrain, with a budget in epochs, by the command
line. Its process is killed, its trainings are not touched; it is started again at once. A run counts as trained twice
where its log opens it twice from the beginning. Scores are compared with those of a study that nothing disturbed, image
by image.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from segwright.data.synthetic import write_terrain
from segwright.files import read_arrays, write_json, write_yaml


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(__file__).parent / "results" / "study_kills.json"
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, default=default, help="JSON file for the results")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="segwright-endurance-") as folder:
        work = Path(folder)
        os.environ["SEGWRIGHT_CACHE"] = str(work / "cache")
        write_terrain(work / "terrain", images=options.images, size=(64, 64))
        study = work / "study.yaml"
        write_yaml(study, study_tree(epochs=options.epochs, seeds=options.seeds))
        began = time.monotonic()
        assert start(study, work / "unbroken").wait() == 0, "the unbroken study failed"
        seconds = time.monotonic() - began
        chance, moments = random.Random(options.seed), []
        for number in range(options.kills):
            process = start(study, work / "broken")
            moments.append(seconds * (number + chance.random()) / (options.kills + 1) + 5)
            time.sleep(moments[-1])
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
            process.wait()
        assert start(study, work / "broken").wait() == 0, "the broken study failed"
        results = compared(work / "unbroken", work / "broken")
    results |= {"kills": options.kills, "killed_after_seconds": moments, "unbroken_seconds": seconds}
    write_json(options.out, results)
    print(results)
    sys.exit(0 if results["equal"] == results["runs"] and not results["begun_twice"] else 1)


def study_tree(*, epochs: int, seeds: int) -> dict[str, object]:
    return {
        "name": "kills",
        "base": {
            "data": {"path": "terrain"},
            "model": {"name": "unet", "encoder": None, "arguments": {"depth": 3}},
            "training": {"epochs": epochs, "batch_size": 8, "precision": "fp32"},
        },
        "grid": {"loss.formula": ["ce", "dice"], "model.arguments.width": [8, 12]},
        "seeds": list(range(seeds)),
    }


def start(study: Path, out: Path) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "segwright", "study", str(study), "-o", str(out), "--jobs", "2"]
    with (out.with_suffix(".log")).open("ab") as log:
        return subprocess.Popen(words, stdout=log, stderr=log)


def compared(unbroken: Path, broken: Path) -> dict[str, object]:
    names = sorted(path.name for path in (unbroken / "runs").iterdir() if not path.name.startswith("."))
    equal, twice = [], []
    for name in names:
        one, other = (read_arrays(out / "runs" / name / "scores" / "val.npz") for out in (unbroken, broken))
        if np.array_equal(one["ids"], other["ids"]) and np.array_equal(one["confusion"], other["confusion"]):
            equal.append(name)
        log = (broken / "runs" / name / "log.txt").read_text(encoding="utf-8")
        # A run that was killed before its first save begins again, and says nothing of a step that it goes on from.
        if log.count("\nimages   ") > 1 + log.count("resumed "):
            twice.append(name)
    extra = {path.name for path in (broken / "runs").iterdir() if not path.name.startswith(".")} - set(names)
    return {"runs": len(names), "equal": len(equal), "begun_twice": twice, "extra": sorted(extra)}


if __name__ == "__main__":
    main()
