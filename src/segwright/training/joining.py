"""A model of two branches that starts from two trained ones: `model.branches: [RUN_OR_BUNDLE, RUN_OR_BUNDLE]`.

Each branch keeps the architecture and normalisation of its bundle, so the model around them normalises no further.
"""

from __future__ import annotations

from pathlib import Path

from segwright.bundle import load_bundle
from segwright.errors import RecipeError
from segwright.models import SegmentationModel
from segwright.models.branches import BRANCH_NAMES, branch_arguments, branches_of, with_never_predict
from segwright.models.weights import load_matching
from segwright.recipe import ModelRecipe, Recipe
from segwright.training.class_labels import with_names
from segwright.training.preparation import Prepared
from segwright.types import ClassSet

JOINABLE = ("dual", "uformer")


def with_branches(recipe: Recipe) -> Recipe:
    """The recipe with the architecture of its two branches written out.

    Args:
        recipe: with `model.branches`.

    Raises:
        RecipeError: the model has no branches, or the two do not fit together.
        RunError: one of them is no bundle.
    """
    asked = recipe.model
    assert asked.branches is not None, "asked only where there are some"
    if asked.name not in JOINABLE:
        problem = f"model.branches for model '{asked.name}'"
        raise RecipeError(problem, mend=f"set model.name to {' or '.join(JOINABLE)}")
    first, second = (str(Path(path).expanduser().resolve()) for path in asked.branches)
    given = [load_bundle(Path(path)) for path in (first, second)]
    joined = branch_arguments(given[0].model, given[1].model)
    # Each branch counts the classes that it was trained on.
    named = [
        with_names(asked.name, {key: joined[key]}, one.classes.names) for key, one in zip(joined, given, strict=True)
    ]
    own = {key: value for key, value in asked.arguments.items() if key not in BRANCH_NAMES}
    settled = {
        "branches": (first, second),
        "arguments": own | named[0] | named[1],
        "encoder": None,
        "weights": "none",
        "mean": (0.0,),
        "std": (1.0,),
    }
    return recipe.model_copy(update={"model": asked.model_copy(update=settled)})


def under_rules_of(classes: ClassSet, asked: ModelRecipe) -> ModelRecipe:
    """A model that is made of trained ones, which must not answer what the recipe's own classes leave out.

    Args:
        classes: of the run.
        asked: with arguments that were written down from bundles.
    """
    return asked.model_copy(update={"arguments": with_never_predict(asked.arguments, classes.never_predict)})


def load_branches(model: SegmentationModel, paths: tuple[str, str], *, images: Prepared) -> tuple[str, tuple[str, ...]]:
    """Take over the weights of both branches; heads of other classes stay fresh.

    Args:
        model: of two branches.
        paths: runs or bundles.
        images: of the run; their classes must be those of the branches, where there are as many.

    Returns:
        Where the weights come from, in words, and the licences of those weights.

    Raises:
        WeightsError: the weights do not fit.
        DataError: the classes have other names.
    """
    branches = branches_of(model)
    assert branches is not None, "with_branches has looked"
    fresh: list[str] = []
    licences: list[str] = []
    for key, path, branch in zip(BRANCH_NAMES, paths, branches, strict=True):
        given = load_bundle(Path(path))
        if given.classes.num_classes == images.classes.num_classes:
            images.source.require_classes(given.classes.names)
        fresh += [f"{key}.{name}" for name in load_matching(branch, given.model)]
        licences += given.info.get("licences") or []
    note = f"branches of {paths[0]} and {paths[1]}" + (f", but fresh {', '.join(fresh)}" if fresh else "")
    return note, tuple(dict.fromkeys(licences))
