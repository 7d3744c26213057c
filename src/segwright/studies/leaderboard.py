"""The table of a study: what each row scored, how sure that is, and which differences are real.

Only what stands on disk is read (see `results`). A row is a recipe, trained with several seeds (and folds, whose images
together make one set for each seed); its score is the mean over seeds. Intervals and p-values draw images and seeds
anew (`evaluation.hierarchical`); p-values of all rows against the best, and against the baseline, are Holm-corrected.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, median
from typing import Any

import numpy as np

from segwright.errors import RunError
from segwright.evaluation.hierarchical import (
    SEED_RESAMPLES,
    Gap,
    Needed,
    Replicates,
    draw_scores,
    gap,
    interval,
    needed,
)
from segwright.evaluation.statistics import Interval, holm, per_unit_counts
from segwright.metrics import DEFINITIONS, Definition, score_counts, scored_classes
from segwright.studies.entries import Entry, Plan
from segwright.studies.results import Cost, Reader, Scored, rules, shown_iou
from segwright.types import ClassSet

ALPHA = 0.05
TOO_CLOSE = "too close to call"


@dataclass(frozen=True)
class Difference:
    """A row against another.

    Attributes:
        to: name of the other.
        gap: the row less the other.
        p_value: Holm-corrected over all rows.
        verdict: `better`, `worse`, `one seed` or `too close to call`.
        needed: what would settle it, where it is too close to call.
    """

    to: str
    gap: Gap
    p_value: float
    verdict: str
    needed: Needed | None


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        name: of the row.
        miou: mean over seeds, with its interval.
        deviation: over seeds; NaN of one seed.
        seeds: that count.
        iou: of each class, mean over seeds; NaN where it does not occur or is dropped.
        cost: of one run, the median.
        to_best, to_baseline: None for the row itself, and where it was scored on other images.
        figure: what a paper says.
        note: what is to be known of the row, such as runs that failed.
    """

    name: str
    miou: Interval
    deviation: float
    seeds: int
    iou: tuple[float, ...]
    cost: Cost
    to_best: Difference | None = None
    to_baseline: Difference | None = None
    figure: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Leaderboard:
    """The table, best row first; rows without a score stand at its end."""

    name: str
    question: str
    split: str
    definition: Definition
    classes: ClassSet
    images: int
    units: int
    baseline: str | None
    rows: tuple[Row, ...]
    runs: int

    @property
    def sentence(self) -> str:
        return DEFINITIONS[self.definition]

    @property
    def figures(self) -> tuple[str, ...]:
        """Which figures of a paper there are."""
        return tuple(dict.fromkeys(key for row in self.rows for key in row.figure))


MANY_RUNS = 300
"""With more, half as many sets of images are drawn: a table of a thousand runs is there in seconds."""


def board(plan: Plan, *, split: str = "val", resamples: int | None = None) -> Leaderboard:
    """The table of the runs of a plan.

    Args:
        plan: which runs belong to which row, see `entries`.
        split: whose scores count.
        resamples: sets of images that are drawn for the intervals; none: as many as is usual.

    Raises:
        RunError: no run has scores of this split.
        DataError: the scores of a run are damaged.
    """
    reader = Reader(split, plan.definition)
    scored = [(entry, reader.read(entry.run)) for entry in plan.entries if _has_scores(entry, split)]
    if not scored:
        mend = "run the study first: segwright study"
        if split != "val":
            mend = f"score its runs: segwright evaluate RUN --split {split}"
        raise RunError(f"no run has scores of '{split}'", mend=mend, file=plan.folder)
    classes = _usual_classes(plan, scored)
    wholes, notes = _whole_seeds(plan, scored, usual=classes)
    if resamples is None:
        resamples = SEED_RESAMPLES if len(scored) <= MANY_RUNS else SEED_RESAMPLES // 2
    counted = Counter(whole.images for row in wholes.values() for whole in row).most_common(1)
    usual = counted[0][0] if counted else ((), b"")
    units, found = _replicates(wholes, usual, definition=plan.definition, resamples=resamples)
    rows = [_row(plan, name, wholes.get(name, []), found.get(name), notes.get(name, [])) for name in plan.rows]
    rows.sort(key=lambda row: (math.isnan(row.miou.estimate), -row.miou.estimate))
    best = next((row.name for row in rows if row.name in found), None)
    to_best = _differences(rows, found, to=best)
    to_baseline = _differences(rows, found, to=plan.baseline)
    rows = [replace(row, to_best=to_best.get(row.name), to_baseline=to_baseline.get(row.name)) for row in rows]
    return Leaderboard(
        name=plan.name, question=plan.question, split=split, definition=plan.definition, classes=classes,
        images=len(usual[0]), units=units, baseline=plan.baseline, rows=tuple(rows), runs=len(scored),
    )  # fmt: skip


def _has_scores(entry: Entry, split: str) -> bool:
    return (entry.run / "scores" / f"{split}.npz").is_file()


def _usual_classes(plan: Plan, scored: Sequence[tuple[Entry, Scored]]) -> ClassSet:
    """The classes, with their rules, that most runs are scored by."""
    each = [one.classes for _, one in scored]
    kinds = [(classes.names, rules(classes, plan.definition)) for classes in each]
    return each[kinds.index(Counter(kinds).most_common(1)[0][0])]


def _whole_seeds(
    plan: Plan, scored: Sequence[tuple[Entry, Scored]], *, usual: ClassSet
) -> tuple[dict[str, list[Scored]], dict[str, list[str]]]:
    """The runs of each row, the folds of a seed made one; and what is to be said of rows that are not whole."""
    folds: dict[tuple[str, int], list[Scored]] = {}
    notes: dict[str, list[str]] = {}
    for entry, one in scored:
        if one.classes.names != usual.names:
            notes.setdefault(entry.row, []).append(f"{entry.run.name} has other classes")
            continue
        if rules(one.classes, plan.definition) != rules(usual, plan.definition):
            notes.setdefault(entry.row, []).append(f"{entry.run.name} leaves other classes out of its score")
            continue
        folds.setdefault((entry.row, entry.seed), []).append(one)
    wholes: dict[str, list[Scored]] = {}
    for (row, seed), parts in folds.items():
        if plan.folds == 1:
            # Runs that differ in what no row tells are replicates, as seeds are.
            wholes.setdefault(row, []).extend(parts)
            continue
        if len(parts) != plan.folds:
            notes.setdefault(row, []).append(f"seed {seed} has {len(parts)} of {plan.folds} folds and does not count")
            continue
        wholes.setdefault(row, []).append(_joined(parts))
    for row, text in plan.missing.items():
        notes.setdefault(row, []).append(text)
    return wholes, notes


def _joined(parts: Sequence[Scored]) -> Scored:
    """The folds of a seed: each image was scored once, by a model that had not seen it."""
    ids = np.array([name for part in parts for name in part.ids])
    order = np.argsort(ids, kind="stable")
    groups = None
    if all(part.groups is not None for part in parts):
        groups = tuple(np.array([group for part in parts for group in part.groups or ()])[order].tolist())
    costs = [part.cost for part in parts]
    return replace(
        parts[0],
        ids=tuple(ids[order].tolist()),
        truth=b"".join(sorted(part.truth for part in parts)),
        counts=np.concatenate([part.counts for part in parts])[order],
        totals=np.sum([part.totals for part in parts], axis=0),
        groups=groups,
        cost=_usual_cost(costs),
    )


def _replicates(
    wholes: Mapping[str, Sequence[Scored]],
    usual: tuple[tuple[str, ...], bytes],
    *,
    definition: Definition,
    resamples: int,
) -> tuple[int, dict[str, Replicates]]:
    """Of each row whose seeds were all scored on the usual images, what the statistics need; and how many units."""
    rows = {name: row for name, row in wholes.items() if all(one.images == usual for one in row)}
    every = [one for row in rows.values() for one in row]
    groups = next((one.groups for one in every if one.groups is not None), None)
    tables = [per_unit_counts(_chosen(one, definition), groups) for one in every]
    chosen = len(tables[0][0]) // 2 if tables else 0
    drawn = draw_scores(tables, lambda sums: _miou(sums, chosen), resamples=resamples)
    found, first = {}, 0
    for name, row in rows.items():
        columns = drawn[:, first : first + len(row)]
        found[name] = Replicates(_scores(row, definition), columns.mean(1), len(tables[0]))
        first += len(row)
    return (len(tables[0]) if tables else 0), found


def _scores(row: Sequence[Scored], definition: Definition) -> np.ndarray:
    totals = np.stack([one.totals for one in row])
    return score_counts(totals, row[0].classes, definition).miou


def _chosen(one: Scored, definition: Definition) -> np.ndarray:
    """Right pixels and union of the classes in the mean, (N, 2 k): all that a mIoU needs of an image."""
    part = one.counts[:, :, list(scored_classes(one.classes, definition))]
    return np.concatenate([part[:, 0], part[:, 1] + part[:, 2] - part[:, 0]], axis=1)


def _miou(sums: np.ndarray, chosen: int) -> np.ndarray:
    """As `metrics.score_counts` counts it, from what `_chosen` gives: (R, 2 k) -> (R,)."""
    right, union = sums[:, :chosen], sums[:, chosen:]
    there = union > 0
    iou = np.divide(right, union, out=np.zeros_like(right), where=there)
    count = there.sum(1)
    mean = np.full(len(sums), np.nan, dtype=iou.dtype)
    np.divide(iou.sum(1), count, out=mean, where=count > 0)
    return mean


def _row(plan: Plan, name: str, runs: Sequence[Scored], found: Replicates | None, notes: Sequence[str]) -> Row:
    told = list(notes)
    nothing = Interval(math.nan, math.nan, math.nan)
    figure = plan.figures.get(name, {})
    if not runs:
        return Row(name, nothing, math.nan, 0, (), Cost(None, None, None), figure=figure, note="; ".join(told))
    each = _scores(runs, plan.definition) if found is None else found.scores
    if found is None:
        told.append("scored on other images or masks, so not compared")
    deviation = float(each.std(ddof=1)) if len(each) > 1 else math.nan
    miou = replace(nothing, estimate=float(each.mean())) if found is None else interval(found)
    iou = tuple(_mean_known(values) for values in shown_iou(runs, plan.definition).T.tolist())
    cost = _usual_cost([one.cost for one in runs])
    return Row(name, miou, deviation, len(runs), iou, cost, figure=figure, note="; ".join(told))


def _mean_known(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return fmean(known) if known else math.nan


def _usual_cost(costs: Sequence[Cost]) -> Cost:
    def middle(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return median(known) if known else None

    parameters = middle([one.parameters for one in costs])
    return Cost(
        middle([one.minutes for one in costs]),
        None if parameters is None else int(parameters),
        middle([one.images_per_second for one in costs]),
    )


def _differences(rows: Sequence[Row], found: Mapping[str, Replicates], *, to: str | None) -> dict[str, Difference]:
    """Of each other row that can be compared, its difference to one of them."""
    if to is None or to not in found:
        return {}
    others = [row.name for row in rows if row.name in found and row.name != to]
    gaps = {name: gap(found[name], found[to]) for name in others}
    adjusted = dict(zip(others, holm([gaps[name].comparison.p_value for name in others]), strict=True))
    return {name: _difference(gaps[name], to, adjusted[name], count=len(others)) for name in others}


def _difference(found: Gap, to: str, p_value: float, *, count: int) -> Difference:
    """With one seed of either, what differs may be the seeds, so nothing is said of the recipes."""
    verdict = replace(found.comparison, p_value=p_value).verdict(("better", "worse"), alpha=ALPHA)
    if found.seeds < 2:
        return Difference(to, found, p_value, "one seed", None)
    more = needed(found, alpha=ALPHA / count) if verdict == TOO_CLOSE else None
    return Difference(to, found, p_value, verdict, more)
