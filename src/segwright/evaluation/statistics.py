"""Intervals and paired comparisons: how far a score would move with other images of the same kind.

The units that are drawn anew are images, or groups of images where neighbours belong together (frames of a film, slices
of a patient). Intervals are percentile bootstraps (Efron 1979, https://doi.org/10.1214/aos/1176344552), and their
percentiles are moved outward where units are few (Hesterberg 2015, https://arxiv.org/abs/1411.5279). A comparison swaps
the two models' counts unit by unit (approximate randomisation, Yeh 2000, https://aclanthology.org/C00-2137/). A score
is a function of summed counts, so a thousand resamples are one product of matrices.

In `studies/intervals` a 95 % interval of the mIoU held the truth in 92.8 % of simulated sets of 50 images (where the
truth lay above it in 5.9 % and below in 1.3 %), 95.1 % of 200 and 94.4 % of 1,000; with 10, 40 and 200 groups in
93.9, 94.3 and 93.4 %. The paired test told equal models apart in 4.0 % (50 images) and 5.3 % (200) of the sets.

    N images   U units   R resamples   M numbers an image
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float, Int, Num
from scipy import special

from segwright.metrics import Definition, Scores, class_counts, score_counts
from segwright.types import ClassSet

RESAMPLES = 10_000
LEVEL = 0.95
_CHUNK_WEIGHTS = 500_000
"""So many weights at a time: they stay in the processor's cache, and memory does not grow with the images."""

Statistic = Callable[[np.ndarray], np.ndarray]
"""From summed counts (R, ...) to one number each, (R,)."""


@dataclass(frozen=True)
class Interval:
    """A number and the range that resampling gives it.

    Attributes:
        estimate: from all images.
        low, high: the percentiles of the resampled numbers; NaN where fewer than two units gave one.
        level: the share of resamples between them.
        units: how many images, or groups of images, were drawn from.
    """

    estimate: float
    low: float
    high: float
    level: float = LEVEL
    units: int = 0

    def as_dict(self) -> dict[str, float]:
        return {"estimate": self.estimate, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Comparison:
    """How much better model A is than model B on the same images.

    Attributes:
        difference: A - B.
        p_value: two-sided, of 'both are equally good'.
    """

    difference: Interval
    p_value: float

    def verdict(self, names: tuple[str, str] = ("A", "B"), *, alpha: float = 0.05) -> str:
        """The better of the two, or 'too close to call'."""
        if not self.p_value < alpha or self.difference.low <= 0 <= self.difference.high:
            return "too close to call"
        return names[0] if self.difference.estimate > 0 else names[1]


def bootstrap(
    values: Num[np.ndarray, "N ..."],
    statistic: Statistic,
    *,
    groups: Sequence[object] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval:
    """The interval of any statistic of summed per-image numbers.

    Args:
        values: (N, K, K) counts, or any numbers an image that may be summed.
        statistic: takes sums (R, K, K), gives (R,). Resamples for which it gives NaN are left out.
        groups: one a image; images of one group are drawn together.
        resamples: how many.
        seed: of the draws; the same images and seed give the same interval.
        level: share of resamples inside the interval.
    """

    def alone(sums: np.ndarray) -> np.ndarray:
        return statistic(sums)[:, None]

    return bootstrap_each(values, alone, groups=groups, resamples=resamples, seed=seed, level=level)[0]


def bootstrap_each(
    values: Num[np.ndarray, "N ..."],
    statistic: Statistic,
    *,
    groups: Sequence[object] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> list[Interval]:
    """As `bootstrap`, for a statistic that gives several numbers (R, K) at once: an interval each."""
    per_unit = per_unit_counts(values, groups)
    parts = [statistic(sums) for sums in _resampled_sums(per_unit, resamples=resamples, seed=seed)]
    whole = statistic(per_unit.sum(0, keepdims=True))[0]
    columns = zip(np.concatenate(parts).T, whole, strict=True)
    return [interval_of(drawn, estimate=estimate, level=level, units=len(per_unit)) for drawn, estimate in columns]


def bootstrap_mean(
    values: Num[np.ndarray, " N"], *, groups: Sequence[object] | None = None, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """The interval of a mean over images; NaN marks an image without a value."""
    known = ~np.isnan(np.asarray(values, dtype=float))
    pairs = np.stack([np.where(known, values, 0.0), known], axis=1)

    def mean(sums: np.ndarray) -> np.ndarray:
        filled = np.full(len(sums), np.nan)
        np.divide(sums[:, 0], sums[:, 1], out=filled, where=sums[:, 1] > 0)
        return filled

    return bootstrap(pairs, mean, groups=groups, resamples=resamples, seed=seed)


def score_intervals(
    confusion: Int[np.ndarray, "N K K"],
    classes: ClassSet,
    definition: Definition = "declared",
    *,
    groups: Sequence[object] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Interval | list[Interval]]:
    """The intervals of every score under a definition, from one set of draws.

    Returns:
        `miou`, `dice`, `pixel_accuracy`, `mean_pixel_accuracy`: an interval each; `iou`, `dice_per_class`,
        `accuracy_per_class`: one a class.
    """
    per_unit = per_unit_counts(class_counts(confusion, classes, definition), groups)
    estimate = score_counts(per_unit.sum(0), classes, definition)
    sums = _resampled_sums(per_unit, resamples=resamples, seed=seed)
    parts = [score_counts(some, classes, definition) for some in sums]

    def of(name: str) -> Interval | list[Interval]:
        drawn = np.concatenate([getattr(part, name) for part in parts])
        whole = getattr(estimate, name)
        if drawn.ndim == 1:
            return interval_of(drawn, estimate=float(whole), units=len(per_unit))
        return [interval_of(drawn[:, k], estimate=whole[k], units=len(per_unit)) for k in range(len(whole))]

    return {name: of(name) for name in SCORE_NAMES}


SCORE_NAMES = tuple(name for name in Scores.__dataclass_fields__ if name not in ("definition", "in_mean", "absent"))


def paired_difference(
    confusion_a: Num[np.ndarray, "N ..."],
    confusion_b: Num[np.ndarray, "N ..."],
    statistic: Statistic,
    *,
    groups: Sequence[object] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Comparison:
    """Compare two models on the same images, in the same order.

    The interval draws the same units for both. The p-value counts how often swapping the models' counts at random, unit
    by unit, gives at least the difference that was seen; the unswapped order counts as one such case.
    """
    assert confusion_a.shape == confusion_b.shape, f"{confusion_a.shape} and {confusion_b.shape} counts"
    a, b = per_unit_counts(confusion_a, groups), per_unit_counts(confusion_b, groups)
    both = np.stack([a, b], axis=1)

    def difference(sums: np.ndarray) -> np.ndarray:
        return statistic(sums[:, 0]) - statistic(sums[:, 1])

    drawn = [difference(sums) for sums in _resampled_sums(both, resamples=resamples, seed=seed)]
    seen = difference(both.sum(0, keepdims=True))[0]
    swapped = np.concatenate(list(_swapped(a, b, statistic, resamples=resamples, seed=seed)))
    extreme = np.count_nonzero(np.abs(swapped) >= abs(seen) * (1 - 1e-9))
    interval = interval_of(np.concatenate(drawn), estimate=seen, level=level, units=len(a))
    p_value = float("nan") if np.isnan(seen) else (extreme + 1) / (resamples + 1)
    return Comparison(difference=interval, p_value=p_value)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of several comparisons, so that all false alarms together stay below the level.

    The smallest of m is multiplied by m, the next by m - 1 and so on, and none falls below an earlier one (Holm 1979,
    https://www.jstor.org/stable/4615733). NaN, of a comparison that could not be made, stays and does not count.
    """
    adjusted = [float("nan")] * len(p_values)
    rising = sorted((p, place) for place, p in enumerate(p_values) if not np.isnan(p))
    most = 0.0
    for rank, (p, place) in enumerate(rising):
        most = max(most, min(1.0, p * (len(rising) - rank)))
        adjusted[place] = most
    return adjusted


def per_unit_counts(values: np.ndarray, groups: Sequence[object] | None) -> Float[np.ndarray, "U ..."]:
    """Sum images of one group; float64 holds whole numbers up to 2^53 exactly and multiplies fast."""
    if groups is None:
        return values.astype(np.float64)
    assert len(groups) == len(values), f"{len(groups)} groups for {len(values)} images"
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    sums = np.zeros((len(numbers), *values.shape[1:]))
    np.add.at(sums, [numbers[group] for group in groups], values)
    return sums


def _resampled_sums(per_unit: np.ndarray, *, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Sums (R, ...) over units drawn with replacement, some resamples at a time."""
    table = per_unit.reshape(len(per_unit), -1)
    for weights in drawn_weights(len(per_unit), resamples=resamples, seed=seed):
        yield (weights @ table).reshape(len(weights), *per_unit.shape[1:])


def drawn_weights(units: int, *, resamples: int, seed: int) -> Iterator[Float[np.ndarray, "R U"]]:
    """How often each unit was drawn, with replacement, in each resample; some resamples at a time."""
    rng = np.random.default_rng(seed)
    for rows in _chunks(resamples, units):
        picks = rng.integers(0, units, size=(rows, units), dtype=np.int32)
        picks += (np.arange(rows, dtype=np.int32) * units)[:, None]
        yield np.bincount(picks.ravel(), minlength=rows * units).reshape(rows, units).astype(np.float64)


def _swapped(a: np.ndarray, b: np.ndarray, statistic: Statistic, *, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Differences (R,) after each unit's counts changed sides with probability a half."""
    apart = (b - a).reshape(len(a), -1)
    rng = np.random.default_rng([seed, 1])
    for rows in _chunks(resamples, len(a)):
        swaps = rng.integers(0, 2, size=(rows, len(a))).astype(np.float64)
        moved = (swaps @ apart).reshape(rows, *a.shape[1:])
        yield statistic(a.sum(0) + moved) - statistic(b.sum(0) - moved)


def _chunks(resamples: int, units: int) -> Iterator[int]:
    most = max(1, _CHUNK_WEIGHTS // units)
    for start in range(0, resamples, most):
        yield min(most, resamples - start)


def interval_of(drawn: Float[np.ndarray, " R"], *, estimate: float, units: int, level: float = LEVEL) -> Interval:
    """The interval that resampled numbers give."""
    drawn = drawn[~np.isnan(drawn)]
    low = high = float("nan")
    if units > 1 and drawn.size:
        tail = expanded_tail(units, level=level)
        low, high = (float(edge) for edge in np.quantile(drawn, [tail, 1 - tail]))
    return Interval(estimate=float(estimate), low=low, high=high, level=level, units=units)


@cache
def expanded_tail(units: int, *, level: float = LEVEL) -> float:
    """The share of resamples beyond each edge of an interval; less than (1 - level) / 2 where units are few.

    Resamples of U units spread by sqrt((U - 1) / U) too little, and how much they spread is itself uncertain, as in a
    t-test (Hesterberg 2015, section 4.3, https://arxiv.org/abs/1411.5279).
    """
    # `scipy.stats` has the same by other names, and takes four times as long to import.
    quantile = special.stdtrit(units - 1, (1 - level) / 2) * np.sqrt(units / (units - 1))
    return float(special.ndtr(quantile))
