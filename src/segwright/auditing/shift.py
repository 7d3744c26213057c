"""Do the test pictures look like the training pictures? Brightness, contrast, sharpness and colour of both sides.

A shift is a finding where it is sure (Kolmogorov-Smirnov test, Bonferroni over the measures; groups of pictures count
as one), large (its statistic, the widest gap between the shares of pictures below a value, is at least 0.2) and
visible; with thousands of pictures the smallest difference is sure. It is none where the training pictures already
cover what the test pictures show.

The changes that close the gap are given in the units of the recipe (`augment.policy`): the smallest range by which the
changed training pictures reach the outer twentieths of the test pictures. Beside them stands the plain normalisation
value' = gain * value + offset that brings the test pictures to the light of the training pictures; whether either helps
is for a comparison of models to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from segwright.auditing.findings import Answer, Finding
from segwright.auditing.noise import tones_by_position
from segwright.auditing.oddness import comparable
from segwright.auditing.spread import describe
from segwright.auditing.survey import Survey
from segwright.auditing.tones import Tones
from segwright.auditing.widening import (
    Change,
    blur_ratios,
    blurred,
    brighter,
    contrasted,
    hue_between,
    normalisation,
    powered,
    reach,
    saturated,
)

LEAST_PICTURES = 10
LEAST_GAP = 0.2
LARGEST_HUE = 60.0
SURE = 0.01
FEW = 0.1
"""Where fewer of the training pictures than this are like the test pictures, they are rare though covered."""

SHOWN = 12


@dataclass(frozen=True)
class Measure:
    """One thing that is compared.

    Attributes:
        name: of `Tones`, or `redness` and `blueness`: their share of all colour, less a third.
        kind: of finding.
        visible: least difference of two quantiles that an eye would see; half of it is let pass.
        words: what the test pictures are where it is less, where it is more, and where it varies more.
    """

    name: str
    kind: str
    visible: float
    words: tuple[str, str, str]

    @property
    def slack(self) -> float:
        return self.visible / 2


MEASURES = (
    Measure("brightness", "brightness_shift", 5.0, ("darker", "brighter", "of more varied brightness")),
    Measure("contrast", "contrast_shift", 4.0, ("flatter", "richer in contrast", "of more varied contrast")),
    Measure("sharpness", "sharpness_shift", 0.08, ("more blurred", "sharper", "of more varied sharpness")),
    Measure("saturation", "color_shift", 0.03, ("paler", "more colourful", "of more varied colour")),
    Measure("redness", "color_shift", 0.01, ("less red", "redder", "of more varied tint")),
    Measure("blueness", "color_shift", 0.01, ("less blue", "bluer", "of more varied tint")),
)


_WORDS = {"redness": "red", "blueness": "blue"}


@dataclass(frozen=True)
class Setting:
    """A value of the recipe that closes a gap.

    Attributes:
        name: its key.
        value: the smallest one that does.
        gap_left: the gap between the changed training pictures and the test pictures; None where it was not tried.
    """

    name: str
    value: float
    gap_left: float | None = None


@dataclass(frozen=True)
class Gap:
    """One measure on both sides.

    Attributes:
        measure: which.
        train: (N,) values of the training pictures.
        test: (M,) values of the test pictures.
        size: the widest gap between the shares of pictures below a value, 0..1.
        p_value: how often chance alone gives such a gap.
        like: share of the training pictures that no eye would tell from the middle nine tenths of the test pictures.
        covered: the middle nine tenths of the training pictures hold those of the test pictures.
    """

    measure: Measure
    train: Float[np.ndarray, " N"]
    test: Float[np.ndarray, " M"]
    size: float
    p_value: float
    like: float
    covered: bool

    @property
    def is_shift(self) -> bool:
        apart = np.abs(np.quantile(self.train, (0.05, 0.5, 0.95)) - np.quantile(self.test, (0.05, 0.5, 0.95))).max()
        sure = self.p_value * len(MEASURES) < SURE
        return bool(sure and self.size >= LEAST_GAP and apart >= self.measure.visible)

    @property
    def matters(self) -> bool:
        return self.is_shift and (not self.covered or self.like < FEW)

    def facts(self) -> dict[str, Any]:
        return {
            "train": describe(self.train),
            "test": describe(self.test),
            "gap": round(self.size, 4),
            "p_value": float(f"{self.p_value:.3g}"),
            "training_pictures_alike": round(self.like, 4),
            "covered": self.covered,
            "shifted": self.is_shift,
        }


def examine(train: Survey, test: Survey) -> Answer:
    """Compare two sets of pictures, such as `survey.side("train")` and `survey.side("test")`; noise is left out.

    Where there are too few to compare, the training pictures are described alone.

    Args:
        train: what a model learns from.
        test: what it is to be used on; no masks are needed.
    """
    learnt, unseen = ([one for _, one in _kept(survey)] for survey in (train, test))
    facts: dict[str, Any] = {"training_pictures": len(learnt), "test_pictures": len(unseen)}
    colored = max((one.saturation for one in (*learnt, *unseen)), default=0) > 0
    measures = [measure for measure in MEASURES if colored or measure.kind != "color_shift"]
    if min(len(learnt), len(unseen)) < LEAST_PICTURES:
        told = {measure.name: {"train": describe(_values(learnt, measure.name))} for measure in measures if learnt}
        return Answer(facts | {"compared": False} | told)
    independent = _independent(train), _independent(test)
    gaps = [
        compare(measure, _values(learnt, measure.name), _values(unseen, measure.name), independent=independent)
        for measure in measures
    ]
    facts["compared"] = True
    facts |= {gap.measure.name: gap.facts() for gap in gaps}
    facts["normalisation"] = normalisation(learnt, unseen)
    recipe: dict[str, float] = {}
    findings = []
    for kind in dict.fromkeys(gap.measure.kind for gap in gaps if gap.matters):
        wide = sorted((gap for gap in gaps if gap.matters and gap.measure.kind == kind), key=lambda gap: -gap.size)
        settings = [
            one for gap in wide for one in _settings(gap, train=train, learnt=learnt, unseen=unseen) if one.value > 0
        ]
        # The others are there for choice: together they would go too far.
        recipe |= {one.name: one.value for one in settings[:1]}
        findings.append(_finding(wide[0], settings, test=test))
    facts["recipe"] = recipe
    return Answer(facts, tuple(findings))


def compare(
    measure: Measure,
    train: Float[np.ndarray, " N"],
    test: Float[np.ndarray, " M"],
    *,
    independent: tuple[int, int] | None = None,
) -> Gap:
    """Values of one measure on both sides.

    Args:
        measure: which.
        train: of the training pictures.
        test: of the test pictures.
        independent: how many pictures, or groups of pictures, of each side have nothing to do with one another.
    """
    size = float(stats.ks_2samp(train, test, method="asymp").statistic)
    n, m = independent or (len(train), len(test))
    low, high = np.quantile(test, (0.05, 0.95))
    first, last = np.quantile(train, (0.05, 0.95))
    return Gap(
        measure=measure,
        train=train,
        test=test,
        size=size,
        p_value=float(stats.kstwobign.sf(size * np.sqrt(n * m / (n + m)))),
        like=float(np.mean((train >= low - measure.visible) & (train <= high + measure.visible))),
        covered=bool(first <= low + measure.slack and last >= high - measure.slack),
    )


def _kept(survey: Survey) -> list[tuple[int, Tones]]:
    tones = tones_by_position(survey)
    return [(i, tones[i]) for i in comparable(survey)]


def _independent(survey: Survey) -> int:
    """Groups, where all pictures have one; else pictures."""
    looks = [survey.looks[i] for i, _ in _kept(survey)]
    groups = {look.group for look in looks}
    return len(looks) if None in groups else len(groups)


def _values(tones: Sequence[Tones], name: str) -> Float[np.ndarray, " N"]:
    if name in ("redness", "blueness"):
        parts = np.array([(one.red, one.green, one.blue) for one in tones])
        shares = parts / np.maximum(parts.sum(axis=1, keepdims=True), 1.0)
        return np.asarray(shares[:, 0 if name == "redness" else 2] - 1 / 3)
    return np.array([getattr(one, name) for one in tones], dtype=np.float64)


def _settings(gap: Gap, *, train: Survey, learnt: Sequence[Tones], unseen: Sequence[Tones]) -> list[Setting]:
    """What would close a gap, the plainest first."""
    name = gap.measure.name
    if name == "brightness":
        return [
            *_reaching(gap, "augment.brightness", brighter, largest=0.5),
            *_reaching(gap, "augment.gamma", powered, largest=1.0),
        ]
    if name == "contrast":
        return _reaching(gap, "augment.contrast", contrasted, largest=0.9)
    if name == "saturation":
        return _reaching(gap, "augment.saturation", saturated, largest=1.0)
    if name == "sharpness":
        ratios = blur_ratios(train, comparable(train)) if np.median(gap.test) < np.median(gap.train) else None
        if ratios is None:
            return []
        return _reaching(gap, "augment.blur_sigma_px", blurred(ratios), largest=4.0, seldom=True)
    hue = hue_between(learnt, unseen)
    return [] if hue is None or abs(hue) > LARGEST_HUE else [Setting("augment.hue_degrees", float(np.ceil(abs(hue))))]


def _reaching(gap: Gap, name: str, change: Change, *, largest: float, seldom: bool = False) -> list[Setting]:
    found = reach(gap.train, gap.test, change, largest=largest, slack=gap.measure.slack, seldom=seldom)
    return [] if found is None else [Setting(name, found[0], round(found[1], 4))]


def _finding(gap: Gap, settings: Sequence[Setting], *, test: Survey) -> Finding:
    """The widest gap of a kind, in words."""
    measure, before, after = gap.measure, float(np.median(gap.train)), float(np.median(gap.test))
    name = _WORDS.get(measure.name, measure.name)
    figures = f"{name} is usually {_told(after, measure.name)}, not {_told(before, measure.name)}"
    if settings:
        cure = " or ".join(f"{one.name}: {one.value:g}" for one in settings) + " would reach them"
    elif gap.covered:
        cure = f"only {gap.like:.0%} of the training pictures are like them: show those more often, or label more"
    else:
        cure = "no change of the training pictures reaches them: bring both to one light, size and sharpness first"
    numbers = {
        "gap": round(gap.size, 4),
        "train": before,
        "test": after,
        "settings": {one.name: {"value": one.value, "gap_left": one.gap_left} for one in settings},
    }
    summary = f"{_way(gap)}: {figures}; {cure}"
    return Finding(measure.kind, summary, ids=_farthest(gap, test), numbers=numbers)


def _way(gap: Gap) -> str:
    """What the test pictures are; some of them, where only one end of the values moved."""
    less, more, varied = gap.measure.words
    low, middle, high = np.quantile(gap.test, (0.05, 0.5, 0.95)) - np.quantile(gap.train, (0.05, 0.5, 0.95))
    visible = gap.measure.visible
    if abs(middle) >= visible:
        return f"the test pictures are {less if middle < 0 else more}"
    if low <= -visible and high >= visible:
        return f"the test pictures are {varied}"
    return f"some test pictures are {less if min(low, high) <= -visible else more}"


def _told(value: float, name: str) -> str:
    if name in _WORDS:
        return f"{value + 1 / 3:.1%} of all colour"
    if name in ("brightness", "contrast"):
        return f"{value:.0f} of 255"
    return f"{value:.2f}"


def _farthest(gap: Gap, test: Survey) -> tuple[str, ...]:
    """The test pictures that are farthest from the middle of the training pictures."""
    positions = [i for i, _ in _kept(test)]
    order = np.argsort(-np.abs(gap.test - np.median(gap.train)), kind="stable")
    return tuple(test.looks[positions[k]].id for k in order[:SHOWN])
