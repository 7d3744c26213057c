"""Deal images to sides so that every side gets its share of every class.

Iterative stratification after Sechidis, Tsoumakas and Vlahavas, "On the stratification of multi-label data", 2011
(https://doi.org/10.1007/978-3-642-23808-6_10): the rarest class that is still undealt goes first, each time to the side
that lacks most of it. What is dealt is a unit: one image, or all images of one group.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from segwright.errors import SplitError


def units_of(groups: Sequence[str | None], *, count: int) -> Int[np.ndarray, " N"]:
    """The unit 0..U-1 of each image; an image without a group is a unit of its own."""
    seen: dict[str | tuple[int], int] = {}
    return np.array(
        [
            seen.setdefault((i,) if group is None else group, len(seen))
            for i, group in zip(range(count), groups, strict=True)
        ],
        dtype=np.int64,
    )


def deal(
    units: Int[np.ndarray, " N"],
    shares: Sequence[float],
    *,
    presence: Bool[np.ndarray, "N K"] | None,
    rng: np.random.Generator,
) -> Int[np.ndarray, " N"]:
    """The side 0..S-1 of each image.

    Args:
        units: the unit of each image; a unit is never divided.
        shares: of the sides, all above 0; they are scaled to sum to 1.
        presence: which classes each image holds; None deals by size alone.
        rng: breaks ties and orders what is equal.

    Raises:
        SplitError: there are fewer units than sides.
    """
    count = int(units.max(initial=-1)) + 1
    if count < len(shares):
        raise SplitError(
            f"{count} image(s) or group(s) cannot fill {len(shares)} sides",
            mend="add images, or ask for fewer sides or folds",
        )
    sizes = np.bincount(units, minlength=count)
    labels = np.zeros((count, 0 if presence is None else presence.shape[1]), dtype=np.int64)
    if presence is not None:
        np.add.at(labels, units, presence.astype(np.int64))
    part = np.asarray(shares, dtype=np.float64) / np.sum(shares)
    sides = _deal_units(sizes, labels, part, rng)
    return np.asarray(_none_empty(sides, sizes, part)[units])


def _deal_units(
    sizes: Int[np.ndarray, " U"],
    labels: Int[np.ndarray, "U K"],
    part: Float[np.ndarray, " S"],
    rng: np.random.Generator,
) -> Int[np.ndarray, " U"]:
    wanted = part * sizes.sum()
    wanted_labels = part[:, None] * labels.sum(axis=0)
    sides = np.full(len(sizes), -1, dtype=np.int64)
    # Large units first, so that small ones can even out the rest.
    order = rng.permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    left = labels.sum(axis=0)
    while True:
        rarest = int(np.argmin(np.where(left > 0, left, np.iinfo(np.int64).max))) if left.any() else None
        undealt = order[sides[order] < 0]
        chosen = undealt if rarest is None else undealt[labels[undealt, rarest] > 0]
        for unit in chosen:
            side = _neediest(wanted if rarest is None else wanted_labels[:, rarest], wanted, rng)
            sides[unit] = side
            wanted[side] -= sizes[unit]
            wanted_labels[side] -= labels[unit]
            left -= labels[unit]
        if rarest is None:
            return sides


def _neediest(first: Float[np.ndarray, " S"], second: Float[np.ndarray, " S"], rng: np.random.Generator) -> int:
    best = np.flatnonzero(first >= first.max() - 1e-9)
    if len(best) > 1:
        best = best[second[best] >= second[best].max() - 1e-9]
    return int(best[0] if len(best) == 1 else rng.choice(best))


def _none_empty(
    sides: Int[np.ndarray, " U"], sizes: Int[np.ndarray, " U"], part: Float[np.ndarray, " S"]
) -> Int[np.ndarray, " U"]:
    """Give every empty side the smallest unit of the side that has most to spare."""
    for side in range(len(part)):
        if (sides == side).any():
            continue
        several = np.flatnonzero(np.bincount(sides, minlength=len(part)) > 1)
        held = np.bincount(sides, weights=sizes, minlength=len(part))
        giver = several[np.argmax(held[several] - part[several] * sizes.sum())]
        own = np.flatnonzero(sides == giver)
        sides[own[np.argmin(sizes[own])]] = side
    return sides
