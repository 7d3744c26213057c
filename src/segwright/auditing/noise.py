"""Noise where a picture or a mask should be: neighbours that have nothing to do with one another.

A picture is noise where neighbours do not correlate, neither at full size nor shrunk to 64 pixels (a dark picture with
few cells has grain like noise and shows its cells when shrunk), where its power spectrum is flat, and where there is
contrast enough that it is no empty frame. A mask is noise where neighbours agree hardly more often than by chance
(Cohen's kappa, https://doi.org/10.1177/001316446002000104).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from segwright.auditing.findings import Finding
from segwright.auditing.survey import Look, Survey
from segwright.auditing.tones import Tones
from segwright.errors import DataError
from segwright.types import MaskArray

CORRELATION = 0.35
"""Neighbours of noise agree less than this, even after JPEG at quality 30; those of photos by more than 0.7."""

FLATNESS = 0.3
"""White noise has 0.56, and 0.44 after JPEG at quality 30; photos stay below 0.2, dark ones may not."""

LEAST_SIDE_PX = 12
"""Smaller pictures hold too few neighbours to judge."""

LEAST_CONTRAST = 4.0
"""Gray levels: what varies less is an empty frame, with the grain of any camera."""

SPECKS = 4.5
"""Objects of at most 3 pixels in 1000 pixels of a mask: few drawn masks have so many, those of noise 7 to 700."""

AGREEMENT = 0.4
"""How much more often than by chance neighbours in a mask agree: 0 for noise, above 0.7 for drawn masks."""

NEARLY_ONE_CLASS = 0.9
"""Where two points agree by chance this often, almost all is one class, and a few true specks look like noise."""


def tones_by_position(survey: Survey) -> dict[int, Tones]:
    """What was measured of each picture that could be read."""
    return {i: look.tones for i, look in enumerate(survey.looks) if look.tones is not None}


def noise_like(survey: Survey) -> tuple[int, ...]:
    """Positions of the looks that are noise, the noisiest first.

    Where all pictures are grainy, as radar is, only those that stand out from the rest are.
    """
    tones = tones_by_position(survey)
    if not tones:
        return ()
    least = max(LEAST_CONTRAST, float(np.median([one.contrast for one in tones.values()])) / 4)
    found = [i for i, one in tones.items() if _is_noise(survey.looks[i], one, least_contrast=least)]
    rest = sorted(set(tones) - set(found))
    if len(rest) > len(found):
        usual = _usual_correlation(tones, rest)
        found = [i for i in found if tones[i].neighbour_correlation < usual / 2]
    return tuple(sorted(found, key=lambda i: tones[i].neighbour_correlation))


def _is_noise(look: Look, tones: Tones, *, least_contrast: float) -> bool:
    return (
        min(look.size_px or (0, 0)) >= LEAST_SIDE_PX
        and max(tones.neighbour_correlation, tones.coarse_correlation) < CORRELATION
        and tones.spectral_flatness > FLATNESS
        and tones.contrast > least_contrast
    )


def _usual_correlation(tones: Mapping[int, Tones], positions: Sequence[int]) -> float:
    return float(np.median([tones[i].neighbour_correlation for i in positions]))


def find_noise(survey: Survey) -> Finding | None:
    """Pictures of noise; those with a mask are left out, unless most pictures are such."""
    found = noise_like(survey)
    if not found:
        return None
    tones = tones_by_position(survey)
    ids = tuple(survey.looks[i].id for i in found)
    share = f"{len(found)} of {len(tones)}"
    are = "is" if len(found) == 1 else "are"
    if 2 * len(found) >= len(tones):
        summary = f"{share} pictures look like noise: nothing is wrong if they are radar or ultrasound"
        return Finding("noise_image", summary, ids, level="look")
    usual = _usual_correlation(tones, sorted(set(tones) - set(found)))
    notes = {
        survey.looks[i].id: f"neighbouring points agree by {tones[i].neighbour_correlation:.2f} "
        f"(0 is chance, 1 is full agreement; {usual:.2f} is usual here)"
        for i in found
    }
    drop = {survey.looks[i].id: "the picture is noise" for i in found if survey.looks[i].mask_file is not None}
    numbers = {"usual_neighbour_correlation": round(usual, 4)}
    return Finding("noise_image", f"{share} pictures {are} mere noise", ids, notes=notes, drop=drop, numbers=numbers)


def find_noise_masks(survey: Survey) -> Finding | None:
    """Masks whose labels are strewn by chance, though not so thickly that the source takes them for no mask at all.

    Those with many specks are read again and judged by their neighbours.
    """
    notes = {}
    labelled = [i for i, look in enumerate(survey.looks) if look.labels is not None]
    for i in labelled:
        specks = _specks(survey.looks[i])
        if specks < SPECKS:
            continue
        try:
            mask = survey.read(i)[1]
        except DataError:
            continue
        if mask is not None and agreement(mask) < AGREEMENT:
            notes[survey.looks[i].id] = f"{specks:.0f} specks in 1000 points of the mask"
    if not notes:
        return None
    drop = dict.fromkeys(notes, "the mask is noise") if 2 * len(notes) < len(labelled) else {}
    summary = f"{len(notes)} of {len(labelled)} masks {'is' if len(notes) == 1 else 'are'} nothing but specks"
    return Finding("noise_mask", summary, tuple(notes), notes=notes, drop=drop)


def _specks(look: Look) -> float:
    """Objects of at most 3 pixels in 1000 pixels; 0 for masks too small to judge."""
    size = look.size_px or (0, 0)
    if look.labels is None or min(size) < LEAST_SIDE_PX:
        return 0.0
    return 1000 * float(look.labels.sizes[:, :2].sum()) / (size[0] * size[1])


def agreement(mask: MaskArray) -> float:
    """How far neighbours in a mask (H, W) agree beyond chance; 1 where nearly all labels are the same."""
    shares = np.bincount(mask.ravel(), minlength=256) / mask.size
    by_chance = float(shares @ shares)
    if by_chance > NEARLY_ONE_CLASS:
        return 1.0
    equal = (float(np.mean(mask[1:] == mask[:-1])) + float(np.mean(mask[:, 1:] == mask[:, :-1]))) / 2
    return (equal - by_chance) / (1 - by_chance)
