"""How masks are coded on disk, and how that is found out.

A mask's stored values become labels 0..K-1, or 255 where no class is meant. Kinds of coding:

    index    the value is the label                           (gray, palette and 1-bit pictures, arrays)
    values   class k has the value `values[k]`                (0 and 255, spread grays, labels from 1, Cityscapes ids)
    rgb      class k has the colour `values[k]`, as 0xRRGGBB  (RGB pictures, and palettes that differ from file to file)

Several values may be one class: the first stands in `values`, the others in `merged`.

A coding that reads `nearest` gives values between those of the classes, such as the soft edges of a scaled mask, the
label of the nearest value or colour.

In colour-coded masks a void value above 255 is a void colour, 0xRRGGBB, and 0 is black; 255, the usual void value,
voids no colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from segwright.data.sources.classes import color_of
from segwright.errors import MaskError
from segwright.files import open_picture, read_raw_mask
from segwright.metrics import count_labels
from segwright.types import IGNORE_INDEX, MaskArray


@dataclass(frozen=True)
class MaskCoding:
    """From stored values to labels.

    Attributes:
        kind: see the head of this file.
        values: the stored value (or 0xRRGGBB) of class 0, 1, ...
        void: stored values that are no class.
        nearest: read a value that no class owns as the nearest one that is owned; else it is refused.
        merged: further stored values, each with the label of the class that it is taken for.
    """

    kind: Literal["index", "values", "rgb"]
    values: tuple[int, ...]
    void: tuple[int, ...] = (IGNORE_INDEX,)
    nearest: bool = False
    merged: tuple[tuple[int, int], ...] = ()

    @property
    def owned(self) -> frozenset[int]:
        """All stored values that mean something, void ones too."""
        return frozenset((*self.values, *self.void, *(value for value, _ in self.merged)))

    @property
    def of_classes(self) -> tuple[int | tuple[int, ...], ...]:
        """The stored value of each class, or its several values."""
        more: dict[int, list[int]] = {}
        for value, label in self.merged:
            more.setdefault(label, []).append(value)
        return tuple((first, *more[k]) if k in more else first for k, first in enumerate(self.values))

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        """Known stored values in rising order, and the label of each."""
        known = dict.fromkeys(self.void, IGNORE_INDEX)
        known |= {value: label for label, value in enumerate(self.values)} | dict(self.merged)
        order = sorted(known)
        return np.array(order, dtype=np.int64), np.array([known[value] for value in order], dtype=np.uint8)

    @cached_property
    def _table(self) -> tuple[np.ndarray, np.ndarray]:
        """Label and ownership of each of the 256 values of a byte."""
        labels, owned = np.zeros(256, dtype=np.uint8), np.zeros(256, dtype=bool)
        for value, label in zip(*self._sorted, strict=True):
            if 0 <= value < 256:
                labels[value], owned[value] = label, True
        if self.nearest:
            labels[~owned] = self._sorted[1][self._closest(np.flatnonzero(~owned))]
            owned[:] = True
        return labels, owned

    def _closest(self, values: np.ndarray) -> np.ndarray:
        """Place among the known values of the one nearest to each; of two, the smaller."""
        known = self._sorted[0]
        different, inverse = np.unique(values, return_inverse=True)
        if self.kind == "rgb":
            apart = sum(((different >> shift & 255)[:, None] - (known >> shift & 255)) ** 2 for shift in (16, 8, 0))
        else:
            apart = np.abs(different.astype(np.int64)[:, None] - known)
        return np.asarray(np.argmin(apart, axis=1)[inverse])

    def decode(self, raw: np.ndarray, *, file: str | Path) -> MaskArray:
        """Labels of stored values.

        Args:
            raw: (H, W) integers or (H, W, 3) colours.
            file: named in errors.

        Raises:
            MaskError: a value that no class owns (not with `nearest`), or colours where labels were expected.
        """
        values = flatten(raw, colored=self.kind == "rgb", file=file)
        if values.dtype == np.uint8:
            labels, owned = self._table
            present = count_labels(values) > 0
            if (present & ~owned).any():
                raise self._stray(int(np.flatnonzero(present & ~owned)[0]), values, file)
            return np.asarray(cv2.LUT(values, labels))
        known, label_of = self._sorted
        place = np.searchsorted(known, values).clip(max=len(known) - 1)
        stray = known[place] != values
        if stray.any():
            if not self.nearest:
                raise self._stray(int(values[stray][0]), values, file)
            place[stray] = self._closest(values[stray])
        return np.asarray(label_of[place])

    def _stray(self, value: int, values: np.ndarray, file: str | Path) -> MaskError:
        count = int((values == value).sum())
        what = shown(value, colored=self.kind == "rgb")
        return MaskError(
            f"{count} pixel{'s have' if count > 1 else ' has'} {what}, which belongs to no class "
            f"(classes have {listed(self.values, colored=self.kind == 'rgb')})",
            mend="name all classes with their mask values (or colours), or declare this one void",
            file=file,
        )


def flatten(raw: np.ndarray, *, colored: bool, file: str | Path) -> np.ndarray:
    """(H, W) integers of a stored mask: colours packed as 0xRRGGBB, or gray pictures that were saved as RGB made flat.

    Raises:
        MaskError: colours where flat values were expected, or the reverse.
    """
    if colored:
        if raw.ndim != 3:
            raise MaskError(
                "holds numbers, while other masks hold colours", mend="save all masks in one way", file=file
            )
        wide = raw.astype(np.int32)
        return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
    if raw.ndim == 3:
        if not is_gray(raw):
            raise MaskError(
                "holds colours, while other masks hold numbers", mend="save all masks in one way", file=file
            )
        return raw[..., 0]
    return raw


def is_gray(raw: np.ndarray) -> bool:
    return bool((raw[..., 0] == raw[..., 1]).all() and (raw[..., 0] == raw[..., 2]).all())


def read_mask_file(path: Path, *, colored: bool) -> np.ndarray:
    """Stored values of a mask file; with `colored`, the colours behind a palette.

    Raises:
        DataError: as `segwright.files.read_image`.
    """
    if colored:
        with open_picture(path) as picture:
            if picture.mode == "P":
                return np.array(picture.convert("RGBA").convert("RGB"), dtype=np.uint8)
    return read_raw_mask(path)


def shown(value: int, *, colored: bool) -> str:
    return f"colour {color_of(value)} = 0x{value:06X}" if colored else f"value {value}"


def listed(values: Sequence[int], *, colored: bool = False) -> str:
    shown = [str(color_of(value)) if colored else str(value) for value in values[:12]]
    return ", ".join(shown) + (", ..." if len(values) > 12 else "")
