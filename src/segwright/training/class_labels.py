"""Arguments of models that hold labels: names of classes in a recipe, numbers in a bundle.

The numbers count the classes that the bundle was trained on. Where its model starts another run they are turned into
names first, and read anew against the classes of that run, which may be others or stand in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from segwright.errors import RecipeError
from segwright.models import MODELS
from segwright.models.branches import OF_THE_SAME_CLASSES
from segwright.types import ClassSet


def with_labels(model: str, arguments: Mapping[str, Any], classes: ClassSet) -> dict[str, Any]:
    """Arguments with labels in place of names of classes, those of the models within it too.

    Args:
        model: a name of `MODELS`.
        arguments: as a recipe has them; numbers are taken as they are.
        classes: of the run.

    Raises:
        RecipeError: there is no class of a name.
    """

    def label(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return classes.index(value)
        except RecipeError as error:
            problem = f"{error.problem}, which model '{model}' sets apart (model.arguments)"
            # A model taken with --from brings its names along: they cannot be changed in the recipe.
            own = "a model that is trained further keeps its own names: call one of the classes so (classes.names)"
            mend = f"{error.mend.removesuffix('.')}; {own}, or start from a model of these classes"
            raise RecipeError(problem, mend=mend) from None

    return _changed(model, arguments, label)


def with_names(model: str, arguments: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Arguments with names of classes in place of labels, those of the models within it too.

    A label that is an argument's usual value is written out where the model sets classes apart: among other classes it
    would be another one.

    Args:
        model: a name of `MODELS`.
        arguments: of a trained model.
        names: of the classes that it was trained on, in label order.
    """

    def named(value: Any) -> Any:
        return names[value] if isinstance(value, int) else value

    return _changed(model, arguments, named, usual=True)


def _changed(
    model: str, arguments: Mapping[str, Any], change: Callable[[Any], Any], *, usual: bool = False
) -> dict[str, Any]:
    """Arguments of which each label is changed; `usual` adds those at their usual value, where others are given."""

    def within(part: Any) -> Any:
        if isinstance(part, list | tuple):
            return [within(one) for one in part]
        if isinstance(part, Mapping) and isinstance(part.get("name"), str):
            own = part.get("arguments") or {}
            changed = _changed(part["name"], own, change, usual=usual) if isinstance(own, Mapping) else own
            return {**part, "arguments": changed} if changed else part
        return part

    entry = MODELS.get(model)
    of_labels = () if entry is None else entry.label_arguments
    # Without any label set apart, what stands at its usual value means nothing.
    known = entry.arguments if entry is not None and usual and any(arguments.get(key) for key in of_labels) else {}
    given = {key: known[key] for key in of_labels if isinstance(known.get(key), int)} | dict(arguments)
    for key in [key for key in of_labels if key in given]:
        value = given[key]
        given[key] = [change(one) for one in value] if isinstance(value, list | tuple) else change(value)
    return {key: within(value) if key in OF_THE_SAME_CLASSES else value for key, value in given.items()}
