"""Average what a model says of an image over its mirrored and turned copies (test-time augmentation).

    p(x) = mean over g of  g^-1 softmax(f(g x))

g runs over a group of symmetries of the pixel grid, so no pixel is resampled, and the average is equivariant: turning
the image by one of the group turns the answer alike, whatever the network f. Averaging over the horizontal flip is
that of Simonyan & Zisserman 2015 (https://arxiv.org/abs/1409.1556); Cohen & Welling 2016
(https://arxiv.org/abs/1602.07576) name the groups.

    none        the image as it is         1 pass through the network
    horizontal  left and right swapped     2
    both        and upside down            4
    all         and quarter turns          8: the symmetries of a square, of images of any shape

The average is given as its logarithm, whose softmax it is, so that what follows need not know. It is formed of
logarithms too: a class that is never predicted keeps no probability, and a network that has the symmetry already
answers as without. Nothing is gained where the pictures have no such symmetry (skies are above), and classes that tell
left from right must not be mirrored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from segwright.errors import RecipeError, nearest
from segwright.prediction.labelling import LogitsOf
from segwright.tensors import Images, Logits

Flips = Literal["none", "horizontal", "both", "all"]


@dataclass(frozen=True)
class Symmetry:
    """A mirror image, then quarter turns.

    Attributes:
        mirrored: whether left and right are swapped.
        turns: counter-clockwise quarter turns after that.
    """

    mirrored: bool
    turns: int

    def of(self, images: Images) -> Shaped[Tensor, "N C _ _"]:
        """Images so mirrored and turned; after an odd number of turns they are (N, C, W, H)."""
        return torch.rot90(images.flip(3) if self.mirrored else images, self.turns, (2, 3))

    def undone(self, logits: Logits) -> Float[Tensor, "N K _ _"]:
        """What was said of such images, on the pixels of the upright ones."""
        upright = torch.rot90(logits, -self.turns, (2, 3))
        return upright.flip(3) if self.mirrored else upright


SYMMETRIES: dict[str, tuple[Symmetry, ...]] = {
    "none": (Symmetry(False, 0),),
    "horizontal": (Symmetry(False, 0), Symmetry(True, 0)),
    "both": tuple(Symmetry(mirrored, turns) for mirrored in (False, True) for turns in (0, 2)),
    "all": tuple(Symmetry(mirrored, turns) for mirrored in (False, True) for turns in range(4)),
}


def symmetries_of(flips: str) -> tuple[Symmetry, ...]:
    """What an answer is averaged over; the image as it is comes first.

    Raises:
        RecipeError: there is no such name.
    """
    if flips not in SYMMETRIES:
        raise RecipeError(f"there are no flips '{flips}'", mend=nearest(flips, SYMMETRIES))
    return SYMMETRIES[flips]


def averaged(logits_of: LogitsOf, images: Images, *, over: tuple[Symmetry, ...]) -> Logits:
    """The logarithm of the mean of the probabilities, in float32; without flips what the model says itself.

    Of a large image, each tile is averaged by itself: every copy then sees the same window around a pixel, and no more
    is held than one batch. Turning the image as a whole would need the probabilities of all its pixels at once. Where
    strides do not divide the sides, the grid of a mirrored tile lies elsewhere than that of the mirrored image.

    Args:
        logits_of: the model; takes images of any size.
        images: as the model takes them.
        over: see `symmetries_of`.
    """
    if over == SYMMETRIES["none"]:
        return logits_of(images)
    total: Tensor | None = None
    for symmetry in over:
        one = symmetry.undone(logits_of(symmetry.of(images))).float().log_softmax(1)
        total = one if total is None else torch.logaddexp(total, one)
    assert total is not None, "there is at least one copy"
    return total - math.log(len(over))
