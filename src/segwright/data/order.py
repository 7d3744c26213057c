"""The order in which training images are drawn: passes that follow one another without a gap, so every batch is full.

A pass is a random permutation; with weights it is a systematic resampling (Kitagawa 1996,
https://doi.org/10.1080/10618600.1996.10474692), in which each image is drawn its expected number of times, rounded up
or down. Both are functions of the seed and the number of the pass alone.
"""

from __future__ import annotations

from typing import final

import numpy as np
from jaxtyping import Float, Int

from segwright.errors import DataError

_ORDER = 0


@final
class Order:
    """Which of `count` images come when.

    Args:
        count: how many images there are.
        weights: relative chance of each to be drawn; None draws each once a pass.
        seed: decides the order.

    Raises:
        DataError: the weights do not fit.
    """

    def __init__(self, count: int, *, weights: Float[np.ndarray, " M"] | None, seed: int) -> None:
        self._count, self._seed = count, seed
        self._shares = None if weights is None else _checked(weights, count=count)
        self._drawn: tuple[int, np.ndarray] | None = None

    def places(self, first: int, *, count: int) -> Int[np.ndarray, " N"]:
        """The images from place `first` of the endless stream on."""
        stream = range(first, first + count)
        return np.array([self._pass(place // self._count)[place % self._count] for place in stream], dtype=np.int64)

    def _pass(self, number: int) -> Int[np.ndarray, " M"]:
        """The order of one pass over the images."""
        if self._drawn is None or self._drawn[0] != number:
            rng = np.random.default_rng([self._seed, _ORDER, number])
            order = rng.permutation(self._count)
            self._drawn = (number, order if self._shares is None else _systematic(self._shares, order, rng))
        return self._drawn[1]


def _systematic(
    shares: Float[np.ndarray, " M"], order: Int[np.ndarray, " M"], rng: np.random.Generator
) -> Int[np.ndarray, " M"]:
    """Systematic resampling: each image is drawn its expected number of times, rounded up or down, in random order."""
    count = len(shares)
    edges = np.cumsum(shares[order])
    ticks = (np.arange(count) + rng.random()) / count * edges[-1]
    drawn = order[np.minimum(np.searchsorted(edges, ticks, side="right"), count - 1)]
    return np.asarray(rng.permutation(drawn))


def _checked(weights: np.ndarray, *, count: int) -> Float[np.ndarray, " M"]:
    shares = np.asarray(weights, dtype=np.float64)
    if shares.shape != (count,) or not np.isfinite(shares).all() or shares.min() < 0 or shares.sum() <= 0:
        raise DataError(
            "the weights of the images do not fit them", mend="give one number >= 0 for each image, not all 0"
        )
    return shares
