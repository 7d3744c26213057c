"""How well an audit finds the 'aliens' of the Mars stand-in: pictures of noise that all have one nonsense mask.

    shipped       the whole audit as it is: which images its `drop` names
    noise         every alien gets the mask of an ordinary image: the search for noise alone
    shared mask   every alien gets the picture of an ordinary image: the search for shared masks alone

The last two are made on copies, several times with other ordinary images. Intervals are Wilson's, at 95 %.

python studies/audit-standin/measure.py
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from segwright.auditing.findings import Finding
from segwright.auditing.noise import find_noise
from segwright.auditing.shared_masks import find_shared_masks
from segwright.auditing.survey import Survey, take_survey
from segwright.auditing.verdict import audit
from segwright.files import read_arrays, write_arrays, write_csv

DATA = Path(os.environ.get("SEGWRIGHT_DATA") or Path(__file__).parents[3] / "shared" / "data")
IMAGE, MASK = 0, 1
HEADS = ("experiment", "seed", "aliens", "found", "recall", "low", "high", "others", "ordinary", "seconds")


def aliens_of(stack: np.ndarray) -> np.ndarray:
    """Rows of (N, 2, H, W) that have the commonest mask of more than one class."""
    masks = [one[MASK].tobytes() for one in stack]
    varied = [mask for mask in masks if len(set(mask)) > 1]
    common = Counter(varied).most_common(1)[0][0]
    return np.array([place for place, mask in enumerate(masks) if mask == common])


def with_others(stack: np.ndarray, aliens: np.ndarray, *, plane: int, seed: int) -> np.ndarray:
    """A copy in which each alien has the picture or the mask of an ordinary image, each of another one."""
    changed = stack.copy()
    ordinary = np.setdiff1d(np.arange(len(stack)), aliens)
    lent = np.random.default_rng(seed).choice(ordinary, len(aliens), replace=False)
    changed[aliens, plane] = stack[lent, plane]
    return changed


def survey_of(stack: np.ndarray, path: Path) -> Survey:
    write_arrays(path, {"training_set": stack})
    return take_survey(path, progress=False)


def dropped(*findings: Finding | None) -> set[str]:
    return {name for finding in findings if finding is not None for name in finding.drop}


def row(
    experiment: str, seed: int | str, survey: Survey, drop: Collection[str], aliens: np.ndarray, start: float
) -> tuple[Any, ...]:
    """Counts of one experiment, and the seconds since `start`; images without a mask count nowhere."""
    assert survey.source is not None, "arrays can be opened"
    row_of = {sample.id: sample.row for sample in survey.source.samples if sample.mask is not None}
    rows = {row_of[name] for name in drop if name in row_of}
    found, others = len(rows & set(aliens.tolist())), len(rows - set(aliens.tolist()))
    low, high = binomtest(found, len(aliens)).proportion_ci(method="wilson")
    shares = (round(float(value), 4) for value in (found / len(aliens), low, high))
    seconds = round(time.perf_counter() - start, 1)
    return (experiment, seed, len(aliens), found, *shares, others, len(row_of) - len(aliens), seconds)


def main() -> None:
    """Run the three, print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=DATA / "mars_standin" / "mars_standin.npz", help="only read")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--csv", type=Path, default=Path(__file__).parent / "results.csv")
    asked = parser.parse_args()
    stack = read_arrays(asked.source)["training_set"]
    aliens = aliens_of(stack)
    rows: list[tuple[Any, ...]] = [HEADS]
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "copy.npz"
        for seed in range(asked.seeds):
            start = time.perf_counter()
            survey = survey_of(with_others(stack, aliens, plane=MASK, seed=seed), copy)
            rows.append(row("noise", seed, survey, dropped(find_noise(survey)), aliens, start))
            start = time.perf_counter()
            survey = survey_of(with_others(stack, aliens, plane=IMAGE, seed=seed), copy)
            rows.append(row("shared mask", seed, survey, dropped(*find_shared_masks(survey)), aliens, start))
    start = time.perf_counter()
    found = audit(asked.source, progress=False)
    rows.insert(1, row("shipped", "", found.survey, found.drop, aliens, start))
    write_csv(asked.csv, rows)
    for one in rows:
        print("  ".join(f"{cell!s:<12}" for cell in one).rstrip())


if __name__ == "__main__":
    main()
