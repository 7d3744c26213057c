"""Means over seeds: intervals and tests of images and seeds together, against scipy where one part is missing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from segwright.evaluation.hierarchical import Gap, Replicates, draw_scores, gap, interval, needed
from segwright.evaluation.statistics import Comparison, Interval, expanded_tail, holm


def mean_of(sums: np.ndarray) -> np.ndarray:
    return sums[:, 0] / 50


def replicates(rng: np.random.Generator, seeds: int, *, shift: float = 0.0) -> Replicates:
    values = rng.normal(shift, 1.0, (seeds, 50))
    draws = draw_scores([one[:, None] for one in values], mean_of).mean(1)
    return Replicates(values.mean(1), draws, 50)


def test_draws_are_the_same_units_for_all_trainings(rng: np.random.Generator) -> None:
    table = rng.integers(0, 100, (30, 2))
    drawn = draw_scores([table, table * 2], lambda sums: sums[:, 0] + sums[:, 1], resamples=300)
    np.testing.assert_allclose(drawn[:, 1], 2 * drawn[:, 0], rtol=1e-6)
    assert drawn[:, 0].mean() == pytest.approx(table.sum(), rel=0.02)
    assert draw_scores([], mean_of, resamples=5).shape == (5, 0)
    many = draw_scores([table * (1 + k) for k in range(130)], lambda sums: sums[:, 0] + sums[:, 1], resamples=40)
    np.testing.assert_allclose(many, drawn[:40, :1] * (1 + np.arange(130)), rtol=1e-5)


def test_many_classes_and_few_images_take_little_memory() -> None:
    sizes = []

    def first(sums: np.ndarray) -> np.ndarray:
        sizes.append(sums.nbytes)
        return sums[:, 0]

    tables = [np.full((4, 500), seed) for seed in range(30)]
    drawn = draw_scores(tables, first)
    np.testing.assert_array_equal(drawn[7], 4 * np.arange(30))
    assert len(sizes) > 1
    assert max(sizes) <= 1 << 24


def test_one_seed_gives_the_t_interval_of_the_images(rng: np.random.Generator) -> None:
    values = rng.normal(0.3, 1.0, 50)
    one = Replicates(values.mean(keepdims=True), draw_scores([values[:, None]], mean_of, resamples=20_000)[:, 0], 50)
    shown = interval(one)
    theirs = stats.ttest_1samp(values, 0).confidence_interval()
    width = theirs.high - theirs.low
    assert abs(shown.low - theirs.low) < 0.04 * width
    assert abs(shown.high - theirs.high) < 0.04 * width
    assert math.isnan(one.deviation)


def test_seeds_alone_give_the_t_interval_of_the_seeds() -> None:
    scores = np.array([0.50, 0.53, 0.58])
    still = Replicates(scores, np.full(20_000, scores.mean()), 1000)
    shown = interval(still)
    theirs = stats.ttest_1samp(scores, 0).confidence_interval()
    assert shown.low == pytest.approx(theirs.low, abs=0.005)
    assert shown.high == pytest.approx(theirs.high, abs=0.005)


def test_p_value_is_that_of_welch_where_images_say_nothing() -> None:
    a, b = np.array([0.60, 0.63, 0.66]), np.array([0.52, 0.59, 0.55, 0.57])
    found = gap(Replicates(a, np.full(2000, a.mean()), 1000), Replicates(b, np.full(2000, b.mean()), 1000))
    assert found.comparison.p_value == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue)
    assert found.seeds == 3
    assert found.image_variance == pytest.approx(0, abs=1e-20)


def test_gap_turns_round_with_its_sides(rng: np.random.Generator) -> None:
    a, b = replicates(rng, 3, shift=2.0), replicates(rng, 3)
    forth, back = gap(a, b), gap(b, a)
    assert forth.comparison.difference.estimate == -back.comparison.difference.estimate
    assert forth.comparison.p_value == pytest.approx(back.comparison.p_value)
    assert forth.comparison.verdict() == "A"


def test_a_row_against_itself_is_no_difference(rng: np.random.Generator) -> None:
    same = Replicates(np.array([0.5]), np.linspace(0.4, 0.6, 100), 20)
    found = gap(same, same)
    assert found.comparison.p_value == 1
    assert found.comparison.verdict() == "too close to call"


def test_needed_falls_to_the_bound() -> None:
    found = Gap(
        Comparison(Interval(0.02, -0.01, 0.05), 0.2), image_variance=1e-4, seed_variance=2e-5, units=100, seeds=3
    )
    told = needed(found)
    bound = (0.02 / (stats.norm.isf(0.025) + stats.norm.isf(0.2))) ** 2
    assert told.units == math.ceil(100 * 1e-4 / (bound - 2e-5))
    assert told.seeds is None  # the images alone are too much already
    nothing = Gap(Comparison(Interval(0.0, -0.1, 0.1), 1.0), 1e-4, 1e-4, units=100, seeds=3)
    assert needed(nothing).units is None


def test_holm_agrees_with_its_definition() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    told = holm([0.02, math.nan])
    assert told[0] == 0.02
    assert math.isnan(told[1])
    assert holm([]) == []


def test_percentiles_move_outward_where_units_are_few() -> None:
    assert expanded_tail(10_000) == pytest.approx(0.025, abs=1e-4)
    assert expanded_tail(10) == pytest.approx(0.0086, abs=2e-4)
    tails = [expanded_tail(units) for units in (2, 5, 20, 100)]
    assert tails == sorted(tails)
