"""The loss that a recipe asks for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from segwright.errors import RecipeError
from segwright.losses import WeightedLoss, build_loss
from segwright.losses.heads import HeadsLoss
from segwright.recipe import LossRecipe
from segwright.training import preflight
from segwright.types import ClassSet, Head


def loss_of(
    asked: LossRecipe, *, classes: ClassSet, class_pixels: Int[np.ndarray, "N 256"], heads: Sequence[Head]
) -> WeightedLoss | HeadsLoss:
    """The loss of the classes, or that of every head of a network with several.

    Args:
        asked: the formula, its weights and what it leaves out.
        classes: of the run, with its rules.
        class_pixels: of each training image, from which weights are counted.
        heads: of the network; none of one with a single head.

    Raises:
        RecipeError: the formula or the weights cannot be had, or a head that is to be taught is not there.
    """

    def loss_of_one(head: Head) -> WeightedLoss:
        return build_loss(
            asked.formula,
            num_classes=classes.num_classes if head.of_classes else head.num_classes,
            class_weights=preflight.loss_weights(asked, classes=classes, class_pixels=class_pixels, head=head),
            weighted_in=asked.weighted_in,
            # Other heads never see the pixels of these classes.
            ignore_in_loss=classes.ignore_in_loss if head.of_classes else (),
            label_smoothing=asked.label_smoothing,
        )

    if not heads:
        if asked.heads:
            problem = f"loss.heads {', '.join(asked.heads)}: the model has one head alone"
            raise RecipeError(problem, mend="leave loss.heads out")
        return loss_of_one(Head("main"))
    return HeadsLoss(heads, [loss_of_one(head) for head in heads], taught=asked.heads, ignored=classes.ignore_in_loss)
