"""The images that a model does best and worst on, kept small while the rest streams by."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np

from segwright.pictures import as_rgb
from segwright.types import ImageArray, MaskArray

LONGER_SIDE_PX = 512


@dataclass(frozen=True)
class Example:
    """One image with its truth and its prediction, scaled down for a page; `image` is (3, H, W) uint8."""

    id: str
    score: float
    kind: Literal["best", "worst"]
    image: ImageArray
    mask: MaskArray
    pred: MaskArray


@dataclass
class ExampleKeeper:
    """Keeps the `count` best and the `count` worst images; memory does not grow with the number seen."""

    count: int = 5
    _seen: int = 0
    _best: list[Example] = field(default_factory=list)
    _worst: list[Example] = field(default_factory=list)

    def offer(self, id: str, score: float, image: ImageArray, mask: MaskArray, pred: MaskArray) -> None:  # noqa: A002
        """Look at one image; those without a score (NaN) are passed over."""
        if np.isnan(score):
            return
        self._seen += 1
        if len(self._best) == self.count and self._worst[-1].score <= score <= self._best[-1].score:
            return
        small = _scaled(image, mask, pred)
        best = [*self._best, Example(id, score, "best", *small)]
        worst = [*self._worst, Example(id, score, "worst", *small)]
        self._best = sorted(best, key=lambda one: -one.score)[: self.count]
        self._worst = sorted(worst, key=lambda one: one.score)[: self.count]

    def kept(self) -> list[Example]:
        """The best, then the worst; with few images none stands on both sides."""
        worst = min(self.count, self._seen // 2)
        best = min(self.count, self._seen - worst)
        return [*self._best[:best], *self._worst[:worst]]


def _scaled(image: ImageArray, mask: MaskArray, pred: MaskArray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The image as (3, h, w) uint8 and both masks as (h, w), no longer than `LONGER_SIDE_PX`."""
    height, width = mask.shape
    factor = LONGER_SIDE_PX / max(height, width)
    if factor >= 1:
        return as_rgb(image).transpose(2, 0, 1).copy(), mask.copy(), pred.copy()
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    # Scaled before it is shown: a large image of floats would be copied several times over.
    few = np.ascontiguousarray(image[:3].transpose(1, 2, 0))
    small = cv2.resize(few, size, interpolation=cv2.INTER_AREA).reshape(*size[::-1], -1)
    labels = [cv2.resize(label, size, interpolation=cv2.INTER_NEAREST) for label in (mask, pred)]
    return as_rgb(small.transpose(2, 0, 1)).transpose(2, 0, 1).copy(), labels[0], labels[1]
