"""Which random changes of the training pictures reach the test pictures, in the units of `augment.policy`.

Every change is tried on the values that were measured of the training pictures, with chance drawn as `augment.color`
draws it: brightness, contrast, gamma and saturation either way, blur on one picture in four. The smallest range is
sought by which the changed values reach the outer twentieths of the test values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from jaxtyping import Float
from scipy import stats

from segwright.auditing.survey import Survey
from segwright.auditing.tones import Tones, grain_window, sharpness
from segwright.augment.color import AFFECTED, mixing_matrices
from segwright.errors import DataError

Values = Float[np.ndarray, "..."]
Change = Callable[[Values, float, Values], Values]
"""(values, range, chance in -1..1) -> changed values; chance stands along a last axis of its own."""

OUTER = (0.05, 0.95)
STEP = 0.01
SIGMAS_PX = (0.0, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0)
BLURRED = 12
"""Training pictures that are read again and blurred to see what that does to their sharpness."""

LEAST_COLOR = 3.0
"""Gray levels; the hue of paler means is chance."""

_EITHER_WAY = np.linspace(-1, 1, 41)
_SELDOM = np.concatenate([np.zeros(round(40 * (1 - AFFECTED))), np.linspace(0, 1, round(40 * AFFECTED))])


def brighter(values: Values, amount: float, chance: Values) -> Values:
    return np.clip(values + 255 * amount * chance, 0, 255)


def powered(values: Values, amount: float, chance: Values) -> Values:
    return np.asarray(255 * (values / 255) ** np.exp(np.log1p(amount) * chance))


def contrasted(values: Values, amount: float, chance: Values) -> Values:
    return values * (1 + amount * chance)


def saturated(values: Values, amount: float, chance: Values) -> Values:
    return np.clip(values * (1 + amount * chance), 0, 1)


def blurred(ratios: Sequence[float]) -> Change:
    """By the shares of the sharpness that blurs of `SIGMAS_PX` leave."""

    def change(values: Values, amount: float, chance: Values) -> Values:
        return values * np.interp(amount * chance, SIGMAS_PX, ratios)

    return change


def reach(
    train: Float[np.ndarray, " N"],
    test: Float[np.ndarray, " M"],
    change: Change,
    *,
    largest: float,
    slack: float,
    seldom: bool = False,
) -> tuple[float, float] | None:
    """The smallest range, in hundredths, by which changed training values reach the test values, and the gap it leaves.

    The gap is the statistic of the Kolmogorov-Smirnov test. None where no range up to `largest` reaches them.

    Args:
        train: values of the training pictures.
        test: values of the test pictures.
        change: what is done to them.
        largest: range that is tried.
        slack: by so much the test values may stay out of reach.
        seldom: only one picture in four is changed, and only one way.
    """
    low, high = np.quantile(test, OUTER)
    before_high = float(np.quantile(train, OUTER[1]))
    some = np.quantile(train, np.linspace(0.0025, 0.9975, 200))[:, None]
    chance = _SELDOM if seldom else _EITHER_WAY
    for step in range(round(largest / STEP) + 1):
        changed = change(some, step * STEP, chance[None])
        reached_low, reached_high = np.quantile(changed, OUTER)
        # A change that widens one side must not be asked to mend the other, which was out of reach before.
        enough_low = reached_low <= low + slack
        enough_high = reached_high >= high - slack or (seldom and before_high < high)
        if enough_low and enough_high:
            return round(step * STEP, 2), float(stats.ks_2samp(changed.ravel(), test, method="asymp").statistic)
    return None


def blur_ratios(survey: Survey, positions: Sequence[int]) -> tuple[float, ...] | None:
    """Shares of the sharpness that blurs of `SIGMAS_PX` leave in some pictures; None where none can be read."""
    rows = []
    for i in positions[:: max(1, len(positions) // BLURRED)][:BLURRED]:
        try:
            gray = grain_window(survey.read(i)[0])
        except DataError:
            continue
        before = sharpness(gray)
        if before > 0:
            rows.append([1.0, *(sharpness(cv2.GaussianBlur(gray, (0, 0), s)) / before for s in SIGMAS_PX[1:])])
    return tuple(np.median(rows, axis=0).tolist()) if rows else None


def hue_between(train: Sequence[Tones], test: Sequence[Tones]) -> float | None:
    """Degrees by which the mean colour of the training pictures has to be turned; None where one of them is gray."""
    first, second = (np.mean([(one.red, one.green, one.blue) for one in tones], axis=0) for tones in (train, test))
    goal = second - second.mean()
    if min(np.linalg.norm(goal), np.linalg.norm(first - first.mean())) < LEAST_COLOR:
        return None
    degrees = np.arange(-180.0, 180.0)
    turned = mixing_matrices(hue_degrees=degrees, saturation=np.ones_like(degrees)) @ first
    turned -= turned.mean(axis=1, keepdims=True)
    likeness = turned @ goal / np.linalg.norm(turned, axis=1)
    return float(degrees[likeness.argmax()])


def normalisation(train: Sequence[Tones], test: Sequence[Tones]) -> dict[str, list[float]]:
    """Gain and offset of red, green and blue (0..255) that bring test pictures to the light of training pictures."""
    gain = float(np.mean([one.contrast for one in train]) / max(float(np.mean([one.contrast for one in test])), 1e-6))
    means = [np.mean([(one.red, one.green, one.blue) for one in tones], axis=0) for tones in (train, test)]
    return {"gain": [round(gain, 4)] * 3, "offset": [round(float(value), 2) for value in means[0] - gain * means[1]]}
