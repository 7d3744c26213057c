"""Intervals and p-values against scipy, and against slow loops over the same draws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from segwright.evaluation import statistics
from segwright.evaluation.statistics import (
    Comparison,
    Interval,
    bootstrap,
    bootstrap_each,
    bootstrap_mean,
    paired_difference,
    score_intervals,
)
from segwright.metrics import score
from segwright.types import ClassSet

CLASSES = ClassSet(("ground", "tree", "rock"), ((0, 0, 0),) * 3, ignore_in_score=(0,))


def counts(rng: np.random.Generator, images: int, right: float = 0.7) -> np.ndarray:
    confusion = rng.poisson(30 * (1 - right), (images, 3, 3))
    confusion[:, range(3), range(3)] += rng.poisson(90 * right, (images, 3))
    return confusion


def miou(sums: np.ndarray) -> np.ndarray:
    return score(sums.astype(np.int64), CLASSES).miou


def test_mean_agrees_with_scipy(rng: np.random.Generator) -> None:
    values = rng.gamma(2.0, size=80)
    ours = bootstrap_mean(values)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=10_000, rng=rng).confidence_interval
    assert ours.estimate == pytest.approx(values.mean())
    width = theirs.high - theirs.low
    assert abs(ours.low - theirs.low) < 0.05 * width
    assert abs(ours.high - theirs.high) < 0.05 * width


def test_ninety_five_per_cent_cover_about_that(rng: np.random.Generator) -> None:
    hits = 0
    for seed in range(200):
        interval = bootstrap_mean(rng.normal(3.0, size=60), resamples=400, seed=seed)
        hits += interval.low <= 3.0 <= interval.high
    assert 178 <= hits <= 199


def test_sums_are_those_of_the_drawn_images(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    values = rng.integers(0, 1000, (7, 3, 3)).astype(float)
    monkeypatch.setattr(statistics, "_CHUNK_WEIGHTS", 7 * 50)
    sums = np.concatenate(list(statistics._resampled_sums(values, resamples=120, seed=4)))
    assert sums.shape == (120, 3, 3)
    draws = np.random.default_rng(4)
    picks = np.concatenate([draws.integers(0, 7, size=(rows, 7), dtype=np.int32) for rows in (50, 50, 20)])
    np.testing.assert_array_equal(sums, [values[pick].sum(0) for pick in picks])


def test_every_score_equals_its_own_bootstrap(rng: np.random.Generator) -> None:
    confusion = counts(rng, 40)
    together = score_intervals(confusion, CLASSES, resamples=500)
    alone = bootstrap(confusion, miou, resamples=500)
    assert together["miou"] == alone
    assert alone.units == 40
    assert alone.low < alone.estimate < alone.high
    each = bootstrap_each(confusion, lambda sums: score(sums.astype(np.int64), CLASSES).iou, resamples=500)
    assert together["iou"][1:] == each[1:]
    assert each[1].estimate == pytest.approx(float(score(confusion.sum(0), CLASSES).iou[1]))


def test_groups_are_drawn_whole(rng: np.random.Generator) -> None:
    single = counts(rng, 60)
    twins = np.repeat(single, 4, axis=0)
    names = [f"frame {k // 4}" for k in range(240)]
    grouped = bootstrap(twins, miou, groups=names, resamples=2000)
    blind = bootstrap(twins, miou, resamples=2000)
    plain = bootstrap(single, miou, resamples=2000)
    assert grouped.units == 60
    assert (grouped.low, grouped.high) == pytest.approx((plain.low, plain.high))
    assert grouped.high - grouped.low > 1.7 * (blind.high - blind.low)


def test_images_without_a_value_are_left_out() -> None:
    values = np.array([0.2, np.nan, 0.4, 0.6])
    assert bootstrap_mean(values, resamples=200).estimate == pytest.approx(0.4)
    nothing = bootstrap_mean(np.array([np.nan, np.nan]), resamples=50)
    assert np.isnan([nothing.estimate, nothing.low, nothing.high]).all()


def test_one_image_has_no_interval() -> None:
    interval = bootstrap_mean(np.array([0.5]), resamples=50)
    assert interval.estimate == 0.5
    assert np.isnan(interval.low)


def test_a_class_that_is_rarely_drawn_leaves_the_rest_known() -> None:
    confusion = np.zeros((30, 3, 3), dtype=np.int64)
    confusion[:, 1, 1] = 10
    confusion[0, 2, 2] = 5
    rare = score_intervals(confusion, CLASSES, resamples=300)["iou"][2]
    assert (rare.low, rare.estimate, rare.high) == (1, 1, 1)


def test_p_value_agrees_with_scipy(rng: np.random.Generator) -> None:
    a, b = rng.normal(0.25, size=40), rng.normal(size=40)

    def mean(sums: np.ndarray) -> np.ndarray:
        return sums / 40

    ours = paired_difference(a, b, mean)

    def difference(x: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
        return (x - y).mean(axis)

    theirs = stats.permutation_test((a, b), difference, permutation_type="samples", vectorized=True, rng=rng)
    assert ours.difference.estimate == pytest.approx(theirs.statistic)
    assert ours.p_value == pytest.approx(theirs.pvalue, abs=0.02)


@given(seed=st.integers(0, 1000))
def test_equal_models_are_too_close_to_call(seed: int) -> None:
    confusion = counts(np.random.default_rng(seed), 20)
    same = paired_difference(confusion, confusion, miou, resamples=200)
    assert same.difference.estimate == 0
    assert same.p_value == 1
    assert same.verdict() == "too close to call"


def test_a_better_model_wins_and_the_other_way_round_loses(rng: np.random.Generator) -> None:
    good, bad = counts(rng, 50, right=0.9), counts(rng, 50, right=0.6)
    forth = paired_difference(good, bad, miou, resamples=1000)
    back = paired_difference(bad, good, miou, resamples=1000)
    assert forth.verdict(("new", "old")) == "new"
    assert back.verdict(("new", "old")) == "old"
    assert forth.difference.low == pytest.approx(-back.difference.high)
    assert forth.p_value == pytest.approx(1 / 1001)


def test_a_small_p_value_does_not_outvote_the_interval() -> None:
    assert Comparison(Interval(0.1, -0.01, 0.2), p_value=0.01).verdict() == "too close to call"


def test_the_same_seed_gives_the_same_interval(rng: np.random.Generator) -> None:
    values = rng.normal(size=30)
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1)
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)
