"""A close look at one mask as it is stored: does it hold classes side by side, or values that run into one another?

Smoothing (scaling, rotating, anti-aliased drawing) puts pixels between two classes whose value lies between theirs.
JPEG does the same and scatters values besides. Neither need show in the values themselves: between class 2 and class 5
lie 3 and 4, which are classes too. It shows in how values change from pixel to pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from segwright.data.sources.detection import Glance, glance_at
from segwright.errors import DataError
from segwright.files import read_raw_mask

SOFT_STEPS = 0.12
"""Pixels between their neighbours in value, for each change of value. Clean masks of CamVid, nuclei and membranes stay
below 0.03, of small crops below 0.08; smoothed ones lie above 0.2, those saved as JPEG above 0.12."""

FRAYED = 0.45
FRAYED_VALUES = 32
"""Pixels that differ from both neighbours, for each change; with so many values in one mask they are traces of JPEG."""

LEAST_STEPS = 4
"""Fewer pixels between their neighbours than this prove nothing."""

SPECKLED = 0.9
"""Jumps for each pixel, in rows and columns together: at most 2, below 0.25 in the sets named above."""

JUMP = 1 / 8
"""A change by more than this part of the range of values is a jump; what JPEG scatters is smaller."""

MOST_VALUES_KEPT = 256
WINDOW_PX = 2048
"""Changes are counted in the middle of a mask, up to this many rows and columns."""


@dataclass(frozen=True)
class Grain:
    """How the values of a mask change from pixel to pixel.

    Attributes:
        changes: pairs of neighbours in a row or a column that differ, for each pixel.
        jumps: the same that differ by much.
        between: pixels strictly between their two neighbours in value.
        steps: the same for each change.
        frayed: pixels that differ from both neighbours, for each change.
    """

    changes: float = 0.0
    jumps: float = 0.0
    between: int = 0
    steps: float = 0.0
    frayed: float = 0.0


@dataclass(frozen=True)
class Inspection:
    """One mask.

    Attributes:
        glance: what it holds; nothing where it cannot be read. Of very many values only the commonest are kept.
        grain: how its values change.
        broken: why it cannot be read; '' where it can.
        area_px: its pixels.
    """

    glance: Glance
    grain: Grain = Grain()
    broken: str = ""
    area_px: int = 0

    @property
    def file(self) -> str:
        return self.glance.file

    @property
    def speckled(self) -> bool:
        """Nearly every pixel differs from its neighbours."""
        return self.grain.jumps > SPECKLED

    @property
    def soft(self) -> bool:
        """Its edges are smoothed, or damaged by JPEG."""
        grain = self.grain
        if self.speckled:
            return False
        stepped = grain.steps > SOFT_STEPS and grain.between >= LEAST_STEPS
        return stepped or (grain.frayed > FRAYED and len(self.glance.counts) > FRAYED_VALUES)


def inspect_file(path: Path, *, file: str) -> Inspection:
    """Look at one mask file; one that cannot be read is told, not raised."""
    try:
        return inspect_values(read_raw_mask(path), path=path, file=file)
    except DataError as error:
        return Inspection(Glance(file, "flat", True, ()), broken=error.problem)


def inspect_values(raw: np.ndarray, *, path: Path | None = None, file: str) -> Inspection:
    """Look at stored values (H, W) or colours (H, W, 3); `path` tells of a palette."""
    glance = glance_at(raw, path=path, file=file)
    if len(glance.counts) > MOST_VALUES_KEPT:
        commonest = np.argsort(np.negative(glance.counts), kind="stable")[:MOST_VALUES_KEPT]
        glance = restricted(glance, sorted(commonest.tolist()))
    return Inspection(glance, grain_of(raw), area_px=raw.shape[0] * raw.shape[1])


def restricted(glance: Glance, places: Sequence[int]) -> Glance:
    """The same with the values at these places only."""

    def some(numbers: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(numbers[place] for place in places) if numbers else ()

    return replace(glance, values=some(glance.values), codes=some(glance.codes), counts=some(glance.counts))


def grain_of(raw: np.ndarray) -> Grain:
    """Changes of (H, W) values or (H, W, 3) colours; a colour lies between two others if it does so in each channel."""
    top, left = (max(0, (side - WINDOW_PX) // 2) for side in raw.shape[:2])
    window = raw[top : top + WINDOW_PX, left : left + WINDOW_PX]
    planes = [window[..., channel] for channel in range(window.shape[2])] if window.ndim == 3 else [window]
    reach = max(float(plane.max()) - float(plane.min()) for plane in planes)
    changes = jumps = between = frayed = 0
    for turned in (planes, [plane.T for plane in planes]):
        differs, leaps, monotone = _changes(turned, leap=JUMP * reach)
        both = differs[1:] & differs[:-1]
        changes += int(np.count_nonzero(differs))
        jumps += int(np.count_nonzero(leaps))
        frayed += int(np.count_nonzero(both))
        between += int(np.count_nonzero(both & monotone))
    area, count = planes[0].size, max(changes, 1)
    return Grain(changes / area, jumps / area, between, between / count, frayed / count)


def _changes(planes: Sequence[np.ndarray], *, leap: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where a row differs from the next one, and where by more than `leap` (H - 1, W each); where no channel turns back
    from one row to the next (H - 2, W).
    """
    rows, columns = planes[0].shape
    differs = np.zeros((max(rows - 1, 0), columns), dtype=bool)
    leaps = np.zeros_like(differs)
    monotone = np.ones((max(rows - 2, 0), columns), dtype=bool)
    for plane in planes:
        rises, falls = plane[1:] > plane[:-1], plane[1:] < plane[:-1]
        differs |= rises | falls
        apart = np.where(rises, plane[1:] - plane[:-1], plane[:-1] - plane[1:])  # never below 0, so bytes do not wrap
        leaps |= apart > leap
        monotone &= ~((rises[:-1] & falls[1:]) | (falls[:-1] & rises[1:]))
    return differs, leaps, monotone
