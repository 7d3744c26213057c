"""A recipe: everything that decides a run, as one strict tree that is written and read as YAML.

Only the command line, studies, planning and `training/run.py` open a recipe; the rooms below take plain values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, model_validator

from segwright.errors import RecipeError, brief, nearest, plainly
from segwright.files import read_yaml, write_yaml
from segwright.recipe.images import (
    AugmentRecipe,
    ClassesRecipe,
    DataRecipe,
    MixRecipe,
    SamplingRecipe,
    SplitRecipe,
)
from segwright.recipe.network import (
    CLASS_WEIGHTINGS,
    LossRecipe,
    ModelRecipe,
    OptimizerRecipe,
    ScheduleRecipe,
    TrainingRecipe,
)
from segwright.recipe.part import Count, Part, Seed, StoredValues

__all__ = [
    "CLASS_WEIGHTINGS",
    "DEFAULT_EPOCHS",
    "STAGE_BRANCHES",
    "AugmentRecipe",
    "ClassesRecipe",
    "Count",
    "DataRecipe",
    "LossRecipe",
    "MixRecipe",
    "ModelRecipe",
    "OptimizerRecipe",
    "Part",
    "Recipe",
    "SamplingRecipe",
    "ScheduleRecipe",
    "Seed",
    "SplitRecipe",
    "StoredValues",
    "TrainingRecipe",
    "budget_text",
    "make_recipe",
    "override",
    "read_recipe",
    "read_resolved",
    "stages_of",
    "write_recipe",
]


class Recipe(Part):
    """The whole tree."""

    data: DataRecipe = DataRecipe()
    classes: ClassesRecipe = ClassesRecipe()
    sampling: SamplingRecipe = SamplingRecipe()
    augment: AugmentRecipe = AugmentRecipe()
    mix: MixRecipe = MixRecipe()
    model: ModelRecipe = ModelRecipe()
    loss: LossRecipe = LossRecipe()
    optimizer: OptimizerRecipe = OptimizerRecipe()
    schedule: ScheduleRecipe = ScheduleRecipe()
    training: TrainingRecipe = TrainingRecipe()
    stages: tuple[dict[str, Any], ...] = Field(
        (),
        description="trained before the rest, one after the other: each a name, and what differs from this recipe; a "
        "budget of its own takes the place of the recipe's",
    )

    @model_validator(mode="after")
    def _stages_are_recipes(self) -> Recipe:
        for _ in stages_of(self):
            pass
        return self

    @model_validator(mode="after")
    def _nothing_waits_for_a_validation(self) -> Recipe:
        if self.data.split.refit is None:
            return self
        waiting = {
            "training.keep: last": self.training.keep != "last",
            "training.early_stopping: null": self.training.early_stopping is not None,
            "another schedule.name than plateau": self.schedule.name == "plateau",
        }
        if wrong := [mend for mend, waits in waiting.items() if waits]:
            raise ValueError(f"with 'data.split.refit' nothing is validated: set {', '.join(wrong)}")
        return self

    def as_dict(self) -> dict[str, Any]:
        return self.model_dump(mode="json")


STAGE_BRANCHES = ("sampling", "augment", "mix", "loss", "optimizer", "schedule", "training")
"""What a stage may change: not the images, their split, or the model."""


def stages_of(recipe: Recipe) -> Iterator[tuple[str, Recipe]]:
    """Name and recipe of each stage that comes before the recipe's own training.

    Raises:
        ValueError: a stage has no name of its own, or changes what it may not.
        ValidationError: what it changes does not make a recipe.
    """
    names: set[str] = set()
    for place, stage in enumerate(recipe.stages, 1):
        name = stage.get("name")
        if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name) or name in names:
            raise ValueError(f"stage {place} needs a 'name' of its own, of letters, digits, '-' and '_'")
        names.add(name)
        tree: dict[str, Any] = recipe.model_dump(mode="json", exclude={"stages"})
        for branch, changes in stage.items():
            if branch == "name":
                continue
            if branch not in STAGE_BRANCHES or not isinstance(changes, dict):
                raise ValueError(f"stage '{name}' may change {', '.join(STAGE_BRANCHES)}, not {branch!r}")
            tree[branch] |= changes
            # A stage has a budget of its own, in place of that of the recipe.
            budget = {"epochs", "minutes"}
            if branch == "training" and budget & {*changes}:
                tree[branch] |= dict.fromkeys(budget - {*changes})
        yield name, Recipe.model_validate(tree)


def read_recipe(path: Path) -> Recipe:
    """Read a recipe file.

    Raises:
        RecipeError: the file is no YAML mapping, has an unknown key or a value out of range.
    """
    tree = read_yaml(path)
    if not isinstance(tree, dict):
        raise RecipeError("a recipe is a mapping of keys", mend="start it with 'data:' or 'model:'", file=path)
    return make_recipe(tree, file=path)


def read_resolved(path: Path) -> Recipe:
    """Read the recipe that a run was trained with: whole, since a lost key would be taken for its usual value.

    Raises:
        RecipeError: as `read_recipe`, or it is cut off.
    """
    recipe = read_recipe(path)
    # The last key of the last branch that every version has written.
    if "tensorboard" not in recipe.training.model_fields_set:
        raise RecipeError("is cut off: the end of 'training' is missing", mend="bring back a copy of it", file=path)
    return recipe


def write_recipe(path: Path, recipe: Recipe) -> None:
    """Write a recipe that `read_recipe` gives back unchanged."""
    write_yaml(path, recipe.as_dict())


def make_recipe(tree: Mapping[str, Any], *, file: Path | None = None) -> Recipe:
    """Check a mapping and make it a recipe.

    Raises:
        RecipeError: naming the first wrong key or value, what it may be, and the nearest right one.
    """
    try:
        recipe = Recipe.model_validate(dict(tree))
        recipe.as_dict()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = [str(step) for step in first["loc"]]
        if first["type"] == "extra_forbidden":
            menu = _keys_at(where[:-1])
            raise RecipeError(f"unknown key '{'.'.join(where)}'", mend=nearest(where[-1], menu), file=file) from None
        message = _PLAINLY.get(first["type"]) or plainly(first["msg"])
        value = first.get("input")
        shown = "" if isinstance(value, (dict, Part)) else f" = {brief(value)}"
        place = f"'{'.'.join(where)}'{shown}: " if where else ""
        raise RecipeError(f"{place}{message}", file=file) from None
    except ValueError as error:  # lists within lists without end
        raise RecipeError(f"cannot be written down ({error})", mend="shorten model.arguments", file=file) from None
    return recipe


_PLAINLY = {
    "tuple_type": "this is a list, such as [1, 2]",
    "dict_type": "this is a mapping, such as {key: value}",
    "model_type": "this is a mapping, such as {key: value}",
}


def override(recipe: Recipe, assignments: Iterable[str]) -> Recipe:
    """Apply `key.path=value` texts, as given with `-o`; values are read as YAML.

    Raises:
        RecipeError: a text without '=', an unknown key, or a value out of range.
    """
    tree = recipe.as_dict()
    for text in assignments:
        path, equals, value = text.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise RecipeError(f"'{text}' is no assignment", mend="write key.path=value, such as optimizer.lr=3e-4")
        branch: Any = tree
        for depth, key in enumerate(keys[:-1]):
            if not isinstance(branch, dict) or key not in branch:
                raise RecipeError(f"unknown key '{path}'", mend=nearest(key, _keys_at(keys[:depth])))
            branch = branch[key]
        if not isinstance(branch, dict):
            raise RecipeError(f"'{'.'.join(keys[:-1])}' is a value, not a branch", mend="assign to it directly")
        branch[keys[-1]] = _scalar(value)
    return make_recipe(tree)


def _scalar(text: str) -> Any:
    """YAML 1.1 reads `3e-4` as a text; people mean the number."""
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):  # such as a date that there is not
        return text
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _keys_at(path: list[str]) -> list[str]:
    """The keys of the branch at `path`; those of the root where there is none."""
    branch: type[Part] = Recipe
    for step in path:
        kind = branch.model_fields[step].annotation if step in branch.model_fields else None
        if not (isinstance(kind, type) and issubclass(kind, Part)):
            return list(branch.model_fields)
        branch = kind
    return list(branch.model_fields)


def budget_text(training: TrainingRecipe) -> str:
    """The budget in words."""
    if training.minutes is not None:
        return f"{training.minutes:g} minutes"
    return f"{training.epochs or DEFAULT_EPOCHS} epochs"


DEFAULT_EPOCHS = 100
