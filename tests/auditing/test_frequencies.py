"""Classes are counted as they are, and how well they could be measured is told honestly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segwright.auditing.frequencies import examine, interval_width
from segwright.auditing.labels import measure_labels
from segwright.auditing.survey import Look, Survey
from segwright.data.sources.classes import default_colors
from segwright.evaluation.statistics import bootstrap
from segwright.losses.class_weights import CLASS_WEIGHTS, class_weights
from segwright.types import ClassSet

NAMES = ("sky", "soil", "rock")


def surveyed(masks: list[np.ndarray], **sides: str) -> Survey:
    looks = tuple(
        Look(f"{place}", f"{place}.png", f"m/{place}.png", split=sides.get(f"i{place}"),  # type: ignore[arg-type]
             labels=measure_labels(mask, 3))
        for place, mask in enumerate(masks)
    )  # fmt: skip
    return Survey(Path("set"), None, ClassSet(NAMES, default_colors(3)), looks)


def halves(left: int, right: int, side: int = 40) -> np.ndarray:
    mask = np.full((side, side), left, dtype=np.uint8)
    mask[:, side // 2 :] = right
    return mask


def test_counts_by_hand():
    dots = halves(0, 0)
    dots[5:7, 5:7] = dots[20:24, 20:24] = 2
    facts = examine(surveyed([halves(0, 1), dots, halves(1, 255)])).facts
    sky, soil, rock = facts["classes"]
    assert facts["images"] == 3
    assert (sky["pixels"], sky["images"], sky["objects"]) == (800 + 1600 - 20, 2, 2)
    assert (soil["pixels"], soil["images"], soil["objects"]) == (1600, 2, 2)
    assert (rock["pixels"], rock["images"], rock["objects"]) == (20, 1, 2)
    assert sky["share"] == pytest.approx(2380 / 4000)  # of the pixels that are a class
    assert facts["together"] == [[2, 1, 1], [1, 2, 0], [1, 0, 1]]
    low, middle, high = rock["object_px"]
    assert 4 <= low <= 8 <= middle <= 16 <= high <= 32


def test_weights_are_those_of_the_losses_on_the_training_side():
    survey = surveyed([halves(0, 1), halves(0, 2), halves(2, 2)], i0="train", i1="train", i2="val")
    survey = replace(survey, classes=replace(survey.classes, ignore_in_loss=(0,)))
    weights = examine(survey).facts["weights"]
    assert set(weights) == set(CLASS_WEIGHTS)
    for rule, found in weights.items():
        assert found == list(class_weights(rule, counts=[1600, 800, 800], left_out=(0,)))


def test_a_rare_class_is_told_and_a_common_one_is_not():
    rare = halves(0, 1)
    rare[:3, :3] = 2
    answer = examine(surveyed([*[halves(0, 1)] * 196, *[rare] * 4]))
    (finding,) = answer.findings
    assert (finding.kind, finding.gravity) == ("rare_class", "look")
    assert finding.summary == (
        "'rock' is in 4 of 200 images: 3 to learn from are too few; its score cannot be measured; it takes 0.01% of "
        "the pixels, which a model without class weights may pass over."
    )
    assert finding.ids == ("196", "197", "198", "199")
    assert finding.notes["198"] == "9 pixels of 'rock' in 1 pieces"


def test_the_side_that_is_given_counts():
    rare = halves(0, 1)
    rare[:8, :8] = 2
    sides = {f"i{place}": "val" if place % 2 else "train" for place in range(60)}
    classes = examine(surveyed([rare] * 60, **sides)).facts["classes"]
    assert classes[2]["val_images"] == 30
    assert examine(surveyed([rare] * 60)).facts["classes"][2]["val_images"] == 12


def test_images_of_one_group_count_once():
    survey = surveyed([halves(0, 2)] * 60)
    grouped = replace(survey, looks=tuple(replace(look, group=str(i // 10)) for i, look in enumerate(survey.looks)))
    alone, together = (examine(one).facts["classes"][2]["width"] for one in (survey, grouped))
    assert together is None or together > 2 * alone


def test_an_absent_class():
    findings = examine(surveyed([halves(0, 1)] * 80)).findings
    assert [(finding.kind, finding.gravity) for finding in findings] == [("absent_class", "mend")]
    assert findings[0].summary == "No mask holds 'rock'."


def test_test_images_and_unusable_ones_do_not_count():
    survey = surveyed([halves(0, 1), halves(2, 2)], i1="test")
    assert [one["images"] for one in examine(survey).facts["classes"]] == [1, 1, 0]
    bare = replace(survey, looks=tuple(replace(look, mask_file=None) for look in survey.looks))
    assert examine(bare).findings == ()


@given(st.integers(2, 60), st.integers(1, 10_000))
def test_more_images_narrow_the_interval(images, pixels):
    few = interval_width([pixels] * 50, val_images=images)
    many = interval_width([pixels] * 50, val_images=4 * images)
    assert few is not None
    assert many is not None
    assert 0 < many < few < 1
    assert many == pytest.approx(few / 2, rel=0.25)


def test_one_image_gives_no_interval():
    assert interval_width([100], val_images=1) is None
    assert interval_width([], val_images=5) is None


def test_the_width_is_that_of_the_bootstrap_of_such_images(rng):
    """Forty images of 1000 pixels, overlaps of mean 0.6 and deviation 0.2."""
    widths = []
    for _ in range(20):
        overlap = rng.beta(3, 2, size=40)  # mean 0.6, deviation 0.2
        counts = np.stack([overlap * 1000, np.full(40, 1000.0)], axis=1)
        interval = bootstrap(counts, lambda sums: sums[:, 0] / sums[:, 1], resamples=1000)
        widths.append(interval.high - interval.low)
    assert interval_width([1000] * 40, val_images=40) == pytest.approx(np.mean(widths), rel=0.1)
