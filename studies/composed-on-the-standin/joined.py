"""Two trained models joined three ways, and each composed model of the study against the part it is made of.

    python studies/composed-on-the-standin/joined.py ARCHITECTURES COMPOSED OUT --second ROW [--seeds 0 1 2]

ARCHITECTURES and COMPOSED are the folders of those two studies, OUT takes what is made here. For each seed, the U-Net
and the run of ROW are averaged with equal weights, with weights by likelihood and by mIoU, and trained on together for
three minutes (`uformer`). Writes joined.csv beside this file: every gain, seed by seed on the same images, with its
95 % interval. Fitted weights are scored by halves (see `segwright.evaluation.ensemble_weights`).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from pairs import gain

from segwright import verbs
from segwright.files import read_arrays, write_arrays, write_csv, write_yaml
from segwright.metrics import score
from segwright.recipe import read_resolved
from segwright.run_images import own_images
from segwright.runs import recipe_of
from segwright.types import ClassSet

NAMES = ("background", "ground", "building", "vegetation", "bicyclist")
CLASSES = ClassSet(NAMES, tuple((k, k, k) for k in range(5)), ignore_in_score=(0,))
WAYS = ("equal", "likelihood", "miou")
UFORMER_MINUTES = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("architectures", "composed", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--second", required=True, help="the row that is joined with the U-Net")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    pairs = {
        seed: (run_of(asked.architectures, "unet", seed), run_of(asked.architectures, asked.second, seed))
        for seed in asked.seeds
    }
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda seed: uformer(*pairs[seed], seed=seed, out=asked.out), asked.seeds))
    for seed, pair in pairs.items():
        for way in WAYS:
            if not (asked.out / f"{way}-{seed}").exists():
                average(pair, asked.out / f"{way}-{seed}", by=way)
    best = {seed: max(pair, key=miou_of) for seed, pair in pairs.items()}
    lines = [
        (f"{way}, against the better of the two", {s: asked.out / f"{way}-{s}" for s in asked.seeds}, best)
        for way in (*WAYS, "uformer")
    ]
    lines.append(
        (
            "uformer, against equal weights",
            {s: asked.out / f"uformer-{s}" for s in asked.seeds},
            {s: asked.out / f"equal-{s}" for s in asked.seeds},
        )
    )
    refined = {s: run_of(asked.composed, "refined", s) for s in asked.seeds}
    for run in refined.values():
        if not val(base_of(run)).exists():  # a stage is validated, but no scores of each image are kept
            verbs.evaluate(base_of(run), progress=False)
    lines.append(("refiner, against its base", refined, {s: base_of(run) for s, run in refined.items()}))
    rows: list[list[object]] = [["comparison", "gain", "low", "high", *(f"seed {s}" for s in asked.seeds)]]
    for name, one, other in lines:
        if not all(val(side[s]).exists() for side in (one, other) for s in asked.seeds):
            rows.append([name, *["not run"] * (len(rows[0]) - 1)])
            continue
        found = gain([(val(one[s]), val(other[s])) for s in asked.seeds], CLASSES)
        each = [miou_of(one[s]) - miou_of(other[s]) for s in asked.seeds]
        rows.append([name, *(round(x, 4) for x in (found.estimate, found.low, found.high, *each))])
    write_csv(Path(__file__).with_name("joined.csv"), rows)
    print("\n".join("  ".join(map(str, row)) for row in rows))


def average(pair: tuple[Path, Path], out: Path, *, by: Literal["equal", "likelihood", "miou"]) -> None:
    """One bundle of both, and beside it what it scored by halves."""
    found = verbs.ensemble(pair, out=out, by=by, progress=False)
    ids = own_images(recipe_of(pair[0]), pair[0], side="val", progress=False).pack.ids
    arrays = {"ids": np.array([ids[place] for place in found.positions]), "confusion": found.confusion}
    val(out).parent.mkdir()
    write_arrays(val(out), arrays)
    print(out.name, "weights", *(f"{weight:.3f}" for weight in found.weights), flush=True)


def run_of(study: Path, row: str, seed: int) -> Path:
    """The run of a row and seed: its folder's name ends in a digest."""
    slug = row.replace(" ", "-").replace("_", "-")
    found = [run for run in (study / "runs").glob(f"{slug}-s{seed}-????????") if val(run).exists()]
    return found[0] if found else study / "runs" / f"{slug}-s{seed}"


def base_of(run: Path) -> Path:
    return run.with_name(f"{run.name}.stages") / "1-base"


def val(run: Path) -> Path:
    return run / "scores" / "val.npz"


def miou_of(run: Path) -> float:
    return float(score(read_arrays(val(run))["confusion"].sum(0), CLASSES).miou)


def uformer(first: Path, second: Path, *, seed: int, out: Path) -> None:
    """Train both models on as one; nothing happens where that was done."""
    name = f"uformer-{seed}"
    if val(out / name).exists():
        return
    recipe = read_resolved(first / "recipe.yaml").as_dict()
    recipe["model"] = {"name": "uformer", "branches": [str(first.resolve()), str(second.resolve())]}
    recipe["optimizer"]["lr"] = 2e-4
    recipe["training"] |= {"minutes": UFORMER_MINUTES, "epochs": None, "seed": seed}
    write_yaml(out / f"{name}.yaml", recipe)
    words = [sys.executable, "-m", "segwright", "train", str(out / f"{name}.yaml"), "--name", name, "--out", str(out)]
    subprocess.run(words, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})  # noqa: S603  # our own command


if __name__ == "__main__":
    main()
