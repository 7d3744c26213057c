"""Classes divided among several networks, each with an easier question, and merged by the rules of probability.

`two_step`: a first network tells each rare class from everything else, a second all the others from one another:

    p(rare r) = p1(r)        p(other k) = p1(rest) p2(k)

`one_per_class`: a network for each class tells it from all others; the odds of the K binary answers are compared,

    p(k) = o_k / sum_j o_j   with o_k = p_k / (1 - p_k)

one against the rest, as in Rifkin and Klautau 2004, https://www.jmlr.org/papers/v5/rifkin04a.html. Both schemes are
those of a course project that fought with a class of 0.13 % of the pixels. While it trains such a model answers with
the merged logits and those of every network (`types.Head`); `loss.heads` says which of them are taught.

Symbols: N images, C channels, K classes, R rare ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segwright.errors import RecipeError
from segwright.models.branches import Build, main_of, member_spec
from segwright.models.segmenter import InputSize, ModelEntry, ModelSpec, SegmentationModel
from segwright.types import IGNORE_INDEX, Head


@final
class TwoStep(nn.Module):
    """(N, C, H, W) -> log-probabilities (N, K, H, W); in training also the logits of both steps.

    Args:
        rare: gives 1 + R logits, 'none of them' first.
        rest: gives K - R logits, in the order of the labels.
        labels: the R rare labels.
        num_classes: K.
    """

    def __init__(
        self, rare: SegmentationModel, rest: SegmentationModel, *, labels: Sequence[int], num_classes: int
    ) -> None:
        super().__init__()
        self.rare = rare
        self.rest = rest
        others = [k for k in range(num_classes) if k not in labels]
        # Where each class stands among the R rare and then the K - R other answers.
        places = [labels.index(k) if k in labels else len(labels) + others.index(k) for k in range(num_classes)]
        self._places = tuple(places)
        first = tuple(labels.index(k) + 1 if k in labels else 0 for k in range(num_classes))
        second = tuple(IGNORE_INDEX if k in labels else others.index(k) for k in range(num_classes))
        self.heads = (
            Head("main"),
            Head("rare", labels=first, num_classes=1 + len(labels)),
            Head("rest", labels=second, num_classes=len(others)),
        )

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        rare, rest = main_of(self.rare(x)), main_of(self.rest(x))
        steps = F.log_softmax(rare.float(), dim=1)
        others = steps[:, :1] + F.log_softmax(rest.float(), dim=1)
        merged = torch.cat([steps[:, 1:], others], dim=1)[:, list(self._places)]
        return (merged, rare, rest) if self.training else merged


@final
class OnePerClass(nn.Module):
    """(N, C, H, W) -> log-odds (N, K, H, W); in training also the two logits of every network.

    Args:
        members: one a class, each with two classes: others, and its own.
    """

    def __init__(self, members: Sequence[SegmentationModel]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        count = len(members)
        self.heads = (
            Head("main"),
            *(Head(f"class {k}", labels=tuple(int(j == k) for j in range(count)), num_classes=2) for k in range(count)),
        )

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        pairs = [main_of(member(x)) for member in self.members]
        odds = torch.cat([pair[:, 1:] - pair[:, :1] for pair in pairs], dim=1)
        return (odds, *pairs) if self.training else odds


TWO_STEP_ARGUMENTS: dict[str, Any] = {"labels": (), "rare": "unet", "rest": "unet"}
ONE_PER_CLASS_ARGUMENTS: dict[str, Any] = {"member": {"name": "unet", "arguments": {"width": 16}}}


def class_wise_entries(build: Build) -> dict[str, ModelEntry]:
    """Both rows of the table.

    Args:
        build: makes a model.
    """

    def build_two_step(spec: ModelSpec) -> SegmentationModel:
        chosen = TWO_STEP_ARGUMENTS | spec.arguments
        labels = labels_of(spec, chosen["labels"])
        if not 0 < len(labels) < spec.num_classes:
            problem = f"{spec.name}: {len(labels)} rare of {spec.num_classes} classes"
            raise RecipeError(problem, mend="name one or more rare classes in model.arguments.labels, but not all")
        rare = build(member_spec(chosen["rare"], spec, key="rare", num_classes=1 + len(labels)))
        rest = build(member_spec(chosen["rest"], spec, key="rest", num_classes=spec.num_classes - len(labels)))
        net = TwoStep(rare, rest, labels=labels, num_classes=spec.num_classes)
        return SegmentationModel(spec, net, encoder=None, input_size=InputSize(1))

    def build_one_per_class(spec: ModelSpec) -> SegmentationModel:
        member = (ONE_PER_CLASS_ARGUMENTS | spec.arguments)["member"]
        one = member_spec(member, spec, key="member", num_classes=2)
        net = OnePerClass([build(one) for _ in range(spec.num_classes)])
        return SegmentationModel(spec, net, encoder=None, input_size=InputSize(1))

    return {
        "two_step": ModelEntry(
            build=build_two_step,
            paper="https://www.jmlr.org/papers/v5/rifkin04a.html",
            line="rare classes against the rest, then the rest: two models (arguments: labels, rare, rest)",
            arguments=TWO_STEP_ARGUMENTS,
            takes_encoder=False,
            label_arguments=("labels",),
        ),
        "one_per_class": ModelEntry(
            build=build_one_per_class,
            paper="https://www.jmlr.org/papers/v5/rifkin04a.html",
            line="a binary model for each class, merged by their odds (argument: member)",
            arguments=ONE_PER_CLASS_ARGUMENTS,
            takes_encoder=False,
        ),
    }


def labels_of(spec: ModelSpec, labels: object) -> tuple[int, ...]:
    """Labels from an argument.

    Raises:
        RecipeError: they are no labels of the model.
    """
    if not isinstance(labels, list | tuple) or any(
        not isinstance(k, int) or isinstance(k, bool) or not 0 <= k < spec.num_classes for k in labels
    ):
        mend = f"give a list of labels from 0 to {spec.num_classes - 1}, or in a recipe names of classes"
        raise RecipeError(f"{spec.name}: labels {labels!r}", mend=mend)
    return tuple(dict.fromkeys(labels))
