"""The nouns that every room shares, and the letters of their shapes.

    N images   C channels   K classes   H, W rows and columns in pixels   L tokens   D embedding width

An `image` is (C, H, W), `images` (N, C, H, W); uint8 as a rule, uint16 and float32 bands are kept as they are. A `mask`
is (H, W), `masks` (N, H, W), with labels 0..K-1 or `IGNORE_INDEX`. `logits` and `probs` are (N, K, H, W) floats,
`pred` is (N, H, W). `confusion[i, j]` counts the pixels of true class i that were predicted as j.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args
from unicodedata import category

import numpy as np
from jaxtyping import Int, Shaped, UInt8

from segwright.errors import RecipeError, nearest

IGNORE_INDEX = 255
"""Pixels with this label count nowhere: not in a loss, not in a score."""

_UNSHOWN = {"Cc", "Cs", "Zl", "Zp"}
"""Kinds of Unicode that no name of a class may hold: controls, halves of pairs, ends of lines."""

SplitName = Literal["train", "val", "test"]
SPLIT_NAMES: tuple[SplitName, ...] = get_args(SplitName)

ImageArray = Shaped[np.ndarray, "C H W"]
MaskArray = UInt8[np.ndarray, "H W"]
ConfusionArray = Int[np.ndarray, "*N K K"]


@dataclass(frozen=True)
class ClassSet:
    """The classes of a task and what is done with each, by index 0..K-1.

    Attributes:
        names: one name a class, all different, on one line each; commas and HTML do no harm.
        colors: one (red, green, blue) a class, 0..255.
        ignore_in_loss: true pixels of these classes do not enter the loss.
        ignore_in_score: true pixels of these classes are dropped before scoring, and the classes leave the mean.
        leave_out_of_mean: these classes leave the mean only; their pixels are still false positives of others.
        never_predict: the model's logits of these classes are set to minus infinity.
    """

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    ignore_in_loss: tuple[int, ...] = ()
    ignore_in_score: tuple[int, ...] = ()
    leave_out_of_mean: tuple[int, ...] = ()
    never_predict: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.names)) != len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise RecipeError(f"class name '{twice}' stands twice", mend="give every class its own name")
        odd = next((name for name in self.names if not name.strip() or set(map(category, name)) & _UNSHOWN), None)
        if odd is not None:
            raise RecipeError(f"class name {odd!r} cannot be shown", mend="use letters, digits, blanks and signs")
        if not 1 <= len(self.names) <= IGNORE_INDEX:
            raise RecipeError(f"{len(self.names)} classes", mend=f"use 1 to {IGNORE_INDEX} classes")
        if len(self.colors) != len(self.names):
            raise RecipeError(
                f"{len(self.colors)} colours for {len(self.names)} classes", mend="give one colour a class"
            )

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> ClassSet:
        """Classes as bundles and scores keep them.

        Raises:
            KeyError, TypeError, ValueError: the tree is damaged.
            RecipeError: it describes no classes.
        """
        rules = ("ignore_in_loss", "ignore_in_score", "leave_out_of_mean", "never_predict")
        return cls(
            names=tuple(str(name) for name in tree["names"]),
            colors=tuple((int(red), int(green), int(blue)) for red, green, blue in tree["colors"]),
            **{rule: tuple(int(label) for label in tree[rule]) for rule in rules},
        )

    @property
    def num_classes(self) -> int:
        return len(self.names)

    @property
    def scored(self) -> tuple[int, ...]:
        """Classes that enter the mean."""
        out = {*self.ignore_in_score, *self.leave_out_of_mean}
        return tuple(k for k in range(self.num_classes) if k not in out)

    def index(self, name: str) -> int:
        """The label of a class.

        Raises:
            RecipeError: there is no class of that name.
        """
        if name not in self.names:
            raise RecipeError(f"there is no class '{name}'", mend=nearest(name, self.names))
        return self.names.index(name)

    def palette(self) -> UInt8[np.ndarray, "K 3"]:
        return np.array(self.colors, dtype=np.uint8).reshape(-1, 3)


@dataclass(frozen=True)
class Head:
    """One of the answers that a network gives while it trains, and what it is taught.

    Attributes:
        name: the main one's is `main`.
        labels: the head's own label of each class 0..K-1; `IGNORE_INDEX` leaves its pixels out. Empty: the classes.
        num_classes: of the head; 0: K.
        whole: the head says of a whole image, (N, 2, 1, 1), whether it is all of this class.
        whole_share: share of an image's valid pixels beyond which it is.
        on_demand: taught only where `loss.heads` names it.
    """

    name: str
    labels: tuple[int, ...] = ()
    num_classes: int = 0
    whole: int | None = None
    whole_share: float = 0.9
    on_demand: bool = False

    @property
    def of_classes(self) -> bool:
        """Whether it is taught the K classes as they stand in a mask."""
        return not self.labels and self.whole is None


@dataclass(frozen=True)
class Sample:
    """One image of a source, with or without a mask; a reference, not the pixels.

    Attributes:
        id: unique in its source: a relative path without its ending, or an array index.
        image: file of the image, relative to the source's root, or the array's key.
        mask: the same for the mask; None where the image is unlabelled.
        row: index along the first axis where `image` names an array.
        split: the side that the source itself puts it on.
        group: images of one group (a frame, a patient, a flight) never stand on two sides of a split.
    """

    id: str
    image: str
    mask: str | None
    row: int | None = None
    split: SplitName | None = None
    group: str | None = None
