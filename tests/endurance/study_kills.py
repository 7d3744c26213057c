"""Kill a study, or one of its trainings, with SIGKILL: complete, nothing twice, the same numbers.

    python tests/endurance/study_kills.py --kill study --kills 2
    python tests/endurance/study_kills.py --study tests/endurance/kills.yaml --folder /tmp/kills --kill study
    python tests/endurance/study_kills.py --study tests/endurance/kills.yaml --folder /tmp/kills --kill training
    python tests/endurance/study_kills.py --study tests/endurance/kills.yaml --folder /tmp/kills --kill ray

Without --study, 2 losses x 2 widths x 3 seeds of a small U-Net on generated terrain. What is killed, at random moments:
the study itself and then its trainings too, as when a machine is switched off ('study'; it is started again); one of
its trainings ('training'); or, on two Ray nodes of this machine, the worker of its first run ('ray', see ray_nodes.py).
Scores are compared with those of a study that nothing disturbed, image by image; with --folder that one is kept.
A run was trained twice if an epoch follows its end; epochs that ended after the last save are repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from segwright.data.synthetic import write_terrain
from segwright.files import read_arrays, write_json, write_yaml


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, help="in place of the one on generated terrain")
    parser.add_argument("--folder", type=Path, help="where studies lie afterwards")
    parser.add_argument("--kill", choices=["study", "training", "ray"], default="study")
    parser.add_argument("--kills", type=int, default=2, help="of the study")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="segwright-endurance-") as temporary:
        work = (options.folder or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        study = options.study or generated(work)
        began = time.monotonic()
        assert start(study, work / "unbroken").wait() == 0, "the unbroken study failed"
        seconds = time.monotonic() - began
        write_once(work / "unbroken.json", {"seconds": seconds})
        seconds = json.loads((work / "unbroken.json").read_text())["seconds"]
        broken = work / f"broken-{options.kill}"
        assert not broken.exists(), f"{broken} is there already"
        began = time.monotonic()
        moments = broken_study(study, broken, options, seconds)
        results = compared(work / "unbroken", broken) | {
            "study": study.name,
            "killed": options.kill,
            "killed_after_seconds": [round(moment, 1) for moment in moments],
            "seconds": round(time.monotonic() - began, 1),
            "unbroken_seconds": round(seconds, 1),
        }
    write_json(options.out or Path(__file__).parent / "results" / f"study_kills_{options.kill}.json", results)
    print(results)
    whole = results["equal"] == results["runs"] and not (results["twice"] or results["extra"])
    sys.exit(0 if whole and results["went_on_or_began_again"] else 1)


def generated(work: Path) -> Path:
    """A study on generated terrain."""
    os.environ["SEGWRIGHT_CACHE"] = str(work / "cache")
    write_terrain(work / "terrain", images=60, size=(64, 64))
    tree = {
        "name": "kills",
        "base": {
            "data": {"path": "terrain"},
            "model": {"name": "unet", "encoder": None, "arguments": {"depth": 3}},
            "training": {"epochs": 30, "batch_size": 8, "precision": "fp32"},
        },
        "grid": {"loss.formula": ["ce", "dice"], "model.arguments.width": [8, 12]},
        "seeds": [0, 1, 2],
    }
    write_yaml(work / "study.yaml", tree)
    return work / "study.yaml"


def write_once(path: Path, tree: object) -> None:
    if not path.exists():
        write_json(path, tree)


def start(study: Path, out: Path) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "segwright", "study", str(study), "-o", str(out), "--jobs", "2"]
    with (out.with_suffix(".log")).open("ab") as log:
        return subprocess.Popen(words, stdout=log, stderr=log)


def broken_study(study: Path, out: Path, options: argparse.Namespace, seconds: float) -> list[float]:
    """Run the study and kill what is to be killed.

    Returns:
        Seconds from the (new) start of the study to each kill.
    """
    if options.kill == "ray":
        nodes = Path(__file__).with_name("ray_nodes.py")
        subprocess.run([sys.executable, nodes, "--study", study, "--out", out], check=True)
        return []
    chance, moments = random.Random(options.seed), []
    for _ in range(options.kills if options.kill == "study" else 0):
        process = start(study, out)
        moments.append(seconds * chance.random() / (options.kills + 1) + 5)
        time.sleep(moments[-1])
        assert process.poll() is None, "the study ended before it was killed"
        for identity in [process.pid, *trainings(out)]:
            os.kill(identity, signal.SIGKILL)
        process.wait()
    process = start(study, out)
    if options.kill == "training":
        moments.append(seconds / 4 + chance.random() * seconds / 4)
        time.sleep(moments[-1])
        os.kill(trainings(out)[0], signal.SIGKILL)
    assert process.wait() == 0, "the broken study failed"
    return moments


def trainings(out: Path) -> list[int]:
    """The processes that train runs of this study."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
        except OSError:
            continue
        if b"train" in words and any(word.startswith(os.fsencode(out.resolve())) for word in words):
            found.append(int(entry.name))
    return found


def compared(unbroken: Path, broken: Path) -> dict[str, object]:
    names = sorted(path.name for path in (unbroken / "runs").iterdir() if not path.name.startswith("."))
    equal, resumed, twice, repeated = [], [], [], 0
    for name in names:
        one, other = (read_arrays(out / "runs" / name / "scores" / "val.npz") for out in (unbroken, broken))
        if np.array_equal(one["ids"], other["ids"]) and np.array_equal(one["confusion"], other["confusion"]):
            equal.append(name)
        log = (broken / "runs" / name / "log.txt").read_text(encoding="utf-8")
        if len(re.findall(r"^images ", log, re.MULTILINE)) > 1:
            resumed.append(name)
        if re.search(r"^done .*^epoch ", log, re.MULTILINE | re.DOTALL):
            twice.append(name)
        epochs = Counter(re.findall(r"^epoch +(\d+)", log, re.MULTILINE))
        repeated += epochs.total() - len(epochs)
    extra = {path.name for path in (broken / "runs").iterdir() if not path.name.startswith(".")} - set(names)
    return {
        "runs": len(names),
        "equal": len(equal),
        "went_on_or_began_again": resumed,
        "twice": twice,
        "epochs_repeated": repeated,
        "extra": sorted(extra),
    }


if __name__ == "__main__":
    main()
