"""Several trainings of one recipe, scored on the same images: how sure is their mean, and the gap between two means?

A mean over seeds moves with the images that it was scored on and with the seeds that were drawn:

    variance of the mean = variance over images + variance over seeds / S

Both are drawn anew. Images (or groups of images) are drawn alike for all trainings, because all were scored on the same
ones (crossed, not nested: Owen 2007, https://doi.org/10.1214/07-AOAS122); the mean over seeds is drawn from a normal
distribution with the spread of the seeds. The spread of few is itself uncertain: the interval is widened from the
normal to the t-distribution with the degrees of freedom of Satterthwaite (1946, https://doi.org/10.2307/3002019). A
p-value is that of the t-test with the same variance. With one seed, nothing is known about other seeds, and the
interval is about images alone.

In `studies/intervals`, with 200 images, it held the truth in 92.1, 92.6 and 94.1 % of the cases for 2, 3 and 5 seeds,
and two equal recipes were told apart in 4.3, 4.3 and 3.7 %.

    U units   S seeds   R resamples   M numbers a unit
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Num
from scipy import special

from segwright.evaluation.statistics import LEVEL, Comparison, Interval, Statistic, drawn_weights

SEED_RESAMPLES = 2_000
POWER = 0.8
_AT_ONCE = 64
_PIECE_BYTES = 1 << 24
"""So many trainings are one product of matrices, fewer where their sums would take more memory than this."""

MOST_TIMES = 1000.0
"""Beyond so many times the images or seeds, a difference is called none."""


@dataclass(frozen=True)
class Replicates:
    """A score that was measured with several seeds on the same units.

    Attributes:
        scores: of each seed, from all units.
        draws: the mean over seeds from each drawn set of units.
        units: how many images or groups there are.
    """

    scores: Float[np.ndarray, " S"]
    draws: Float[np.ndarray, " R"]
    units: int

    @property
    def mean(self) -> float:
        return float(self.scores.mean())

    @property
    def deviation(self) -> float:
        """Standard deviation over seeds; NaN of one."""
        return float(self.scores.std(ddof=1)) if len(self.scores) > 1 else math.nan


@dataclass(frozen=True)
class Gap:
    """How much better one recipe is than another, and where the doubt comes from.

    Attributes:
        comparison: the difference, its interval and p-value.
        image_variance: of the difference, from the choice of images.
        seed_variance: from the choice of seeds; NaN where neither was trained with two.
        units, seeds: of the comparison; of seeds the smaller number.
    """

    comparison: Comparison
    image_variance: float
    seed_variance: float
    units: int
    seeds: int


@dataclass(frozen=True)
class Needed:
    """How many would settle a comparison, if the difference is what was seen; None where no number would.

    Attributes:
        units: images or groups in all, with the seeds as they are.
        seeds: of each recipe, with the images as they are.
    """

    units: int | None
    seeds: int | None


def draw_scores(
    tables: Sequence[Num[np.ndarray, "U M"]], statistic: Statistic, *, resamples: int = SEED_RESAMPLES, seed: int = 0
) -> Float[np.ndarray, "R n"]:
    """A score of each of n trainings on drawn units, the same ones for all.

    Args:
        tables: of each training, numbers a unit that may be summed; all of one shape.
        statistic: from sums (R, M) to scores (R,).
        resamples: how many sets of units are drawn.
        seed: of the draws.
    """
    if not tables:
        return np.zeros((resamples, 0))
    units, numbers = tables[0].shape
    # Sums of drawn sets are exact to seven digits in half the time; scores of all units are not computed here.
    wide = np.concatenate([np.asarray(table, dtype=np.float32) for table in tables], axis=1)
    drawn = np.empty((resamples, len(tables)))
    done = 0
    for weights in drawn_weights(units, resamples=resamples, seed=seed):
        few = weights.astype(np.float32)
        step = numbers * min(_AT_ONCE, max(1, _PIECE_BYTES // (few.itemsize * len(few) * numbers)))
        pieces = (wide[:, first : first + step] for first in range(0, wide.shape[1], step))
        scores = [statistic((few @ some).reshape(-1, numbers)).reshape(len(few), -1) for some in pieces]
        drawn[done : done + len(few)] = np.concatenate(scores, axis=1)
        done += len(few)
    return drawn


def interval(replicates: Replicates, *, level: float = LEVEL, seed: int = 0) -> Interval:
    """The interval of the mean over seeds: images and seeds drawn anew."""
    one = [(replicates, 1.0)]
    return _interval(one, estimate=replicates.mean, freedom=_Variance.of(one).freedom, level=level, seed=seed)


def gap(better: Replicates, other: Replicates, *, level: float = LEVEL, seed: int = 0) -> Gap:
    """The difference `better - other` of two means over seeds on the same drawn units.

    Seeds of the two are not paired: the same number starts two recipes no more alike than two numbers do.
    """
    pair = [(better, 1.0), (other, -1.0)]
    variance = _Variance.of(pair)
    difference = better.mean - other.mean
    error = math.sqrt(variance.total)
    if error > 0:
        p_value = float(2 * special.stdtr(variance.freedom, -abs(difference) / error))
    else:
        p_value = math.nan if variance.units < 2 else float(difference == 0)
    return Gap(
        comparison=Comparison(
            _interval(pair, estimate=difference, freedom=variance.freedom, level=level, seed=seed), p_value
        ),
        image_variance=variance.images,
        seed_variance=variance.seeds,
        units=variance.units,
        seeds=min(len(better.scores), len(other.scores)),
    )


def needed(found: Gap, *, alpha: float = 0.05, power: float = POWER) -> Needed:
    """About how many images or seeds would settle a comparison that is too close to call.

    From the usual sample size of a mean: the variance must fall to (difference / (z_(1 - alpha/2) + z_power))^2. The
    part of the images falls with their number, that of the seeds with theirs.

    Args:
        found: the comparison.
        alpha: level of the test; divided by the number of comparisons where there are several.
        power: chance to settle it, if the difference is what was seen.
    """
    quantiles = special.ndtri(power) - special.ndtri(alpha / 2)
    bound = (found.comparison.difference.estimate / quantiles) ** 2
    of_seeds = 0.0 if math.isnan(found.seed_variance) else found.seed_variance
    return Needed(
        units=_times(found.units, found.image_variance, bound - of_seeds),
        seeds=None if found.seeds < 2 else _times(found.seeds, of_seeds, bound - found.image_variance),
    )


def _times(count: int, variance: float, bound: float) -> int | None:
    """What a count must become for its share of the variance to fall to a bound."""
    if not bound > 0 or not variance > 0 or variance / bound > MOST_TIMES:
        return None
    return max(count + 1, math.ceil(count * variance / bound))


@dataclass(frozen=True)
class _Variance:
    """Of a sum of means with signs: its parts, and the degrees of freedom of the whole."""

    images: float
    seeds: float
    units: int
    freedom: float

    @property
    def total(self) -> float:
        return self.images + (0.0 if math.isnan(self.seeds) else self.seeds)

    @classmethod
    def of(cls, parts: Sequence[tuple[Replicates, float]]) -> _Variance:
        units = parts[0][0].units
        drawn = _drawn(parts)
        spread = float(drawn.var()) if drawn.size and units > 1 else math.nan
        images = spread * units / (units - 1) if units > 1 else math.nan
        several = [one for one, _ in parts if len(one.scores) > 1]
        each = [(float(one.scores.var(ddof=1)) / len(one.scores), len(one.scores) - 1) for one in several]
        seeds = sum(value for value, _ in each) if each else math.nan
        terms = [(images, units - 1), *each]
        below = sum(value**2 / freedom for value, freedom in terms if value > 0)
        total = sum(value for value, _ in terms)
        return cls(images, seeds, units, total**2 / below if below > 0 else math.inf)


def _drawn(parts: Sequence[tuple[Replicates, float]]) -> np.ndarray:
    """The sum on each drawn set of units, as far as it has a value there."""
    drawn = np.sum([sign * one.draws for one, sign in parts], axis=0)
    return np.asarray(drawn[~np.isnan(drawn)])


def _interval(
    parts: Sequence[tuple[Replicates, float]], *, estimate: float, freedom: float, level: float, seed: int
) -> Interval:
    units = parts[0][0].units
    drawn = _drawn(parts)
    if units < 2 or not drawn.size:
        return Interval(estimate, math.nan, math.nan, level, units)
    rng = np.random.default_rng([seed, 2])
    away = (drawn - estimate) * math.sqrt(units / (units - 1))
    for one, _ in parts:
        if len(one.scores) > 1:
            # Two or three values drawn anew would have no tails at all, so their mean is drawn as a normal one.
            away += rng.normal(0, one.deviation / math.sqrt(len(one.scores)), len(drawn))
    tail = (1 - level) / 2
    wider = special.stdtrit(freedom, tail) / special.ndtri(tail) if math.isfinite(freedom) else 1.0
    low, high = np.quantile(away * wider, [tail, 1 - tail])
    return Interval(estimate, estimate + float(low), estimate + float(high), level, units)
