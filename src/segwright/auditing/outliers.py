"""Pictures and masks that do not belong: noise, shared masks, too dark, too bright, flat, or unlike all others.

    tones           what is measured of a picture, while it is in memory
    noise           pictures and masks of noise
    shared_masks    one mask beside many different pictures
    oddness         pictures unlike all others
    outliers        all of it together; this file finds what is far too dark, bright or flat

Far is measured from the median, in median absolute deviations of that side (Leys et al. 2013,
https://doi.org/10.1016/j.jesp.2013.03.013), of the logarithm, since light varies by factors. What many share is
another sort of picture and no slip.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from segwright.auditing.encoder_features import encoder_features
from segwright.auditing.findings import Answer, Finding
from segwright.auditing.noise import find_noise, find_noise_masks, tones_by_position
from segwright.auditing.oddness import comparable, find_odd
from segwright.auditing.shared_masks import find_shared_masks
from segwright.auditing.survey import Survey
from segwright.auditing.tones import Tones, measure

__all__ = ["Tones", "examine", "find_tails", "measure"]

DEVIATIONS = 4.5
"""Robust standard deviations from the median."""

MOST = 0.03
"""A tail that holds more of the pictures than this is another sort of picture."""

LEAST_SPREAD = 0.2
"""Least robust standard deviation, of the logarithm: in a video all pictures are nearly alike."""

BLANK_CONTRAST = 1.0
"""Gray levels; what varies less shows nothing at all, whatever the rest is like."""

_FACTS = ("brightness", "contrast", "entropy", "spectral_flatness", "neighbour_correlation", "sharpness", "saturation")


def examine(survey: Survey, *, encoder_weights: Path | None = None) -> Answer:
    """Look for what does not belong.

    Args:
        survey: with tones of the pictures and labels of the masks.
        encoder_weights: weights of an encoder, which then tells what is odd; see `encoder_features`.

    Raises:
        WeightsError: the weights cannot be read, or it is not known of which encoder they are.
    """
    features = None
    if encoder_weights is not None:
        features = encoder_features(survey, comparable(survey), weights=encoder_weights)
    found = [
        find_noise(survey),
        *find_shared_masks(survey),
        find_noise_masks(survey),
        *find_tails(survey),
        find_odd(survey, features=features),
    ]
    return Answer(_facts(survey), tuple(finding for finding in found if finding is not None))


def _facts(survey: Survey) -> dict[str, Any]:
    tones = list(tones_by_position(survey).values())
    facts: dict[str, Any] = {"measured": len(tones)}
    for name in _FACTS if tones else ():
        values = np.array([getattr(one, name) for one in tones])
        marks = {"min": values.min(), "median": np.median(values), "max": values.max(), "mean": values.mean()}
        facts[name] = {mark: round(float(value), 4) for mark, value in (*marks.items(), ("std", values.std()))}
    return facts


def find_tails(survey: Survey) -> list[Finding]:
    """Pictures that are far darker, brighter or flatter than the rest; noise is judged elsewhere."""
    kept = comparable(survey)
    if not kept:
        return []
    tones = tones_by_position(survey)
    brightness = np.array([tones[i].brightness for i in kept])
    contrast = np.array([tones[i].contrast for i in kept])
    found = [
        _tail_finding(survey, kept, "dark_image", brightness, _tail(brightness)),
        _tail_finding(survey, kept, "bright_image", brightness, _tail(255 - brightness)),
        _tail_finding(survey, kept, "flat_image", contrast, _tail(contrast) | (contrast < BLANK_CONTRAST)),
    ]
    return [finding for finding in found if finding is not None]


def _tail(values: Float[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
    """Which values lie far below the median; none where many do."""
    level = np.log1p(np.maximum(values, 0))
    middle = float(np.median(level))
    spread = max(LEAST_SPREAD, 1.4826 * float(np.median(middle - level[level <= middle])))
    far = level < middle - DEVIATIONS * spread
    return np.asarray(far if far.sum() <= max(2, MOST * len(values)) else np.zeros_like(far))


def _tail_finding(
    survey: Survey,
    kept: Sequence[int],
    kind: Literal["dark_image", "bright_image", "flat_image"],
    values: Float[np.ndarray, " N"],
    far: Bool[np.ndarray, " N"],
) -> Finding | None:
    if not far.any():
        return None
    what = "contrast" if kind == "flat_image" else "brightness"
    word = {"dark_image": "darker", "bright_image": "brighter", "flat_image": "flatter"}[kind]
    usual = float(np.median(values))
    order = np.argsort(-values if kind == "bright_image" else values, kind="stable")
    notes = {
        survey.looks[kept[k]].id: f"{what} {values[k]:.1f} of 255; {usual:.1f} is usual here" for k in order if far[k]
    }
    are = "is" if len(notes) == 1 else "are"
    summary = f"{len(notes)} of {len(kept)} pictures {are} far {word} than the rest"
    return Finding(kind, summary, tuple(notes), notes=notes, numbers={f"usual_{what}": round(usual, 2)})
