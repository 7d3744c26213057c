"""Copy-paste: objects that were cut out along their outline are laid into other images.

After "Simple Copy-Paste" (Ghiasi et al. 2021, https://arxiv.org/abs/2012.07177), with a filter of places: at least
`ON_PLACE` of the pixels that an object covers must be of the classes on which it may stand, and never void.

Objects are laid into an image before it is augmented, in pixels of that image, so that they go through the same
geometry and light as their new surroundings; their middle lies where the crop will show it. An object that the border
of its own image cuts off is laid only to the same border of another (mirrored: the opposite one), so that no straight
cut ever stands in the middle of an image. A border that is blended holds, d pixels inside of the outline (1 for the
outermost), the share d / (1 + feather) of the object; the label is the object's on all of its pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from segwright.augment.mix import MixDraw, MixPolicy
from segwright.types import MaskArray

ON_PLACE = 0.8
"""Share of the covered pixels that must be of a class on which the object may stand."""

LEAST_OBJECT_PX = 12
"""Smaller objects teach nothing: neither cut out nor pasted."""


@dataclass(frozen=True, eq=False)
class Cutout:
    """An object and its box in its own image.

    Attributes:
        image: (h, w, C) pixels of the box.
        shape: (h, w) which of them are the object's.
        label: of the object.
        cut_off: whether the border of the image cuts the object off at its top, left, bottom and right.
    """

    image: Shaped[np.ndarray, "h w C"]
    shape: Bool[np.ndarray, "h w"]
    label: int
    cut_off: tuple[bool, bool, bool, bool]


@dataclass(frozen=True, eq=False)
class Patch:
    """An object as it is laid into an image.

    Attributes:
        top, left: of its box in that image, in pixels.
        pixels: (h, w, C) float32.
        share: (h, w) how much of each pixel is the object's, 0 outside of it.
        label: of the object.
    """

    top: int
    left: int
    pixels: Float[np.ndarray, "h w C"]
    share: Float[np.ndarray, "h w"]
    label: int

    @property
    def box(self) -> tuple[slice, slice]:
        height, width = self.share.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


def place_objects(
    policy: MixPolicy, parameters: MixDraw, n: int, *,
    mask: MaskArray, matrix: Float[np.ndarray, "2 3"], crop_px: tuple[int, int],
    cut: Callable[[float, float], Cutout],
) -> tuple[Patch, ...]:  # fmt: skip
    """Find a place for the objects of image `n`; those that fit nowhere are left out.

    Args:
        policy: which places are right, and how objects are changed.
        parameters: the chance of the batch.
        n: which image of the batch.
        mask: (H, W) of the image, before augmentation; the objects are laid into it, in place.
        matrix: the map from pixels of the crop to those of the image (see `geometry`).
        crop_px: rows and columns of the crop.
        cut: the object that two numbers in 0..1 choose: its class and which one of the class.
    """
    count = int(parameters.objects[n])
    if count == 0:
        return ()
    assert parameters.paste is not None, "drawn where any image gets objects"
    patches: list[Patch] = []
    tries, allowed = parameters.paste[n, :count], policy.allowed
    places, right = _places_of(tries, matrix=matrix, crop_px=crop_px, mask=mask, allowed=allowed)
    for slot in range(count):
        for t in np.flatnonzero(right[slot]).tolist():
            unit = tries[slot, t].tolist()
            row, column = places[slot, t].tolist()
            patch = _fitted(policy, cut(unit[0], unit[1]), unit, place=(row, column), mask=mask, allowed=allowed)
            if patch is not None:
                mask[patch.box][patch.share > 0] = patch.label
                patches.append(patch)
                break
    return tuple(patches)


def _places_of(
    tries: Float[np.ndarray, "M T 6"], *,
    matrix: Float[np.ndarray, "2 3"], crop_px: tuple[int, int], mask: MaskArray, allowed: Bool[np.ndarray, " 256"],
) -> tuple[Float[np.ndarray, "M T 2"], Bool[np.ndarray, "M T"]]:  # fmt: skip
    """Row and column in the image of places in the crop, and which lie in the image and on an allowed class.

    Most tries end here, before anything is cut out.
    """
    in_crop = tries[:, :, 4:] * crop_px[::-1] - 0.5
    places = (in_crop @ matrix[:, :2].T + matrix[:, 2])[:, :, ::-1]
    nearest = np.rint(places).astype(np.int64)
    inside = ((nearest >= 0) & (nearest < mask.shape)).all(axis=2)
    right = inside.copy()
    right[inside] = allowed[mask[tuple(nearest[inside].T)]]
    return places, right


def _fitted(
    policy: MixPolicy, found: Cutout, unit: Sequence[float], *,
    place: tuple[float, float], mask: MaskArray, allowed: Bool[np.ndarray, " 256"],
) -> Patch | None:  # fmt: skip
    """The object, scaled and mirrored, around a place; None where it does not fit there."""
    row, column = place
    low, high = np.log(policy.paste_scale)
    factor = float(np.exp(low + unit[2] * (high - low)))
    mirrored = policy.paste_flip and unit[3] < 0.5
    height, width = (max(1, round(side * factor)) for side in found.shape.shape)
    if height > mask.shape[0] or width > mask.shape[1]:
        return None
    top_cut, left_cut, bottom_cut, right_cut = found.cut_off
    if mirrored:
        left_cut, right_cut = right_cut, left_cut
    top = _start(row, length=height, side=mask.shape[0], at_start=top_cut, at_end=bottom_cut)
    left = _start(column, length=width, side=mask.shape[1], at_start=left_cut, at_end=right_cut)
    if not (top - 0.5 <= row <= top + height and left - 0.5 <= column <= left + width):
        return None  # cut off at a border that is far from here
    weight = _resized(found.shape.astype(np.float32), height=height, width=width)
    weight = np.ascontiguousarray(weight[:, ::-1]) if mirrored else weight
    shape = weight >= 0.5
    covered = allowed[mask[top : top + height, left : left + width][shape]]
    if covered.size < LEAST_OBJECT_PX or np.count_nonzero(covered) < ON_PLACE * covered.size:
        return None
    pixels = _resized(found.image.astype(np.float32) * found.shape[:, :, None], height=height, width=width)
    pixels = pixels[:, ::-1] if mirrored else pixels
    # Only pixels of the object make up its colours: what lay around it stays where it was.
    pixels = pixels / np.maximum(weight, 0.5)[:, :, None]
    cut_off = (top_cut, left_cut, bottom_cut, right_cut)
    return Patch(top, left, pixels, feathered(shape, feather_px=policy.paste_feather_px, cut_off=cut_off), found.label)


def _start(middle: float, *, length: int, side: int, at_start: bool, at_end: bool) -> int:
    """First row or column of an object: about its middle, within the image; where it is cut off, at that border."""
    if at_start:
        return 0
    return side - length if at_end else min(max(round(middle - (length - 1) / 2), 0), side - length)


def _resized(array: np.ndarray, *, height: int, width: int) -> np.ndarray:
    if array.shape[:2] == (height, width):
        return array
    resized = cv2.resize(array, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized.reshape(height, width, *array.shape[2:]))  # OpenCV drops a single channel


def feathered(
    shape: Bool[np.ndarray, "h w"], *, feather_px: float, cut_off: tuple[bool, bool, bool, bool]
) -> Float[np.ndarray, "h w"]:
    """How much of each pixel is the object's: less near its outline, but not where the image's border cuts it off."""
    share = shape.astype(np.float32)
    if feather_px == 0:
        return share
    top, left, bottom, right = cut_off
    around = np.zeros((shape.shape[0] + 2, shape.shape[1] + 2), dtype=np.uint8)
    around[1:-1, 1:-1] = shape
    for edge, outer, inner in ((top, 0, 1), (bottom, -1, -2)):
        around[outer] = around[inner] if edge else 0
    for edge, outer, inner in ((left, 0, 1), (right, -1, -2)):
        around[:, outer] = around[:, inner] if edge else 0
    distance = cv2.distanceTransform(around, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    return np.asarray(np.minimum(distance / np.float32(1 + feather_px), 1) * share)


def lay_on_cpu(image: Shaped[np.ndarray, "H W C"], patches: Sequence[Patch]) -> None:
    """Lay objects into an image, in place, one after the other; its mask has them since they were placed."""
    for patch in patches:
        region = image[patch.box]
        blended = region + patch.share[:, :, None] * (patch.pixels - region)
        if image.dtype.kind != "f":
            blended = np.rint(blended)
        np.copyto(region, blended.astype(image.dtype), where=patch.share[:, :, None] > 0)


def lay_on_device(image: Shaped[Tensor, "C H W"], mask: Shaped[Tensor, "H W"], patches: Sequence[Patch]) -> None:
    """Lay objects into an image and its mask in torch, where they lie; the same result."""
    for patch in patches:
        rows, columns = patch.box
        region = image[:, rows, columns]
        packed = np.concatenate([patch.pixels, patch.share[:, :, None]], axis=2, dtype=np.float32).transpose(2, 0, 1)
        on_device = torch.from_numpy(np.ascontiguousarray(packed)).to(image.device, non_blocking=True)
        pixels, share = on_device[:-1], on_device[-1]
        blended = torch.lerp(region.to(torch.float32), pixels, share)
        if not image.dtype.is_floating_point:
            blended = blended.round()
        region.copy_(torch.where(share > 0, blended.to(image.dtype), region))
        mask[rows, columns].masked_fill_(share > 0, patch.label)
