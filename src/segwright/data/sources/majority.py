"""How most masks are coded, and which ones are coded otherwise: for a source that cannot be read as it is.

`detection` stops at the first mask that does not fit. Here every mask is looked at, the coding is found from the plain
ones, and the rest are told what is odd about them. A mask is not plain where

    it holds colours while most hold numbers, or the reverse, or its palette is not that of the others
    nearly every pixel differs from its neighbours
    it says 255 for the class for which most say 1, or the reverse
    its edges are soft (see `inspection`)
    it holds a value that hardly any other mask holds and that extends no row of classes
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from segwright.data.sources.classes import Color, color_of
from segwright.data.sources.detection import Found
from segwright.data.sources.inspection import FRAYED_VALUES, Inspection
from segwright.data.sources.masks import MaskCoding, listed, shown
from segwright.data.sources.settling import ALIKE, apart, held, peaks, settle
from segwright.types import IGNORE_INDEX

OddKind = Literal["broken_mask", "color_confusion", "speckled_mask", "mixed_values", "soft_mask", "unknown_label"]

MINORITY = 0.2
"""What is odd about more masks than this share is not odd in this source."""

HARDLY_A_MASK = 0.6
"""If more of its pixels than this hold values that are near to no class, it is something else than a mask."""


@dataclass(frozen=True)
class Odd:
    """What is odd about one mask.

    Attributes:
        kind: what sort of oddity.
        text: what exactly was seen.
        values: stored values that are no class, where calling them void would help.
    """

    kind: OddKind
    text: str
    values: tuple[int, ...] = ()


@dataclass(frozen=True)
class Agreement:
    """How most masks are coded.

    Attributes:
        found: the coding, the colours of the classes, and notes.
        odd: file -> what is odd about it; `file` as in its inspection.
    """

    found: Found
    odd: dict[str, Odd]


def agree(
    inspections: Sequence[Inspection],
    *,
    num_classes: int | None,
    mask_values: Sequence[int] = (),
    colors: Sequence[Color] = (),
    void_values: Sequence[int] = (255,),
    nearest: bool = False,
) -> Agreement:
    """Find out how most masks are coded.

    Args:
        inspections: of all masks.
        num_classes: as for `detection.detect`, also for the next three.
        mask_values: the value of each class, where the user says so.
        colors: the colour of each class.
        void_values: values that are no class.
        nearest: values in between are read as the nearest class: they are then no fault.

    Raises:
        MaskError: the masks fit no coding at all, or what the user says fits none of them.
    """
    odd = {one.file: Odd("broken_mask", one.broken) for one in inspections if one.broken}
    kept = [one for one in inspections if not one.broken]
    sieves: list[Callable[[Sequence[Inspection]], dict[str, Odd]]] = [_of_another_sort, _speckled]
    if not mask_values and not colors and num_classes in (None, 2):
        sieves.append(_written_otherwise)
    for sieve in sieves:
        odd |= sieve(kept)
        kept = [one for one in kept if one.file not in odd]
    if not kept:
        labels = tuple(mask_values) or tuple(range(num_classes or 1))
        return Agreement(Found(MaskCoding("values", labels, tuple(void_values))), odd)
    plain = [one.glance for one in kept if not one.soft]
    if len(plain) < MINORITY * len(kept):
        plain = peaks(kept)
    found = settle(
        plain, num_classes=num_classes, mask_values=tuple(mask_values), colors=tuple(colors), void_values=void_values
    )
    found = replace(found, coding=replace(found.coding, nearest=nearest))
    told = {one.file: _oddity(one, found.coding) for one in kept}
    return Agreement(found, odd | {file: what for file, what in told.items() if what is not None})


def _of_another_sort(masks: Sequence[Inspection]) -> dict[str, Odd]:
    """Colours among numbers, numbers among colours, or another palette."""
    colorful = [one for one in masks if one.glance.stored == "rgb" and not one.glance.gray]
    flat = [one for one in masks if one.glance.stored == "flat"]
    if colorful and len(colorful) < len(masks) - len(colorful):
        return {one.file: Odd("color_confusion", "holds colours, while most masks hold numbers") for one in colorful}
    if colorful:
        return {one.file: Odd("color_confusion", "holds numbers, while most masks hold colours") for one in flat}
    return {} if flat else _of_another_palette([one for one in masks if one.glance.stored == "palette"])


def _of_another_palette(masks: Sequence[Inspection]) -> dict[str, Odd]:
    found: dict[int, Counter[int]] = {}
    for one in masks:
        for value, code in zip(one.glance.values, one.glance.codes, strict=True):
            found.setdefault(value, Counter())[code] += 1
    usual = {value: codes.most_common(1)[0][0] for value, codes in found.items()}
    odd = {}
    for one in masks:
        for value, code in zip(one.glance.values, one.glance.codes, strict=True):
            if code != usual[value]:
                told = f"its palette shows value {value} as {color_of(code)}, most show it as {color_of(usual[value])}"
                odd[one.file] = Odd("color_confusion", told)
    return odd if len(odd) <= MINORITY * len(masks) else {}


def _speckled(masks: Sequence[Inspection]) -> dict[str, Odd]:
    found = [one for one in masks if one.speckled]
    if len(found) > MINORITY * len(masks):
        return {}
    return {one.file: Odd("speckled_mask", "nearly every pixel differs from the one beside it") for one in found}


def _written_otherwise(masks: Sequence[Inspection]) -> dict[str, Odd]:
    """Two classes, 0 and 1 in some masks, 0 and 255 in others; where one mask holds all three, 255 is void."""
    held = {one.file: {*one.glance.values} for one in masks}
    both = any({1, 255} <= values for values in held.values())
    if both or any(values - {0, 1, 255} for values in held.values()):
        return {}
    ones, shown_ones = ([file for file, values in held.items() if value in values] for value in (1, 255))
    if not ones or not shown_ones:
        return {}
    fewer, said, usual = (ones, 1, 255) if len(ones) < len(shown_ones) else (shown_ones, 255, 1)
    return {file: Odd("mixed_values", f"holds 0 and {said}, while most masks hold 0 and {usual}") for file in fewer}


def _oddity(mask: Inspection, coding: MaskCoding) -> Odd | None:
    """What is odd about a mask by the coding of most."""
    colored = coding.kind == "rgb"
    counts = dict(zip(held(mask.glance, colored), mask.glance.counts, strict=True))
    stray = {value: count for value, count in counts.items() if value not in coding.owned}
    share = 1 - sum(count for value, count in counts.items() if value in coding.owned) / mask.area_px
    far = [value for value in stray if _distance(value, coding) > _reach(coding)]
    if stray and coding.nearest:
        return None
    if sum(stray[value] for value in far) > HARDLY_A_MASK * mask.area_px:
        return Odd("unknown_label", f"{share:.0%} of its pixels hold values that are no class: is it a mask at all?")
    if stray and (mask.soft or len(stray) > FRAYED_VALUES or not far):
        return Odd("soft_mask", f"{share:.1%} of its pixels hold {len(stray)} values between those of the classes")
    if stray:
        value, count = max(stray.items(), key=lambda pair: pair[1])
        also = f" and {len(stray) - 1} more such values" if len(stray) > 1 else ""
        return Odd(
            "unknown_label",
            f"{shown(value, colored=colored)} in {count:,} pixels{also}; "
            f"classes have {listed(coding.values, colored=colored)}",
            values=tuple(value for value in stray if not (colored and value == IGNORE_INDEX)),
        )
    if mask.soft and not colored:
        return Odd("soft_mask", "along its edges, values run from one class to the next through those of other classes")
    return None


def _distance(value: int, coding: MaskCoding) -> int:
    """How far a stored value is from the nearest class, in numbers or in the channel that differs most."""
    if coding.kind == "rgb":
        return min(apart(value, known) for known in coding.owned)
    return min(abs(value - known) for known in coding.owned)


def _reach(coding: MaskCoding) -> int:
    """How far JPEG may carry a value: an eighth of the way from one class to the next."""
    if coding.kind == "rgb":
        return ALIKE
    known = sorted(coding.values)
    return min((after - before for before, after in itertools.pairwise(known)), default=0) // 8
