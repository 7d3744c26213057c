"""Copy-paste for a loader: the objects that may be pasted, and the images with their objects.

An image is copied before anything is laid into it, into memory that is kept: new memory for every copy costs twenty
times as much as the copying.
"""

from __future__ import annotations

import threading
from typing import final

import cv2
import numpy as np
from jaxtyping import Float

from segwright.augment.mix import MixDraw, MixPolicy
from segwright.augment.paste import Cutout, Patch, lay_on_cpu, place_objects
from segwright.data.objects import Objects
from segwright.data.pack import Pack
from segwright.errors import RecipeError
from segwright.types import ImageArray, MaskArray

LARGEST_KEPT_BYTES = 4 << 20
"""The memory of larger copies is given back."""


@final
class Pasting:
    """Objects of training images, laid into others.

    An object that touches two opposite borders has no end that could be laid anywhere, and is left out.

    Args:
        pack: the images.
        objects: of training images.
        policy: how often and how.

    Raises:
        RecipeError: there is no object.
    """

    def __init__(self, pack: Pack, objects: Objects, *, policy: MixPolicy) -> None:
        cut_off = objects.cut_off(pack)
        ends = ~(cut_off[:, :2] & cut_off[:, 2:]).any(axis=1)
        if not ends.any():
            problem = "'mix.copy_paste' finds no object of its classes in the training images"
            raise RecipeError(problem, mend="name other classes in mix.paste_classes, or set mix.copy_paste to 0")
        self._pack, self._policy = pack, policy
        self._objects, self._cut_off = objects.where(ends), cut_off[ends]
        self._classes = [np.flatnonzero(self._objects.label == label) for label in np.unique(self._objects.label)]
        self._kept = _Kept()

    def patches(
        self, parameters: MixDraw, n: int, mask: MaskArray, *,
        matrix: Float[np.ndarray, "2 3"], crop_px: tuple[int, int],
    ) -> tuple[tuple[Patch, ...], MaskArray]:  # fmt: skip
        """What is laid into the `n`-th image of a batch, and its mask with it; the next batch takes that memory again.

        Args:
            parameters: the chance of the batch.
            n: which image.
            mask: (H, W) of the image.
            matrix: the map from pixels of the crop to those of the image.
            crop_px: rows and columns of the crop.
        """
        if parameters.objects[n] == 0:
            return (), mask
        changed = self._kept.copy_of(mask, name=f"mask {n}")
        found = place_objects(
            self._policy, parameters, n, mask=changed, matrix=matrix, crop_px=crop_px, cut=self._cut
        )  # fmt: skip
        return found, changed

    def pasted(self, image: ImageArray, patches: tuple[Patch, ...], *, n: int) -> ImageArray:
        """The `n`-th image with its objects; the next batch takes its memory again."""
        if not patches:
            return image
        picture = self._kept.copy_of(image.transpose(1, 2, 0), name=f"image {n}")
        lay_on_cpu(picture, patches)
        return picture.transpose(2, 0, 1)

    def _cut(self, of_class: float, of_objects: float) -> Cutout:
        """The object that two numbers in 0..1 choose, with its outline."""
        members = self._classes[int(of_class * len(self._classes))]
        chosen = int(members[int(of_objects * len(members))])
        objects = self._objects
        row, label = int(objects.row[chosen]), int(objects.label[chosen])
        top, left, bottom, right = objects.box[chosen].tolist()
        mask = self._pack.mask(row)
        assert mask is not None, "objects come from images with masks"
        shape = mask[top:bottom, left:right] == label
        if np.count_nonzero(shape) > objects.pixels[chosen]:
            _, named = cv2.connectedComponents(shape.astype(np.uint8), connectivity=8)
            shape = named == named[objects.anchor[chosen, 0] - top, objects.anchor[chosen, 1] - left]
        image = self._pack.image(row)[:, top:bottom, left:right].transpose(1, 2, 0)
        cut_off = tuple(bool(edge) for edge in self._cut_off[chosen])
        return Cutout(image, shape, label, (cut_off[0], cut_off[1], cut_off[2], cut_off[3]))


@final
class _Kept(threading.local):
    """Arrays that are written again and again, apart for every thread."""

    def __init__(self) -> None:
        self._arrays: dict[str, np.ndarray] = {}

    def copy_of(self, array: np.ndarray, *, name: str) -> np.ndarray:
        """A copy, in the memory of the last copy of that name where it fits."""
        kept = self._arrays.get(name)
        if kept is None or kept.shape != array.shape or kept.dtype != array.dtype:
            kept = np.empty(array.shape, dtype=array.dtype)
            if kept.nbytes <= LARGEST_KEPT_BYTES:
                self._arrays[name] = kept
        np.copyto(kept, array)
        return kept
