"""The coding of masks some of which may hold a value that is no class, or many such values along their edges.

A value that hardly any mask holds is a class where it goes on in the row of the others (5 after 0 to 4) and takes some
room; else it is a slip of the pen. Where most masks are soft, the values that stand out are the classes.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence, Set
from dataclasses import replace

from segwright.data.sources.classes import Color, code_of, color_of
from segwright.data.sources.detection import Found, Glance, detect, evenly_spread, tally_files
from segwright.data.sources.inspection import Inspection, restricted
from segwright.data.sources.masks import MaskCoding
from segwright.errors import MaskError

FEW = 0.05
"""A value is rare if no more than this share of the masks holds it, or just one of at least `ENOUGH` masks."""

ENOUGH = 10
THING_SHARE = 0.0002
"""A rare value is a class if it goes on where the others end, and takes more than this share of one mask."""

ALIKE = 24
"""Colours that differ by less in each channel may be one colour before and after JPEG."""

PEAK = 0.002
"""Where most masks are soft, values that take this share of all pixels, more than those around them, are classes."""


def settle(
    masks: Sequence[Glance],
    *,
    num_classes: int | None,
    mask_values: tuple[int, ...],
    colors: tuple[Color, ...],
    void_values: Sequence[int],
) -> Found:
    """The coding of plain masks, some of which may still hold a stray value.

    Raises:
        MaskError: see `majority.agree`.
    """

    def found(some: Sequence[Glance], *, nearest: bool = False) -> Found:
        # Traces of JPEG are left out by now.
        tally = replace(tally_files(some, complete=True), jpeg=False)
        return detect(
            tally, num_classes=num_classes, mask_values=mask_values, colors=colors, void_values=void_values,
            nearest=nearest,
        )  # fmt: skip

    colored = tally_files(masks, complete=True).colored
    given = {code_of(color) for color in colors} if colored else {*mask_values}
    try:
        if given:
            return found(masks)
        return found(_without_rare(masks, colored=colored, num_classes=num_classes, void=set(void_values)))
    except MaskError:
        if given:
            answer = found(masks, nearest=True)
        elif num_classes is None:
            raise
        else:
            kept = _commonest(masks, colored=colored, num_classes=num_classes, void=set(void_values))
            try:
                answer = found(kept)
            except MaskError:
                answer = Found(MaskCoding("index", tuple(range(num_classes)), tuple(void_values)))
        if not any({*held(one, answer.coding.kind == "rgb")} & set(answer.coding.values) for one in masks):
            raise
        return answer


def peaks(masks: Sequence[Inspection]) -> list[Glance]:
    """What is left of masks most of which are soft, without the values that lead from one class to the next."""
    colored = tally_files([one.glance for one in masks], complete=True).colored
    shares: dict[int, float] = defaultdict(float)
    for one in masks:
        for value, count in zip(held(one.glance, colored), one.glance.counts, strict=True):
            shares[value] += count / one.area_px / len(masks)
    reach = (max(shares) - min(shares)) // 32
    strong = {value: share for value, share in shares.items() if share >= PEAK}
    tops = {
        value
        for value, share in strong.items()
        if not any(
            strong[other] > share and (_alike(value, other) if colored else abs(value - other) <= reach)
            for other in strong
        )
    }
    return [_with_only(one.glance, tops, colored=colored) for one in masks]


def _without_rare(masks: Sequence[Glance], *, colored: bool, num_classes: int | None, void: set[int]) -> list[Glance]:
    """Without values that hardly any mask holds, where the others are a whole row of classes without them."""
    holders = Counter(value for one in masks for value in held(one, colored))
    limit = max(1, int(FEW * len(masks)))
    rare = {value for value, count in holders.items() if count <= limit and value not in void}
    common = {value for value in holders if value not in rare}
    if len(masks) < ENOUGH or not rare or not common:
        return list(masks)
    if colored:
        stray = {value for value in rare if any(_alike(value, other) for other in common)}
    else:
        stray = rare - _row(masks, common, void=void, num_classes=num_classes)
    return [_with_only(one, holders.keys() - stray, colored=colored) for one in masks]


def _row(masks: Sequence[Glance], common: set[int], *, void: set[int], num_classes: int | None) -> set[int]:
    """The whole row of classes of which most masks hold the common values; all values where they are in no row."""
    if common == {0, 255} or evenly_spread(tuple(sorted(common))):
        return common
    if num_classes is None and len(common - void) < 2:
        return {*_values(masks)}
    if num_classes is not None:
        return set(range(num_classes)) if common - void <= set(range(num_classes)) else {*_values(masks)}
    step = math.gcd(*(common - void)) or 1
    row = set(range(0, max(common - void, default=0) + 1, step))
    if len(common - void) < len(row) / 2:
        return {*_values(masks)}
    while _largest(masks, step * len(row)) > THING_SHARE:
        row.add(step * len(row))
    return row


def _values(masks: Sequence[Glance]) -> set[int]:
    return {value for one in masks for value in one.values}


def _largest(masks: Sequence[Glance], value: int) -> float:
    """The largest share that a value takes of one mask."""
    holders = [one for one in masks if value in one.values]
    return max((one.counts[one.values.index(value)] / sum(one.counts) for one in holders), default=0.0)


def _commonest(masks: Sequence[Glance], *, colored: bool, num_classes: int, void: set[int]) -> list[Glance]:
    """As many values as there are classes, those that most masks hold."""
    holders = Counter(value for one in masks for value in held(one, colored) if value not in void)
    kept = {value for value, _ in holders.most_common(num_classes)} | void
    return [_with_only(one, kept, colored=colored) for one in masks]


def held(glance: Glance, colored: bool) -> tuple[int, ...]:
    """What tells the classes in one mask: colours, or numbers."""
    return glance.codes if colored else glance.values


def _with_only(glance: Glance, kept: Set[int], *, colored: bool) -> Glance:
    return restricted(glance, [place for place, value in enumerate(held(glance, colored)) if value in kept])


def _alike(code: int, other: int) -> bool:
    """Two different colours that are close in every channel."""
    return 0 < apart(code, other) < ALIKE


def apart(code: int, other: int) -> int:
    """How far two colours differ in the channel that differs most."""
    return max(abs(one - two) for one, two in zip(color_of(code), color_of(other), strict=True))
