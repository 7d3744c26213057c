"""Finding out how masks are coded, by looking at them.

numbers 0..K-1, with or without 255         index; 255 is void where it is not the only value besides 0
0 and 255, or grays spread up to 255        classes in that order
other numbers, few of them                  classes in rising order, with a note
colours                                     the given table, else the colours found, in rising order of 0xRRGGBB
more than 64 numbers or colours             refused: JPEG, smoothed edges or numbered objects
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from segwright.data.sources.classes import Color, code_of, color_of
from segwright.data.sources.masks import MaskCoding, flatten, is_gray, listed, shown
from segwright.errors import MaskError
from segwright.files import read_palette, read_raw_mask
from segwright.metrics import count_labels
from segwright.types import IGNORE_INDEX

MOST_CLASSES_FOUND = 64
"""More different values or colours than this are taken for the traces of JPEG or of smoothed edges."""

JPEG_SUFFIXES = (".jpg", ".jpeg")


@dataclass(frozen=True)
class Tally:
    """What some masks hold.

    Attributes:
        colored: their values are colours.
        holders: stored value -> a file that holds it, by rising value.
        palette: the colours of values, where all masks carry one palette.
        complete: all masks were looked at.
        jpeg: one of them is a JPEG.
        notes: what the user should know.
    """

    colored: bool
    holders: dict[int, str]
    palette: dict[int, Color] = field(default_factory=dict)
    complete: bool = True
    jpeg: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Glance:
    """One mask file: how it is stored, what values and colours it holds, and how many pixels of each."""

    file: str
    stored: Literal["flat", "palette", "rgb"]
    gray: bool
    values: tuple[int, ...]
    codes: tuple[int, ...] = ()
    counts: tuple[int, ...] = ()


def glance(path: Path, *, file: str) -> Glance:
    """Look at one mask file.

    Raises:
        DataError: as `segwright.files.read_image`.
    """
    return glance_at(read_raw_mask(path), path=path, file=file)


def glance_at(raw: np.ndarray, *, path: Path | None, file: str) -> Glance:
    """Look at stored values (H, W) or colours (H, W, 3); `path` tells of a palette."""
    if raw.ndim == 3:
        codes, counts = _counted(flatten(raw, colored=True, file=file))
        gray = is_gray(raw)
        return Glance(file, "rgb", gray, tuple(code & 255 for code in codes) if gray else (), codes, counts)
    values, counts = _counted(raw)
    table = None if path is None else read_palette(path)
    if table is None:
        return Glance(file, "flat", True, values, counts=counts)
    colors = np.zeros((256, 3), dtype=np.int64)
    colors.reshape(-1)[: len(table)] = table
    codes = tuple(int(code_of((r, g, b))) for r, g, b in colors[list(values)].tolist())
    return Glance(file, "palette", False, values, codes, counts)


def _counted(values: np.ndarray) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The different values and the pixels of each."""
    if values.dtype == np.uint8:
        counts = count_labels(values)
        found = np.flatnonzero(counts)
        return tuple(found.tolist()), tuple(counts[found].tolist())
    found, counts = np.unique(values, return_counts=True)
    return tuple(found.tolist()), tuple(counts.tolist())


def tally_files(glances: Sequence[Glance], *, complete: bool) -> Tally:
    """Put the looks at single files together.

    Raises:
        MaskError: some masks hold colours and others numbers.
    """
    notes: list[str] = []
    colorful = next((one for one in glances if one.stored == "rgb" and not one.gray), None)
    flat = next((one for one in glances if one.stored == "flat"), None)
    palettes: dict[int, set[int]] = {}
    for one in glances:
        if one.stored == "palette":
            for value, code in zip(one.values, one.codes, strict=True):
                palettes.setdefault(value, set()).add(code)
    unlike = any(len(codes) > 1 for codes in palettes.values())
    colored = colorful is not None or (unlike and flat is None)
    if colorful is not None and flat is not None:
        raise MaskError(
            f"holds colours, while {flat.file} holds numbers", mend="save all masks in one way", file=colorful.file
        )
    if colored and colorful is None:
        notes.append("palettes differ from mask to mask: classes are told by colour, not by palette index")
    holders: dict[int, str] = {}
    for one in glances:
        for value in one.codes if colored else one.values:
            holders.setdefault(value, one.file)
    palette = {} if colored or unlike else {value: color_of(min(codes)) for value, codes in palettes.items()}
    return Tally(
        colored,
        dict(sorted(holders.items())),
        palette,
        complete=complete,
        jpeg=any(one.file.lower().endswith(JPEG_SUFFIXES) for one in glances),
        notes=tuple(notes),
    )


def tally_arrays(masks: Iterable[tuple[str, np.ndarray]]) -> Tally:
    """Look at (H, W) rows of arrays, each with its place for messages."""
    holders: dict[int, str] = {}
    for place, mask in masks:
        for value in _counted(mask)[0]:
            holders.setdefault(value, place)
    return Tally(colored=False, holders=dict(sorted(holders.items())))


@dataclass(frozen=True)
class Found:
    """The answer of `detect`: the coding, the colours of the classes where masks tell them, and notes."""

    coding: MaskCoding
    colors: tuple[Color, ...] = ()
    notes: tuple[str, ...] = ()


def detect(
    tally: Tally,
    *,
    num_classes: int | None,
    mask_values: Sequence[int] = (),
    colors: Sequence[Color] = (),
    void_values: Sequence[int],
    nearest: bool = False,
) -> Found:
    """Find out how masks are coded.

    Args:
        tally: what they hold.
        num_classes: K where names are known.
        mask_values: the value of each class, where the user says so.
        colors: the colour of each class, where known; the table of colour-coded masks.
        void_values: values that are no class.
        nearest: values that no class owns are read as the nearest one that is owned; the classes must then be given.

    Raises:
        MaskError: values that fit no classes, or too many to be classes.
    """
    if nearest:
        tally = _as_given(tally, given=tuple(map(code_of, colors)) if tally.colored else tuple(mask_values))
        found = detect(tally, num_classes=num_classes, mask_values=mask_values, colors=colors, void_values=void_values)
        return replace(found, coding=replace(found.coding, nearest=True))
    if tally.colored:
        return _detect_colors(
            tally,
            num_classes=num_classes,
            given=tuple(map(code_of, colors)) or tuple(mask_values),
            void_values=void_values,
        )
    coding, notes = _detect_values(
        tally, num_classes=num_classes, mask_values=tuple(mask_values), void_values=void_values
    )
    palette = tuple(tally.palette[value] for value in coding.values if value in tally.palette)
    complete = len(set(palette)) == len(coding.values)
    return Found(coding, colors=palette if complete else (), notes=(*tally.notes, *notes))


def _as_given(tally: Tally, *, given: tuple[int, ...]) -> Tally:
    """As if masks held nothing but the values of the classes.

    Raises:
        MaskError: no values are given, so nothing could be the nearest of them.
    """
    if not given:
        raise MaskError(
            "values are to be read as the nearest class, and no class has a value",
            mend="give mask_values (or colors) beside nearest",
            file=next(iter(tally.holders.values()), None),
        )
    return replace(tally, holders={value: tally.holders.get(value, "") for value in given})


def _detect_colors(
    tally: Tally, *, num_classes: int | None, given: tuple[int, ...], void_values: Sequence[int]
) -> Found:
    void = tuple(value for value in void_values if value != IGNORE_INDEX)
    seen = tuple(value for value in tally.holders if value not in void)
    if given:
        _require_owned(tally, owned={*given, *void})
        return Found(MaskCoding("rgb", given, void), tuple(map(color_of, given)), tally.notes)
    first = next(iter(tally.holders.values()), None)
    if len(seen) > MOST_CLASSES_FOUND:
        raise MaskError(
            f"masks hold {len(seen)} different colours, which looks anti-aliased or JPEG-compressed",
            mend="save masks as PNG without smoothing, or give the colour of each class",
            file=first,
        )
    if num_classes is not None and num_classes != len(seen):
        raise MaskError(
            f"masks hold {len(seen)} colours ({listed(seen, colored=True)}) for {num_classes} classes",
            mend="give the colour of each class in the order of their names",
            file=first,
        )
    note = f"masks are told by colour: {listed(seen, colored=True)}, in this order"
    return Found(MaskCoding("rgb", seen, void), tuple(map(color_of, seen)), (*tally.notes, note))


def _detect_values(
    tally: Tally, *, num_classes: int | None, mask_values: tuple[int, ...], void_values: Sequence[int]
) -> tuple[MaskCoding, tuple[str, ...]]:
    """Coding of masks that hold numbers, by the first rule that fits."""
    seen, k = tuple(tally.holders), num_classes
    void = tuple(dict.fromkeys(void_values))
    if mask_values == (0, 1) and seen == (0, IGNORE_INDEX) and IGNORE_INDEX in void:
        # Two classes, saved once as numbers and once to be seen.
        return MaskCoding("values", seen, ()), ("mask values 0, 255 are taken as classes 0 and 1",)
    if mask_values:
        void = tuple(value for value in void if value not in mask_values)
        _require_owned(tally, owned={*mask_values, *void})
        return _coding(mask_values, void), ()
    usual = set(void) <= {IGNORE_INDEX}
    if usual and (seen == (0, 255) or evenly_spread(seen)) and k in (None, len(seen)):
        return MaskCoding("values", seen, ()), (
            f"mask values {listed(seen)} are taken as classes 0 to {len(seen) - 1}",
        )
    if k == 1 and len(seen) > 1 and usual:
        raise MaskError(
            f"masks hold {listed(seen)}, but one class is named",
            mend="name background too, as in --classes background,crack",
            file=tally.holders[seen[0]],
        )
    labels = tuple(value for value in seen if value not in void)
    if not labels:
        raise MaskError(
            "masks hold nothing but void values",
            mend="give the mask values of the classes",
            file=next(iter(tally.holders.values()), None),
        )
    top = (k or max(labels) + 1) - 1
    clear = min(labels) >= 0 and max(labels) <= top and not any(0 <= value <= top for value in void)
    if clear and (k is not None or (labels[0] == 0 and top < min(2 * len(labels), MOST_CLASSES_FOUND))):
        missing = () if k is not None else tuple(value for value in range(top) if value not in labels)
        note = (f"no mask looked at holds {listed(missing)}: kept as a class without pixels",) if missing else ()
        return _coding(tuple(range(top + 1)), void), note
    return _remapped(tally, labels, void=void, num_classes=k)


def _remapped(
    tally: Tally, labels: tuple[int, ...], *, void: tuple[int, ...], num_classes: int | None
) -> tuple[MaskCoding, tuple[str, ...]]:
    """Sparse values in rising order become 0, 1, ..."""
    if num_classes is not None and len(labels) != num_classes:
        value = labels[-1]
        raise MaskError(
            f"holds value {value}, but {num_classes} classes are named and masks hold {listed(labels)}",
            mend="name every class, or give their mask values, or declare the rest void",
            file=tally.holders[value],
        )
    if len(labels) > MOST_CLASSES_FOUND or (tally.jpeg and num_classes is None):
        raise MaskError(
            f"masks hold {len(labels)} different values ({listed(labels)}), which looks anti-aliased, JPEG-compressed "
            "or like numbered objects",
            mend="save masks as PNG with one value a class, or give the mask value of each class",
            file=tally.holders[labels[-1]],
        )
    return _coding(labels, void), (
        f"mask values {listed(labels)} are taken as classes 0 to {len(labels) - 1}, in this order",
    )


def _coding(values: tuple[int, ...], void: tuple[int, ...]) -> MaskCoding:
    return MaskCoding("index" if values == tuple(range(len(values))) else "values", values, void)


def evenly_spread(values: tuple[int, ...]) -> bool:
    """Labels that were spread over all grays to be seen by eye: 0, 128, 255."""
    count = len(values)
    if not 3 <= count <= MOST_CLASSES_FOUND or values[0] != 0 or values[-1] != 255:
        return False
    return all(abs(value - 255 * place / (count - 1)) <= 1 for place, value in enumerate(values))


def _require_owned(tally: Tally, *, owned: set[int]) -> None:
    stray = next((value for value in tally.holders if value not in owned), None)
    if stray is not None:
        raise MaskError(
            f"holds {shown(stray, colored=tally.colored)}, which belongs to no class",
            mend="give the mask value (or colour) of every class, or declare this one void",
            file=tally.holders[stray],
        )
