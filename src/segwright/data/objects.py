"""Objects in training images: the connected regions of a class, found once and cut out when they are wanted.

An object is a largest set of pixels of one label that touch one another along a side or at a corner (8-connectivity).
Only where it lies is kept (72 bytes an object); its outline is found again in its box, which holds all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int

from segwright.augment.paste import LEAST_OBJECT_PX
from segwright.data.pack import Pack


@final
@dataclass(frozen=True, eq=False)
class Objects:
    """M objects of a pack, in the order of their images.

    Attributes:
        row: (M,) position of the image in the pack, rising.
        label: (M,) class.
        box: (M, 4) first row, first column, and the row and column after the last.
        anchor: (M, 2) row and column of the object's pixel that is nearest to the middle of its box.
        pixels: (M,) its size.
    """

    row: Int[np.ndarray, " M"]
    label: Int[np.ndarray, " M"]
    box: Int[np.ndarray, "M 4"]
    anchor: Int[np.ndarray, "M 2"]
    pixels: Int[np.ndarray, " M"]

    def __len__(self) -> int:
        return len(self.row)

    def where(self, chosen: Bool[np.ndarray, " M"]) -> Objects:
        """Some of them."""
        return Objects(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))

    def of(self, labels: Sequence[int]) -> Objects:
        """Those of some classes."""
        return self.where(np.isin(self.label, np.asarray(labels, dtype=np.int64)))

    def cut_off(self, pack: Pack) -> Bool[np.ndarray, "M 4"]:
        """Which borders of its image each object touches: top, left, bottom, right."""
        sizes = pack.sizes[self.row]
        return np.concatenate([self.box[:, :2] == 0, self.box[:, 2:] == sizes], axis=1)

    def anchors(
        self, rows: Int[np.ndarray, " N"], *, share: float, rng: np.random.Generator
    ) -> Float[np.ndarray, "N 2"]:
        """A pixel of a random object in some of the images; NaN in the others, and where there is no object.

        Args:
            rows: positions of images in the pack.
            share: of the images that get one, where they hold an object.
            rng: the only source of chance.
        """
        unit = rng.random((len(rows), 2))
        first, last = (np.searchsorted(self.row, rows, side=side) for side in ("left", "right"))
        chosen = (unit[:, 0] < share) & (last > first)
        anchors = np.full((len(rows), 2), np.nan)
        anchors[chosen] = self.anchor[(first + (unit[:, 1] * (last - first)).astype(np.int64))[chosen]]
        return anchors


def find_objects(
    pack: Pack, rows: Int[np.ndarray, " N"], *, labels: Sequence[int], least_px: int = LEAST_OBJECT_PX
) -> Objects:
    """The objects of some classes in some images, which all have masks.

    Args:
        pack: the images.
        rows: positions of the images in the pack; of training images only.
        labels: the classes.
        least_px: objects of fewer pixels are left out.
    """
    found: list[tuple[int, ...]] = []
    for i in np.sort(rows).tolist():
        for label in labels:
            if pack.class_pixels[i, label] >= least_px:
                mask = pack.mask(i)
                assert mask is not None, "training images have masks"
                binary = (mask == label).astype(np.uint8)
                found += [(i, label, *one) for one in _components(binary, least_px=least_px)]
    table = np.array(found, dtype=np.int64).reshape(-1, 9)
    return Objects(table[:, 0], table[:, 1], table[:, 2:6], table[:, 6:8], table[:, 8])


def _components(binary: np.ndarray, *, least_px: int) -> list[tuple[int, ...]]:
    """Box, anchor and size of each object that is large enough."""
    x, y, width, height = cv2.boundingRect(binary)
    count, named, stats, _ = cv2.connectedComponentsWithStats(binary[y : y + height, x : x + width], connectivity=8)
    found: list[tuple[int, ...]] = []
    for k in range(1, count):
        left, top, columns, rows, pixels = stats[k].tolist()
        if pixels < least_px:
            continue
        places = np.argwhere(named[top : top + rows, left : left + columns] == k)
        middle = np.array([(rows - 1) / 2, (columns - 1) / 2])
        nearest = places[np.square(places - middle).sum(axis=1).argmin()].tolist()
        top, left = top + y, left + x
        found.append((top, left, top + rows, left + columns, top + nearest[0], left + nearest[1], pixels))
    return found
