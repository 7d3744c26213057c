"""Test pictures of another light are found, with changes of the training pictures that reach them; chance is not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from segwright.auditing.shift import MEASURES, compare, examine
from segwright.auditing.spread import QUANTILES, describe, fit_gamma
from segwright.auditing.survey import Look, Survey
from segwright.auditing.tones import measure
from segwright.auditing.widening import (
    SIGMAS_PX,
    blur_ratios,
    blurred,
    brighter,
    contrasted,
    hue_between,
    normalisation,
    reach,
)
from segwright.augment.color import color_uint8_on_cpu, draw_color, mixing_matrices, tone_tables
from segwright.augment.policy import Policy
from segwright.data.synthetic import terrain_stack
from segwright.types import ClassSet

BRIGHTNESS, CONTRAST = MEASURES[:2]


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    return list(terrain_stack(80, size=(48, 64), seed=7)[0])


@pytest.fixture
def survey_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[Sequence[np.ndarray]], Survey]:
    """A survey of pictures (3, H, W), which can be read again."""
    stored: dict[str, np.ndarray] = {}

    def of(images: Sequence[np.ndarray]) -> Survey:
        names = [f"{len(stored)}-{i}" for i in range(len(images))]
        stored.update(zip(names, images, strict=True))
        monkeypatch.setattr(Survey, "read", lambda survey, i: (stored[survey.looks[i].id], None))
        looks = (
            Look(name, "", None, size_px=image.shape[1:], tones=measure(image))
            for name, image in zip(names, images, strict=True)
        )
        return Survey(Path("data"), None, ClassSet(("a",), ((0, 0, 0),)), tuple(looks))

    return of


Surveys = Callable[[Sequence[np.ndarray]], Survey]


def test_a_nearly_normal_spread_is_called_normal_whatever_its_gamma(rng: np.random.Generator) -> None:
    """As in the report whose brightness fit is gamma (12513, -2370, 0.194): a normal curve in disguise."""
    values = stats.gamma.rvs(12513, -2370, 0.194, size=2500, random_state=rng)
    found = describe(values)
    assert found["fits"] == "normal"
    assert found["mean"] == pytest.approx(57.5, abs=1.5)
    assert found["normal"]["misfit"] < 0.2


def test_a_skewed_spread_is_called_gamma_and_its_parameters_come_back(rng: np.random.Generator) -> None:
    """As in the report whose contrast fit is gamma (3.53, -0.0898, 4.012)."""
    values = stats.gamma.rvs(3.53, -0.0898, 4.012, size=2500, random_state=rng)
    found = describe(values)
    assert found["fits"] == "gamma"
    gamma = found["gamma"]
    assert (gamma["alpha"], gamma["loc"], gamma["beta"]) == pytest.approx((3.53, -0.0898, 4.012), rel=0.25, abs=1.0)
    fitted = stats.gamma.ppf(QUANTILES, gamma["alpha"], gamma["loc"], gamma["beta"])
    misfit = np.abs(fitted - np.quantile(values, QUANTILES)).max() / values.std()
    assert gamma["misfit"] == pytest.approx(misfit, abs=1e-4)
    assert found["normal"]["misfit"] > gamma["misfit"]
    assert (found["min"], found["max"]) == pytest.approx((values.min(), values.max()), rel=1e-5)


def test_two_heaps_are_neither_curve(rng: np.random.Generator) -> None:
    values = np.concatenate([rng.normal(30, 2, 400), rng.normal(200, 2, 400)])
    assert describe(values)["fits"] == "neither"


def test_equal_or_few_values_have_no_curve() -> None:
    assert "fits" not in describe(np.full(50, 3.0))
    assert describe(np.arange(3.0))["count"] == 3


@given(st.lists(st.floats(-1e4, 1e4), min_size=10, max_size=40))
def test_any_values_can_be_described(values: list[float]) -> None:
    found = describe(np.array(values))
    assert found["min"] <= found["max"]
    parameters = fit_gamma(np.array(values)) if "fits" in found else None
    assert parameters is None or min(parameters[0], parameters[2]) > 0


def test_sides_of_one_source_have_no_shift(photos: list[np.ndarray], survey_of: Surveys) -> None:
    answer = examine(survey_of(photos[:50]), survey_of(photos[50:]))
    assert answer.findings == ()
    assert answer.facts["compared"] is True
    assert answer.facts["recipe"] == {}
    assert answer.facts["brightness"]["train"]["count"] == 50


def test_darker_test_pictures_are_found_with_a_change_that_reaches_them(
    photos: list[np.ndarray], survey_of: Surveys
) -> None:
    night = [(photo * 0.6).astype(np.uint8) for photo in photos[40:]]
    train, test = survey_of(photos[:40]), survey_of(night)
    answer = examine(train, test)
    finding = next(one for one in answer.findings if one.kind == "brightness_shift")
    assert "are darker" in finding.summary
    assert finding.gravity == "look"
    assert set(finding.ids) <= set(test.ids)
    share = answer.facts["recipe"]["augment.brightness"]
    assert f"augment.brightness: {share:g}" in finding.summary
    goal = float(np.quantile(brightness_of(test), 0.05))
    assert np.quantile(brightness_of(train), 0.05) > goal + 25
    assert reached(photos[:40], Policy(brightness=share)) < goal + 8
    gain, offset = (answer.facts["normalisation"][name] for name in ("gain", "offset"))
    means = [np.mean([photo[k].mean() for photo in night]) for k in range(3)]
    wanted = [np.mean([photo[k].mean() for photo in photos[:40]]) for k in range(3)]
    np.testing.assert_allclose(np.array(gain) * means + offset, wanted, atol=0.5)


def brightness_of(survey: Survey) -> np.ndarray:
    return np.array([look.tones.brightness for look in survey.looks if look.tones is not None])


def reached(images: Sequence[np.ndarray], policy: Policy) -> float:
    """The 5th hundredth of brightness when training changes the images so."""
    rng, found = np.random.default_rng(0), []
    for image in images:
        color = draw_color(policy, 8, channels=3, rng=rng)
        tables = tone_tables(color)
        assert tables is not None
        for n in range(8):
            rows = np.ascontiguousarray(image.transpose(1, 2, 0))
            color_uint8_on_cpu(rows, color, n, table=tables[n])
            found.append(measure(np.ascontiguousarray(rows.transpose(2, 0, 1))).brightness)
    return float(np.quantile(found, 0.05))


def test_blurred_test_pictures_are_found_with_a_blur(photos: list[np.ndarray], survey_of: Surveys) -> None:
    soft = [np.stack([cv2.GaussianBlur(plane, (0, 0), 1.2) for plane in photo]) for photo in photos[40:]]
    answer = examine(survey_of(photos[:40]), survey_of(soft))
    finding = next(one for one in answer.findings if one.kind == "sharpness_shift")
    assert "more blurred" in finding.summary
    assert 0.8 <= answer.facts["recipe"]["augment.blur_sigma_px"] <= 2.5


def test_gray_test_pictures_are_found(photos: list[np.ndarray], survey_of: Surveys) -> None:
    gray = [np.repeat(photo[1:2], 3, axis=0) for photo in photos[40:]]
    answer = examine(survey_of(photos[:40]), survey_of(gray))
    finding = next(one for one in answer.findings if one.kind == "color_shift")
    assert answer.facts["saturation"]["test"]["max"] == 0
    assert finding.numbers["gap"] > 0.9


def test_colour_is_not_compared_among_gray_pictures(photos: list[np.ndarray], survey_of: Surveys) -> None:
    answer = examine(survey_of([photo[:1] for photo in photos[:40]]), survey_of([photo[:1] for photo in photos[40:]]))
    assert "saturation" not in answer.facts
    assert answer.findings == ()


def test_few_pictures_are_not_compared(photos: list[np.ndarray], survey_of: Surveys) -> None:
    answer = examine(survey_of(photos[:40]), survey_of([photo // 4 for photo in photos[:5]]))
    assert {key: answer.facts[key] for key in ("training_pictures", "test_pictures", "compared")} == {
        "training_pictures": 40, "test_pictures": 5, "compared": False
    }  # fmt: skip
    assert answer.findings == ()


def test_without_test_pictures_the_training_pictures_are_described(
    photos: list[np.ndarray], survey_of: Surveys
) -> None:
    alone = examine(survey_of(photos), survey_of(photos[:0])).facts
    both = examine(survey_of(photos), survey_of(photos)).facts
    assert alone["test_pictures"] == 0
    assert alone["brightness"] == {"train": both["brightness"]["train"]}
    assert alone["contrast"]["train"]["gamma"]
    assert "recipe" not in alone


def test_noise_is_left_out(photos: list[np.ndarray], survey_of: Surveys, rng: np.random.Generator) -> None:
    noise = [rng.integers(0, 256, photos[0].shape, dtype=np.uint8) for _ in range(6)]
    assert examine(survey_of([*photos[:40], *noise]), survey_of(photos[40:])).facts["training_pictures"] == 40


def test_a_sure_but_tiny_shift_is_no_finding(rng: np.random.Generator) -> None:
    gap = compare(BRIGHTNESS, rng.normal(100, 10, 20000), rng.normal(101.5, 10, 20000))
    assert gap.p_value < 1e-10
    assert not gap.is_shift


def test_a_large_shift_of_few_groups_is_not_sure(rng: np.random.Generator) -> None:
    train, test = rng.normal(100, 10, 300), rng.normal(115, 10, 100)
    assert compare(BRIGHTNESS, train, test).is_shift
    assert not compare(BRIGHTNESS, train, test, independent=(4, 2)).is_shift


def test_groups_are_counted_instead_of_pictures(photos: list[np.ndarray], survey_of: Surveys) -> None:
    train, test = survey_of(photos[:40]), survey_of([(photo * 0.6).astype(np.uint8) for photo in photos[40:]])
    film = replace(test, looks=tuple(replace(look, group=f"film {i // 20}") for i, look in enumerate(test.looks)))
    assert examine(train, test).findings
    assert not examine(train, film).findings


def test_a_covered_shift_is_no_finding_unless_such_pictures_are_rare(rng: np.random.Generator) -> None:
    test = rng.normal(60, 3, 200)
    half = np.concatenate([rng.normal(60, 10, 500), rng.normal(160, 10, 500)])
    assert compare(BRIGHTNESS, half, test).is_shift
    assert not compare(BRIGHTNESS, half, test).matters
    few = np.concatenate([rng.normal(55, 10, 80), rng.normal(160, 10, 920)])
    assert compare(BRIGHTNESS, few, test).covered
    assert compare(BRIGHTNESS, few, test).matters


def test_the_statistic_is_that_of_scipy(rng: np.random.Generator) -> None:
    train, test = rng.normal(50, 9, 300), rng.normal(54, 7, 200)
    expected = stats.ks_2samp(train, test, method="asymp")
    gap = compare(CONTRAST, train, test)
    assert gap.size == expected.statistic
    # The limit of many pictures, which is a little more careful.
    assert expected.pvalue <= gap.p_value < 2 * expected.pvalue


def test_the_smallest_range_that_reaches_is_given() -> None:
    train, test = np.linspace(100, 120, 500), np.linspace(70, 110, 500)
    found = reach(train, test, brighter, largest=0.5, slack=1.0)
    assert found is not None
    assert 0.12 <= found[0] <= 0.2
    assert 0 <= found[1] <= 1
    assert reach(train, np.full(50, 110.0), brighter, largest=0.5, slack=1.0) == (0.0, pytest.approx(0.5, abs=0.02))
    assert reach(train, test - 60, contrasted, largest=0.3, slack=1.0) is None


def test_blur_leaves_ever_less_sharpness(photos: list[np.ndarray], survey_of: Surveys) -> None:
    ratios = blur_ratios(survey_of(photos[:6]), range(6))
    assert ratios is not None
    assert ratios[0] == 1.0
    assert list(ratios) == sorted(ratios, reverse=True)
    assert len(ratios) == len(SIGMAS_PX)
    halved = blurred(ratios)(np.array([2.0]), 4.0, np.array([1.0]))
    assert halved[0] == pytest.approx(2 * ratios[-1])


@pytest.mark.parametrize("degrees", [-40.0, 15.0, 50.0])
def test_a_turned_hue_is_measured(degrees: float, photos: list[np.ndarray]) -> None:
    matrix = mixing_matrices(hue_degrees=np.array([degrees]), saturation=np.ones(1))[0]
    first = [measure(photo) for photo in photos[:12]]
    means = [matrix @ (one.red, one.green, one.blue) for one in first]
    second = [replace(one, red=r, green=g, blue=b) for one, (r, g, b) in zip(first, means, strict=True)]
    assert hue_between(first, second) == pytest.approx(degrees, abs=1)
    gray = [replace(one, red=90.0, green=90.0, blue=90.0) for one in first]
    assert hue_between(first, gray) is None


def test_normalisation_of_one_set_to_itself_changes_nothing(photos: list[np.ndarray]) -> None:
    tones = [measure(photo) for photo in photos[:5]]
    found = normalisation(tones, tones)
    np.testing.assert_allclose(found["gain"], 1)
    np.testing.assert_allclose(found["offset"], 0, atol=0.01)
