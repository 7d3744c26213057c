"""What the runs of run.py say of each claim: a table of the rows, and one of the claims.

    python studies/claims-on-the-standin/analyse.py RUNS

All rows are scored on the same validation images, without the aliens (one row trained with them, and would be judged by
them). Intervals and p-values draw images by the audit's groups (crops of one place) and seeds; see
`segwright.evaluation.hierarchical`. Writes results.csv and claims.csv beside this file.
"""

from __future__ import annotations

import argparse
import json
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from run import HERE, slug

from segwright.auditing.verdict import audit
from segwright.evaluation.hierarchical import Replicates, draw_scores, gap, interval
from segwright.evaluation.statistics import per_unit_counts
from segwright.files import write_csv
from segwright.metrics import Definition, class_counts, score_counts
from segwright.types import ClassSet

NAMES = ("background", "ground", "building", "vegetation", "bicyclist")
CLASSES = ClassSet(NAMES, tuple((k, k, k) for k in range(5)), ignore_in_score=(0,))
RARE = 4
DEFINITIONS: tuple[Definition, ...] = ("all_classes", "ignore_in_score", "keras-mars")
"""Every labelled pixel and five classes; background pixels dropped and four classes; as the competition scores."""

CLAIMS = (
    ("000: Jaccard beats cross-entropy", "jaccard", "ce"),
    ("000: Dice + Jaccard beats cross-entropy", "dice + jaccard", "ce"),
    ("000: Dice + Jaccard beats Jaccard alone", "dice + jaccard", "jaccard"),
    ("background out of loss and prediction helps (CE)", "ce, no background", "ce"),
    ("background out of loss and prediction helps (Dice + Jaccard)", "dice + jaccard, no background", "dice + jaccard"),
    ("000, 001: dropping the aliens helps", "ce", "ce, with aliens"),
    ("001, 002: class weights help (inverse)", "ce, inverse weights", "ce"),
    ("001, 002: class weights help (square root)", "ce, square root weights", "ce"),
    ("003: Tversky that minds misses beats Dice", "tversky 0.3, 0.7", "dice"),
    ("003: Tversky that minds false alarms beats Dice", "tversky 0.7, 0.3", "dice"),
    ("rare images four times as often help", "dice, rare images 4 times", "dice"),
    ("001: copy-paste of rare objects helps", "dice, rare objects pasted", "dice"),
    ("001: 500 copies of rare images help", "dice, 500 rare copies", "dice"),
    ("003: 500 copies help", "dice, 500 copies", "dice"),
    ("003: 1000 copies help no further", "dice, 1000 copies", "dice, 500 copies"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    runs = parser.parse_args().runs
    study = yaml.safe_load((HERE / "study.yaml").read_text(encoding="utf-8"))
    found = {row["name"]: runs_of(row["name"], runs, study["seeds"]) for row in study["list"]}
    counts = {name: [counts_of(run) for run in folders] for name, folders in found.items() if folders}
    ids = sorted(set.intersection(*(set(one) for several in counts.values() for one in several)))
    groups = groups_of((HERE / study["base"]["data"]["path"]).resolve(), ids, cache=runs / "groups.json")
    tables = {name: [np.stack([one[key] for key in ids]) for one in several] for name, several in counts.items()}
    replicates = {
        (name, measure): replicates_of(several, groups, measure)
        for name, several in tables.items()
        for measure in (*DEFINITIONS, "rare")
    }
    write(HERE / "results.csv", list(rows(found, replicates, images=len(ids), units=len(set(groups)))))
    write(HERE / "claims.csv", list(verdicts(replicates)))


def runs_of(name: str, runs: Path, seeds: list[int]) -> list[Path]:
    folders = [runs / f"{slug(name)}-{seed}" for seed in seeds]
    return [folder for folder in folders if (folder / "scores" / "val.npz").exists()]


def counts_of(run: Path) -> dict[str, np.ndarray]:
    """Confusion of each validation image by its row in the npz, which copies carry in their names."""
    with np.load(run / "scores" / "val.npz") as stored:
        return {str(name).rsplit("/", 1)[-1]: one for name, one in zip(stored["ids"], stored["confusion"], strict=True)}


def groups_of(data: Path, ids: list[str], *, cache: Path) -> list[str]:
    if not cache.exists():
        cache.write_text(json.dumps(audit(data).answers["duplicates"].facts["groups"]), encoding="utf-8")
    known = json.loads(cache.read_text(encoding="utf-8"))
    return [known.get(name, name) for name in ids]


def measured(sums: np.ndarray, *, measure: str) -> np.ndarray:
    """From summed counts (R, 3 K) to scores (R,)."""
    definition: Any = "ignore_in_score" if measure == "rare" else measure
    scores = score_counts(sums.reshape(len(sums), 3, -1), CLASSES, definition)
    return np.asarray(np.nan_to_num(scores.iou[:, RARE]) if measure == "rare" else scores.miou)


def replicates_of(several: list[np.ndarray], groups: list[str], measure: str) -> Replicates:
    definition: Any = "ignore_in_score" if measure == "rare" else measure
    units = [per_unit_counts(class_counts(one, CLASSES, definition), groups) for one in several]
    flat = [one.reshape(len(one), -1) for one in units]
    score = partial(measured, measure=measure)
    scores = np.array([float(score(one.sum(0, keepdims=True))[0]) for one in flat])
    return Replicates(scores, draw_scores(flat, score).mean(axis=1), len(flat[0]))


def rows(found: dict[str, list[Path]], replicates: dict[Any, Replicates], *, images: int, units: int) -> Any:
    heads = [f"{measure}{part}" for measure in (*DEFINITIONS, "rare iou") for part in ("", " sd", " low", " high")]
    yield ["row", "seeds", *heads, "minutes", "images_per_second", "epochs", "images", "groups"]
    for name, folders in found.items():
        if not folders:
            yield [name, 0, *["not run"] * len(heads), "", "", "", "", ""]
            continue
        cells: list[Any] = []
        for measure in (*DEFINITIONS, "rare"):
            one = replicates[name, measure]
            sure = interval(one)
            cells += [f"{value:.4f}" for value in (one.mean, one.deviation, sure.low, sure.high)]
        lines = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in folders]
        minutes = statistics.mean(each[-1]["seconds"] / 60 for each in lines)
        speed = statistics.median(epoch["images_per_second"] for each in lines for epoch in each)
        yield [name, len(folders), *cells, f"{minutes:.1f}", f"{speed:.0f}", lines[0][-1]["epoch"], images, units]


def verdicts(replicates: dict[Any, Replicates]) -> Any:
    yield ["claim", "row", "against", "score", "seeds", "difference", "low", "high", "p", "verdict"]
    for claim, row, against in CLAIMS:
        for measure in (*DEFINITIONS, "rare"):
            if (row, measure) not in replicates or (against, measure) not in replicates:
                yield [claim, row, against, measure, 0, *["not run"] * 5]
                continue
            one = gap(replicates[row, measure], replicates[against, measure])
            seen = one.comparison.difference
            numbers = [f"{value:+.4f}" for value in (seen.estimate, seen.low, seen.high)]
            verdict = one.comparison.verdict((row, against))
            yield [claim, row, against, measure, one.seeds, *numbers, f"{one.comparison.p_value:.4f}", verdict]


def write(file: Path, table: list[list[Any]]) -> None:
    write_csv(file, table)
    widths = [max(len(str(line[place])) for line in table) for place in range(len(table[0]))]
    print(file.name)
    for line in table:
        print("  ".join(f"{cell!s:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())


if __name__ == "__main__":
    main()
