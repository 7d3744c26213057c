"""The two branches of a model that is made of two: whole models with their own normalisation and padding.

Each is described by a name of `MODELS`, or by a mapping with `name`, `encoder`, `arguments`, and where it comes from a
bundle also `mean`, `std`, `scale` and `never_predict`. So a branch keeps the normalisation that it was trained with;
one without is given images as the model around it has normalised them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

from torch import Tensor, nn

from segwright.errors import RecipeError, nearest
from segwright.models.segmenter import ModelSpec, SegmentationModel

Build = Callable[[ModelSpec], SegmentationModel]
BRANCH_NAMES = ("first", "second")

_KEYS = ("name", "encoder", "arguments", "mean", "std", "scale", "never_predict")
OF_THE_SAME_CLASSES = ("first", "second", "members", "base", "segmenter")
"""Arguments whose models have the classes of the model around them."""


@final
class Branches(nn.Module):
    """Two models side by side: (N, C, H, W) -> the main logits (N, K, H, W) of each.

    Args:
        first: of any size of images.
        second: of the same channels and classes.
    """

    def __init__(self, first: SegmentationModel, second: SegmentationModel) -> None:
        super().__init__()
        self.first = first
        self.second = second

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return main_of(self.first(x)), main_of(self.second(x))


def main_of(answer: Tensor | tuple[Tensor, ...]) -> Tensor:
    """The main logits of a branch, which may have several heads while it trains."""
    return answer[0] if isinstance(answer, tuple) else answer


def build_branches(spec: ModelSpec, *, first: object, second: object, build: Build) -> Branches:
    """Both models with fresh weights.

    Args:
        spec: of the model around them: channels and classes.
        first: what one is; see the file's head.
        second: what the other is.
        build: makes a model.

    Raises:
        RecipeError: a branch is no model.
    """
    return Branches(
        *(build(member_spec(tree, spec, key=key)) for key, tree in zip(BRANCH_NAMES, (first, second), strict=True))
    )


def branch_arguments(first: SegmentationModel, second: SegmentationModel) -> dict[str, Any]:
    """`first` and `second` of a model that is made of two trained ones, as plain values.

    The model around them divides by the scale of the first, and normalises no further (mean 0, deviation 1).

    Raises:
        RecipeError: they differ in channels or classes.
    """
    return dict(zip(BRANCH_NAMES, member_arguments([first, second]), strict=True))


def member_arguments(models: Sequence[SegmentationModel]) -> list[dict[str, Any]]:
    """Trained models as arguments of the one that is made of them; see `branch_arguments`.

    Raises:
        RecipeError: they differ in channels or classes.
    """
    one = models[0].spec
    for other in (model.spec for model in models[1:]):
        if (one.in_channels, one.num_classes) != (other.in_channels, other.num_classes):
            problem = (
                f"a model of {one.in_channels} channels and {one.num_classes} classes beside one of "
                f"{other.in_channels} and {other.num_classes}"
            )
            raise RecipeError(problem, mend="take models that were trained on the same kind of images and classes")
    trees = []
    for spec in (model.spec for model in models):
        tree = {name: value for name, value in spec.as_dict().items() if name in _KEYS}
        # As JSON has it, so that what is read back is equal.
        trees.append(json.loads(json.dumps({**tree, "scale": spec.scale / one.scale})))
    return trees


def with_never_predict(arguments: Mapping[str, Any], labels: Sequence[int]) -> dict[str, Any]:
    """Arguments of a model that is made of trained ones, told anew what these must not answer.

    Rules belong to the classes of a recipe: under another recipe those that a bundle brought along say nothing, and may
    name labels that there are no more.

    Args:
        arguments: of the model around them.
        labels: that are never predicted now.
    """
    return {key: _told_anew(value, labels) if key in OF_THE_SAME_CLASSES else value for key, value in arguments.items()}


def _told_anew(tree: Any, labels: Sequence[int]) -> Any:
    if isinstance(tree, list | tuple):
        return [_told_anew(one, labels) for one in tree]
    if not isinstance(tree, Mapping):
        return tree
    changed = dict(tree)
    if "never_predict" in tree:
        changed["never_predict"] = list(labels)
    if isinstance(tree.get("arguments"), Mapping):
        changed["arguments"] = with_never_predict(tree["arguments"], labels)
    return changed


def branches_of(model: SegmentationModel) -> tuple[SegmentationModel, SegmentationModel] | None:
    """The two models that a model is made of; None for any other."""
    return (model.encoder.first, model.encoder.second) if isinstance(model.encoder, Branches) else None


def member_spec(tree: object, outer: ModelSpec, *, key: str, num_classes: int | None = None) -> ModelSpec:
    """The spec of a model within another.

    Args:
        tree: a name of `MODELS`, or a mapping; see the file's head.
        outer: of the model around it.
        key: what it is called there.
        num_classes: where it has other classes than the model around it.

    Raises:
        RecipeError: it is no model.
    """
    if isinstance(tree, str):
        tree = {"name": tree}
    if not isinstance(tree, Mapping) or not isinstance(tree.get("name"), str):
        problem = f"{outer.name}: {key} {tree!r} is no model"
        raise RecipeError(problem, mend=f"name a model, or give {key}: {{name: ..., encoder: ..., arguments: ...}}")
    if unknown := [name for name in tree if name not in _KEYS]:
        raise RecipeError(f"{outer.name}: {key} has no key '{unknown[0]}'", mend=nearest(str(unknown[0]), _KEYS))
    try:
        return ModelSpec(
            name=tree["name"],
            in_channels=outer.in_channels,
            num_classes=outer.num_classes if num_classes is None else num_classes,
            encoder=tree.get("encoder"),
            arguments=dict(tree.get("arguments") or {}),
            mean=tuple(tree.get("mean") or (0.0,)),
            std=tuple(tree.get("std") or (1.0,)),
            scale=float(tree.get("scale") or 1.0),
            never_predict=tuple(tree.get("never_predict") or ()),
        )
    except (TypeError, ValueError) as error:
        mend = "use lists of numbers, and a mapping of arguments"
        raise RecipeError(f"{outer.name}: {key} has a value of another kind ({error})", mend=mend) from None
