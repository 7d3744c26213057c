"""Losses by name, and weighted sums of them such as `dice + 2*ce`.

Every loss is a function of the batch's soft counts (`counts.py`), so a sum of several costs one softmax.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from segwright.errors import RecipeError, nearest
from segwright.losses.counts import SoftCounts, soft_counts
from segwright.losses.pixel import cross_entropy
from segwright.losses.region import dice, jaccard
from segwright.types import Logits, Masks


@dataclass(frozen=True)
class LossEntry:
    """A row of the table.

    Attributes:
        of: the loss as a function of the soft counts.
        line: what it is, in one line.
        paper: link to where it comes from.
        region: whether it reads `overlap` and `mass`.
    """

    of: Callable[[SoftCounts], Tensor]
    line: str
    paper: str
    region: bool


LOSSES: dict[str, LossEntry] = {
    "ce": LossEntry(
        cross_entropy,
        line="cross-entropy: every pixel alone, class weights apply",
        paper="https://arxiv.org/abs/1411.4038",
        region=False,
    ),
    "dice": LossEntry(
        dice,
        line="soft Dice: overlap by class, all classes count alike",
        paper="https://arxiv.org/abs/1606.04797",
        region=True,
    ),
    "jaccard": LossEntry(
        jaccard,
        line="soft intersection over union: overlap by class, nearest to mIoU",
        paper="https://doi.org/10.1007/978-3-319-50835-1_22",
        region=True,
    ),
}

_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"
_TERM = re.compile(rf"(?:(?P<factor>{_NUMBER})\s*\*\s*)?(?P<name>[a-z_][a-z0-9_]*)", re.IGNORECASE)


class WeightedLoss(nn.Module):
    """A weighted sum of losses; build it with `build_loss`.

    Attributes:
        terms: (factor, name) of each loss in the sum.
    """

    weight: Tensor
    kept: Tensor

    def __init__(
        self, terms: Sequence[tuple[float, str]], *, weight: Tensor, kept: Tensor, label_smoothing: float
    ) -> None:
        super().__init__()
        self.terms = tuple(terms)
        self.label_smoothing = label_smoothing
        self._region = any(LOSSES[name].region for _, name in terms)
        # Not part of a checkpoint: the recipe brings them back.
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("kept", kept, persistent=False)

    def forward(self, logits: Logits, masks: Masks) -> Tensor:
        """The loss of a batch, a float32 scalar; 0 with zero gradients where no pixel is valid.

        Args:
            logits: (N, K, H, W), any float type.
            masks: (N, H, W) labels 0..K-1 or 255.

        Raises:
            MaskError: a label is no class (seen on the CPU only), or the sizes differ.
        """
        with torch.autocast(logits.device.type, enabled=False):
            counts = soft_counts(
                logits,
                masks,
                kept=self.kept,
                weight=self.weight,
                label_smoothing=self.label_smoothing,
                region=self._region,
            )
            total = torch.stack([factor * LOSSES[name].of(counts) for factor, name in self.terms]).sum()
        return total.float()

    def extra_repr(self) -> str:
        return " + ".join(f"{factor:g}*{name}" for factor, name in self.terms)


def build_loss(
    formula: str,
    *,
    num_classes: int,
    class_weights: Sequence[float] | None = None,
    ignore_in_loss: Sequence[int] = (),
    label_smoothing: float = 0.0,
) -> WeightedLoss:
    """Read a formula and make it a module.

    Args:
        formula: terms joined by '+', each a name of `LOSSES` with an optional factor before it: `dice + 2*ce`.
        num_classes: K.
        class_weights: K numbers for cross-entropy, at least 0; none: all 1. Region losses weigh classes alike and do
            not read them.
        ignore_in_loss: true pixels of these classes count nowhere.
        label_smoothing: 0 to below 1, for cross-entropy.

    Raises:
        RecipeError: the formula cannot be read, names an unknown loss, or a value is out of range.
    """
    terms = parse_formula(formula)
    if num_classes < 1:
        raise RecipeError(f"{num_classes} classes", mend="use at least one class")
    if not 0 <= label_smoothing < 1:
        raise RecipeError(f"label_smoothing {label_smoothing} is out of range", mend="use a number from 0 to below 1")
    kept = torch.ones(num_classes, dtype=torch.bool)
    for label in ignore_in_loss:
        if not 0 <= label < num_classes:
            problem = f"ignore_in_loss names label {label} of {num_classes} classes"
            raise RecipeError(problem, mend=f"use labels 0 to {num_classes - 1}")
        kept[label] = False
    if not kept.any():
        raise RecipeError("every class is ignored in the loss", mend="leave at least one class in")
    weight = _weight_of(class_weights, num_classes)
    return WeightedLoss(terms, weight=weight, kept=kept, label_smoothing=label_smoothing)


def parse_formula(formula: str) -> list[tuple[float, str]]:
    """The (factor, name) terms of a formula.

    >>> parse_formula("dice + 2*ce")
    [(1.0, 'dice'), (2.0, 'ce')]

    Raises:
        RecipeError: a term cannot be read, a name is unknown, or a factor is not above 0.
    """
    terms = []
    # A '+' that belongs to an exponent, as in 1e+2, parts no terms.
    for text in re.split(r"(?<![\d.]e)\+", formula, flags=re.IGNORECASE):
        match = _TERM.fullmatch(text.strip())
        if match is None:
            problem = f"loss formula '{formula}': cannot read '{text.strip()}'"
            raise RecipeError(problem, mend="write it like 'dice + 2*ce'")
        name, factor = match["name"].lower(), float(match["factor"] or 1)
        if name not in LOSSES:
            raise RecipeError(f"there is no loss '{name}'", mend=nearest(name, LOSSES))
        if not 0 < factor < math.inf:
            problem = f"loss formula '{formula}': factor {factor:g} of '{name}'"
            raise RecipeError(problem, mend="use a factor above 0, or leave the term out")
        terms.append((factor, name))
    return terms


def _weight_of(class_weights: Sequence[float] | None, num_classes: int) -> Tensor:
    if class_weights is None:
        return torch.ones(num_classes)
    weights = [float(weight) for weight in class_weights]
    if len(weights) != num_classes:
        raise RecipeError(f"{len(weights)} class weights for {num_classes} classes", mend="give one weight a class")
    bad = [weight for weight in weights if not 0 <= weight < math.inf]
    if bad or not any(weights):
        shown = f"{bad[0]:g}" if bad else "0 for every class"
        raise RecipeError(f"class weight {shown}", mend="use finite weights of at least 0, one of them above 0")
    return torch.tensor(weights)
