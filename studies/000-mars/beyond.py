"""What can be had on top of 'ours': mirrored copies, an average of its seeds, students of that average.

    python studies/000-mars/beyond.py STUDY WORK MARS.npz

STUDY is the folder of the study with all seeds of 'ours', WORK takes what is made here: the average, the images of the
test set as it labels them, a student of every seed (the recipe and minutes of 'ours', from scratch), and their average.
Writes beyond.csv beside this file: each gain, paired on the same
validation images, with its 95 % interval over images and seeds, or over images alone where there is one pair. What was
made is not made again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from pairs import gain

from segwright import run_images, verbs
from segwright.bundle import load_bundle
from segwright.evaluation.evaluate import evaluate
from segwright.files import read_arrays, write_arrays, write_csv
from segwright.metrics import score
from segwright.runs import recipe_of
from segwright.types import ClassSet

if TYPE_CHECKING:
    from segwright.run_images import LabelledImages

NAMES = ("background", "soil", "bedrock", "sand", "big_rock")
CLASSES = ClassSet(NAMES, tuple((k, k, k) for k in range(5)), ignore_in_score=(0,))
SEEDS = (0, 1, 2)
CONFIDENCE = 0.9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("study", "work", "mars"):
        parser.add_argument(name, type=Path)
    asked = parser.parse_args()
    work = asked.work
    work.mkdir(parents=True, exist_ok=True)
    ours = [run_of(asked.study, "ours", seed) for seed in SEEDS]
    images = run_images.own_images(recipe_of(ours[0]), ours[0], side="val", progress=False)
    teacher = average(ours, work / "average")
    if not (work / "pseudo").exists():
        found = verbs.pseudo(teacher, asked.mars, out=work / "pseudo", key="test_set", confidence=CONFIDENCE)
        print(found, flush=True)
    students = [work / "students" / f"student-{seed}" for seed in SEEDS]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(train, [work / "pseudo" / "recipe.yaml"] * len(SEEDS), students, SEEDS))
    taught = average(students, work / "average-of-students")

    def scores(of: Path, flips: Literal["none", "horizontal"] = "none") -> Path:
        return scored(of, images, work / "scores" / f"{of.name}-{flips}.npz", flips=flips)

    alone = [scores(run) for run in ours]
    best = max(alone, key=miou_of)
    lines = [
        ("mirrored copies, against ours", [scores(run, "horizontal") for run in ours], alone),
        ("three seeds averaged, against the best of them", [scores(teacher)], [best]),
        ("its mirrored copies, against that", [scores(teacher, "horizontal")], [scores(teacher)]),
        ("average and mirrored copies, against the best of ours", [scores(teacher, "horizontal")], [best]),
        ("students, against ours", [scores(run) for run in students], alone),
        ("three students averaged, against three seeds averaged", [scores(taught)], [scores(teacher)]),
    ]
    rows: list[list[object]] = [["comparison", "mIoU", "gain", "low", "high", *(f"pair {s}" for s in SEEDS)]]
    for name, ones, others in lines:
        found = gain(list(zip(ones, others, strict=True)), CLASSES, definition="keras-mars")
        each = [miou_of(one) - miou_of(other) for one, other in zip(ones, others, strict=True)]
        reached = float(np.mean([miou_of(one) for one in ones]))
        numbers = (reached, found.estimate, found.low, found.high, *each)
        rows.append([name, *(round(x, 4) for x in numbers)])
    width = len(rows[0])
    write_csv(Path(__file__).with_name("beyond.csv"), [[*row, *[""] * (width - len(row))] for row in rows])
    print("\n".join("  ".join(map(str, row)) for row in rows))


def run_of(study: Path, row: str, seed: int) -> Path:
    """The run of a row and seed: its folder's name ends in a digest."""
    (found,) = (run for run in (study / "runs").glob(f"{row}-s{seed}-????????"))
    return found


def average(runs: list[Path], out: Path) -> Path:
    if not out.exists():
        verbs.ensemble(runs, out=out, by="equal", progress=False)
    return out


def train(recipe: Path, out: Path, seed: int) -> None:
    if (out / "scores" / "val.npz").exists():
        return
    new = [str(recipe), "--name", out.name, "--out", str(out.parent), "-o", f"training.seed={seed}"]
    words = [sys.executable, "-m", "segwright", "train", *([str(out), "--resume"] if out.exists() else new)]
    subprocess.run(words, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})  # noqa: S603  # our own command


def scored(of: Path, images: LabelledImages, file: Path, *, flips: Literal["none", "horizontal"]) -> Path:
    """The counts of a model on some images, kept in a file."""
    if not file.exists():
        result = evaluate(
            load_bundle(of), images.pack, images.indices, split_name="val", out=None, flips=flips, progress=False
        )
        write_arrays(file, {"ids": np.array(result.ids), "confusion": result.confusion})
    return file


def miou_of(file: Path) -> float:
    return float(score(read_arrays(file)["confusion"].sum(0), CLASSES, "keras-mars").miou)


if __name__ == "__main__":
    main()
