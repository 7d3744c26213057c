"""Runs side by side on the same images: which is better, on which classes, and on which images they part.

Statistics come from the counts on disk. The images to look at are the best five, the worst five (by their mean over the
models) and the five on which the models differ most; `sides` lets the models label them.

    N images   K classes   M runs
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8

from segwright.errors import RunError
from segwright.evaluation.statistics import (
    RESAMPLES,
    Comparison,
    Interval,
    Statistic,
    bootstrap,
    holm,
    paired_difference,
    per_unit_counts,
)
from segwright.metrics import Definition, score_counts
from segwright.runs import find_run
from segwright.studies.results import Cost, Reader, Scored, rules, shown_iou
from segwright.types import ClassSet

Kind = Literal["differ", "best", "worst"]


@dataclass(frozen=True)
class Compared:
    """A run among others.

    Attributes:
        run: its folder.
        miou: on all images.
        iou: of each class; NaN where it does not occur or is dropped.
        cost: of the run.
        to_first: its difference to the first run, and of each class; None for the first itself.
        p_value: Holm-corrected over all runs.
        verdict: `better`, `worse` or `too close to call`.
    """

    run: Path
    miou: Interval
    iou: tuple[float, ...]
    cost: Cost
    to_first: Comparison | None = None
    classes_to_first: tuple[Comparison, ...] = ()
    p_value: float = float("nan")
    verdict: str = ""


@dataclass(frozen=True)
class Side:
    """One image, with what each run predicts.

    Attributes:
        id: of the image.
        kind: why it is shown.
        scores: mIoU of each run on it.
        image: scaled down, as shown.
        mask: its true labels.
        preds: of each run.
    """

    id: str
    kind: Kind
    scores: tuple[float, ...]
    image: UInt8[np.ndarray, "H W 3"]
    mask: UInt8[np.ndarray, "H W"]
    preds: tuple[UInt8[np.ndarray, "H W"], ...]


@dataclass(frozen=True)
class RunComparison:
    """What `compare` found; `image_scores` are those of every image, by run."""

    split: str
    definition: Definition
    classes: ClassSet
    ids: tuple[str, ...]
    units: int
    runs: tuple[Compared, ...]
    image_scores: Float[np.ndarray, "M N"]
    sides: tuple[Side, ...] = field(default=())

    def chosen(self, count: int = 5) -> dict[str, Kind]:
        """The images to show: where the runs differ most, then the best and the worst of the rest."""
        return choose(self.ids, self.image_scores, count=count)


def compare(
    runs: Sequence[Path], *, split: str = "val", definition: Definition = "declared", resamples: int = RESAMPLES
) -> RunComparison:
    """Compare runs by their scores on disk; the first is what the others are compared with.

    Args:
        runs: two or more folders.
        split: whose scores.
        definition: of the score.
        resamples: for intervals and p-values.

    Raises:
        RunError: fewer than two runs, or they were scored on other images or classes.
        DataError: the scores of one are missing or damaged.
    """
    if len(runs) < 2:
        raise RunError("one run cannot be compared", mend="name two or more")
    reader = Reader(split, definition)
    scored = [reader.read(find_run(run)) for run in runs]
    for one in scored[1:]:
        _require_same(scored[0], one, definition)
    groups = next((one.groups for one in scored if one.groups is not None), None)
    each = [_compared(one, groups, resamples=resamples, definition=definition) for one in scored]
    against = [_against(one, scored[0], groups, resamples=resamples, definition=definition) for one in scored[1:]]
    adjusted = holm([whole.p_value for whole, _ in against])
    told = [each[0]]
    for alone, (whole, classes), p_value in zip(each[1:], against, adjusted, strict=True):
        verdict = Comparison(whole.difference, p_value).verdict(("better", "worse"))
        told.append(replace(alone, to_first=whole, classes_to_first=classes, p_value=p_value, verdict=verdict))
    image_scores = np.stack([score_counts(one.counts, one.classes, definition).miou for one in scored])
    units = len(scored[0].ids) if groups is None else len(set(groups))
    return RunComparison(split, definition, scored[0].classes, scored[0].ids, units, tuple(told), image_scores)


def _require_same(first: Scored, other: Scored, definition: Definition) -> None:
    if other.classes.names != first.classes.names:
        there, here = ", ".join(other.classes.names), ", ".join(first.classes.names)
        problem = f"has the classes {there}, and {first.run} {here}"
        raise RunError(problem, mend="compare runs of the same classes", file=other.run)
    if other.ids != first.ids:
        shared = len(set(first.ids) & set(other.ids))
        problem = f"was scored on {len(other.ids)} images and {first.run} on {len(first.ids)}; {shared} are the same"
        raise RunError(problem, mend=_AGAIN, file=other.run)
    if other.truth != first.truth:
        problem = f"was scored on other masks of these images than {first.run}"
        raise RunError(problem, mend=_AGAIN, file=other.run)
    if rules(other.classes, definition) != rules(first.classes, definition):
        problem = f"leaves other classes out of its score than {first.run}"
        raise RunError(problem, mend="compare by --definition all_classes, or runs of the same rules", file=other.run)


_AGAIN = "score both with: segwright evaluate RUN --data IMAGES"


def _compared(one: Scored, groups: Sequence[str] | None, *, resamples: int, definition: Definition) -> Compared:
    miou = bootstrap(one.counts, _miou(one.classes, definition), groups=groups, resamples=resamples)
    return Compared(one.run, miou, tuple(shown_iou([one], definition)[0].tolist()), one.cost)


def _against(
    one: Scored, first: Scored, groups: Sequence[str] | None, *, resamples: int, definition: Definition
) -> tuple[Comparison, tuple[Comparison, ...]]:
    """The whole difference to the first run, and that of each class."""
    statistic = _miou(first.classes, definition)
    whole = paired_difference(one.counts, first.counts, statistic, groups=groups, resamples=resamples)
    units = [per_unit_counts(each.counts, groups) for each in (one, first)]
    classes = tuple(
        paired_difference(units[0][:, :, k], units[1][:, :, k], _iou, resamples=min(resamples, 2_000))
        for k in range(first.classes.num_classes)
    )
    return whole, classes


def _miou(classes: ClassSet, definition: Definition) -> Statistic:
    def miou(sums: np.ndarray) -> np.ndarray:
        return score_counts(sums, classes, definition).miou

    return miou


def _iou(sums: Float[np.ndarray, "R 3"]) -> Float[np.ndarray, " R"]:
    union = sums[:, 1] + sums[:, 2] - sums[:, 0]
    iou = np.full(len(sums), np.nan)
    np.divide(sums[:, 0], union, out=iou, where=union > 0)
    return iou


def choose(ids: Sequence[str], image_scores: Float[np.ndarray, "M N"], *, count: int = 5) -> dict[str, Kind]:
    """Names of the images to show, and why; none stands twice."""
    known = np.flatnonzero(~np.isnan(image_scores).any(0))
    spread = np.ptp(image_scores[:, known], axis=0)
    mean = image_scores[:, known].mean(0)
    chosen: dict[str, Kind] = {}
    kinds: tuple[tuple[Kind, np.ndarray], ...] = (("differ", -spread), ("best", -mean), ("worst", mean))
    for kind, order in kinds:
        left = [ids[known[i]] for i in np.argsort(order, kind="stable") if ids[known[i]] not in chosen]
        chosen |= dict.fromkeys(left[:count], kind)
    return chosen
