"""Losses by name, and weighted sums of them such as `dice + 2*ce` (see `formula.py`).

Most losses are functions of the batch's soft counts (`counts.py`), so a sum of several costs one softmax and one pass.
Class weights and left-out classes apply to every one of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from segwright.errors import RecipeError
from segwright.losses.boundary import boundary, gradient_magnitude
from segwright.losses.comparison import Comparison
from segwright.losses.counts import Total, Wanted, labels_of
from segwright.losses.formula import Term, Value, arguments_of
from segwright.losses.formula import parse_formula as parse
from segwright.losses.pixel import boundary_cross_entropy, cross_entropy, focal
from segwright.losses.region import dice, focal_tversky, jaccard, lovasz, tversky
from segwright.tensors import Logits, Masks

Family = Literal["pixel", "region", "boundary"]
WeightedIn = Literal["pixel", "all"]

HEAD_SHARE = 0.5
"""With deep supervision each further head counts this share of the one before it."""


@dataclass(frozen=True)
class LossEntry:
    """A row of the table.

    Attributes:
        of: the loss as a function of a comparison; its keyword arguments are what a formula may tell it.
        line: what it is, in one line.
        paper: link to where it comes from.
        family: `pixel` losses weigh every pixel alone, `region` losses overlaps, `boundary` losses outlines.
    """

    of: Callable[..., Tensor]
    line: str
    paper: str
    family: Family


LOSSES: dict[str, LossEntry] = {
    "ce": LossEntry(
        cross_entropy, "cross-entropy: every pixel alone", "https://arxiv.org/abs/1411.4038", "pixel"
    ),
    "focal": LossEntry(
        focal, "cross-entropy that looks away from easy pixels", "https://arxiv.org/abs/1708.02002", "pixel"
    ),
    "boundary_ce": LossEntry(
        boundary_cross_entropy, "cross-entropy with more weight near borders", "https://arxiv.org/abs/1505.04597",
        "boundary",
    ),
    "dice": LossEntry(
        dice, "soft Dice: overlap by class, all classes count alike", "https://arxiv.org/abs/1606.04797", "region"
    ),
    "jaccard": LossEntry(
        jaccard, "soft intersection over union: nearest to mIoU", "https://doi.org/10.1007/978-3-319-50835-1_22",
        "region",
    ),
    "tversky": LossEntry(
        tversky, "Dice with a price of its own for false alarms and for misses", "https://arxiv.org/abs/1706.05721",
        "region",
    ),
    "focal_tversky": LossEntry(
        focal_tversky, "Tversky to a power: more weight on classes that are badly met",
        "https://arxiv.org/abs/1810.07842", "region",
    ),
    "lovasz": LossEntry(
        lovasz, "Lovász-softmax: a convex stand-in for intersection over union", "https://arxiv.org/abs/1705.08790",
        "region",
    ),
    "boundary": LossEntry(
        boundary, "distance of predicted probability from the true region; add it to a region loss",
        "https://arxiv.org/abs/1812.07032", "boundary",
    ),
    "gradient": LossEntry(
        gradient_magnitude, "difference in steepness between prediction and truth", "https://arxiv.org/abs/1511.05440",
        "boundary",
    ),
}  # fmt: skip


class WeightedLoss(nn.Module):
    """A weighted sum of losses; build it with `build_loss`.

    Attributes:
        terms: the losses of the sum.
        progress: spent share of the budget, 0..1, which factors may follow; the training sets it.
    """

    weight: Tensor
    region_weight: Tensor
    kept: Tensor

    def __init__(
        self, terms: Sequence[Term], *, weight: Tensor, region_weight: Tensor, kept: Tensor, label_smoothing: float
    ) -> None:
        super().__init__()
        self.terms = tuple(terms)
        self.label_smoothing = label_smoothing
        self.progress = 0.0
        self._wanted = Wanted(
            pixel=any(term.name == "ce" for term in terms),
            smooth=label_smoothing > 0 and any(term.name == "ce" for term in terms),
            region=any(LOSSES[term.name].family == "region" and term.name != "lovasz" for term in terms),
            gammas=tuple(sorted({float(_told(term)["gamma"]) for term in terms if term.name == "focal"})),
        )
        edges = {(float(told["strength"]), float(told["reach_px"])) for told in
                 (_told(term) for term in terms if term.name == "boundary_ce")}  # fmt: skip
        if len(edges) > 1:
            raise RecipeError("loss 'boundary_ce' stands twice with other numbers", mend="keep one of the two")
        self._edges = next(iter(edges), None)
        # Not part of a checkpoint: the recipe brings them back.
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("region_weight", region_weight, persistent=False)
        self.register_buffer("kept", kept, persistent=False)

    def forward(self, logits: Logits | Sequence[Tensor], masks: Masks, *, total: Total | None = None) -> Tensor:
        """The loss of a batch, a float32 scalar; 0 with zero gradients where no pixel is valid.

        Args:
            logits: (N, K, H, W), any float type; or those of several heads, the main one first. Heads of another size
                are scaled to the mask's, and each counts `HEAD_SHARE` of the one before it.
            masks: (N, H, W) labels 0..K-1 or 255.
            total: where several processes have parts of the batch, adds up the counts of all of them: the loss is that
                of the whole batch, not a mean of the parts' losses.

        Raises:
            MaskError: a label is no class (seen on the CPU only), or the sizes differ.
        """
        if isinstance(logits, Tensor):
            return self._of(logits, masks, total=total).float()
        sized = [
            head if head.shape[2:] == masks.shape[1:]
            else nn.functional.interpolate(head, size=masks.shape[1:], mode="bilinear")
            for head in logits
        ]  # fmt: skip
        shares = [HEAD_SHARE**place for place in range(len(sized))]
        losses = [share * self._of(head, masks, total=total) for share, head in zip(shares, sized, strict=True)]
        return (torch.stack(losses).sum() / sum(shares)).float()

    def _of(self, logits: Logits, masks: Masks, *, total: Total | None) -> Tensor:
        with torch.autocast(logits.device.type, enabled=False):
            case = Comparison(
                logits,
                labels_of(masks, logits, kept=self.kept),
                kept=self.kept,
                weight=self.weight,
                region_weight=self.region_weight,
                label_smoothing=self.label_smoothing,
                wanted=self._wanted,
                edges=self._edges,
                total=total,
            )
            values = [term.factor(self.progress) * LOSSES[term.name].of(case, **term.arguments) for term in self.terms]
            return torch.stack(values).sum()

    def extra_repr(self) -> str:
        return " + ".join(map(str, self.terms))


def _told(term: Term) -> dict[str, Value]:
    return arguments_of(LOSSES[term.name].of) | dict(term.arguments)


def build_loss(
    formula: str,
    *,
    num_classes: int,
    class_weights: Sequence[float] | None = None,
    weighted_in: WeightedIn = "pixel",
    ignore_in_loss: Sequence[int] = (),
    label_smoothing: float = 0.0,
) -> WeightedLoss:
    """Read a formula and make it a module.

    Args:
        formula: terms joined by '+', each a name of `LOSSES` with an optional factor before it and arguments behind:
            `dice + 2*ce`, `tversky(alpha=0.3, beta=0.7) + ramp(0, 0.01)*boundary`.
        num_classes: K.
        class_weights: K numbers of at least 0; none: all 1.
        weighted_in: `pixel`: the weights count in losses that weigh pixels (ce, focal, boundary_ce), while region
            losses, which balance classes by themselves, weigh them alike. `all`: they count in every loss.
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
    region_weight = weight if weighted_in == "all" else torch.ones(num_classes)
    return WeightedLoss(terms, weight=weight, region_weight=region_weight, kept=kept, label_smoothing=label_smoothing)


def parse_formula(formula: str) -> tuple[Term, ...]:
    """The terms of a formula.

    >>> print(*parse_formula("dice + 2*ce"))
    1*dice 2*ce

    Raises:
        RecipeError: a term cannot be read, a name is unknown, or a number is out of range.
    """
    return parse(formula, losses={name: entry.of for name, entry in LOSSES.items()})


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
